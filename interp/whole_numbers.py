"""Whole numbers in every form in which users hold them: Python's, numpy's, tensors', one or several."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from interp.errors import InterpError, TokenError

Wholes = SupportsIndex | Sequence[SupportsIndex] | np.ndarray | Tensor
"""One whole number, or several: a list, a range, an array, a tensor."""

LARGEST = 2**63 - 1


def whole_number(value: Any, what: str, error: type[InterpError] = TokenError) -> int:
    """A Python integer.

    Args:
        what: it is, for the message.

    Raises:
        InterpError: of the class given, for anything else: also for a truth value, and for a float, whose value may be an accident.
    """
    kind = getattr(value, "dtype", type(value))
    if kind in (bool, np.dtype(bool), torch.bool):
        raise error(f"{what} must be a whole number, got the truth value {bool(value)}.")
    try:
        number = index(value)
    except (TypeError, RuntimeError):  # a tensor of floats, or of several numbers
        said = f"{value!r}" if np.ndim(value) == 0 else f"shape {tuple(np.shape(value))}"
        raise error(f"{what} must be a whole number, got {said}, {getattr(kind, '__name__', kind)}.") from None
    if not -LARGEST <= number <= LARGEST:
        raise error(f"{what} must be a whole number of 64 bits, got {number}.")
    return number


def is_one(given: Any) -> bool:
    """Whether this is one number, not several."""
    return (
        not isinstance(given, (str, bytes)) and np.ndim(given) == 0
        if hasattr(given, "ndim")
        else not isinstance(given, Iterable)
    )


def whole_numbers(given: Any, what: str, error: type[InterpError] = TokenError) -> list[int]:
    """One or several as a list of Python integers. Raises as `whole_number`."""
    return [whole_number(one, what, error) for one in ([given] if is_one(given) else given)]
