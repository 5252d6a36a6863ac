"""Whole numbers in every form in which users hold them: Python's, numpy's, tensors', one or several."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import wraps
from inspect import signature
from operator import index
from typing import Any, ParamSpec, SupportsIndex, TypeVar

import numpy as np
import torch
from torch import Tensor

from interp.errors import HookError, InterpError, TokenError

Wholes = SupportsIndex | Sequence[SupportsIndex] | np.ndarray | Tensor
"""One whole number, or several: a list, a range, an array, a tensor."""

LARGEST = 2**63 - 1
TRUTH = (bool, np.bool_, np.dtype(bool), torch.bool)

P = ParamSpec("P")
R = TypeVar("R")


def whole_number(value: Any, what: str, error: type[InterpError] = TokenError, *, least: int = -LARGEST) -> int:
    """A Python integer.

    Args:
        what: it is, for the message.
        least: that it may be.

    Raises:
        InterpError: of the class given, for anything else: also for a truth value, and for a float, whose value may be an accident.
    """
    if type(value) is not int:
        value = _index(value, what, error)
    if not -LARGEST <= value <= LARGEST:
        raise error(f"{what} must be a whole number of 64 bits, got {value}.")
    if value < least:
        raise error(f"{what} must be at least {least}, got {value}.")
    number: int = value
    return number


def _index(value: Any, what: str, error: type[InterpError]) -> int:
    kind = getattr(value, "dtype", type(value))
    several = isinstance(value, (list, tuple, np.ndarray, Tensor)) and np.ndim(_counted(value)) > 0
    if kind in TRUTH:
        said = f"a mask of shape {tuple(value.shape)}; give the places where it is true" if several else bool(value)
        raise error(f"{what} must be a whole number, got {said if several else f'the truth value {said}'}.")
    try:
        return index(value)
    except (TypeError, RuntimeError):  # a tensor of floats, or of several numbers
        said = f"shape {tuple(np.shape(_counted(value)))}" if several else f"{value!r}"
        raise error(f"{what} must be a whole number, got {said}, {getattr(kind, '__name__', kind)}.") from None


def _counted(value: Any) -> Any:
    """What has the shape of a list that numpy may have none for, such as a ragged one."""
    return range(len(value)) if isinstance(value, (list, tuple)) else value


def is_one(given: Any) -> bool:
    """Whether this is one number, not several."""
    return (
        not isinstance(given, (str, bytes)) and np.ndim(given) == 0
        if hasattr(given, "ndim")
        else not isinstance(given, Iterable)
    )


def one_or_several(given: Any, what: str, error: type[InterpError] = TokenError) -> list[Any]:
    """One or several of whatever kind as a list; what has no order, or is text, is no list. Raises InterpError of the class given."""
    if isinstance(given, (str, bytes, bytearray, Mapping, Set)):
        raise error(f"{what} must be a whole number, or a list of them; got {given!r}, {type(given).__name__}.")
    return [given] if is_one(given) else list(given)


def whole_numbers(given: Any, what: str, error: type[InterpError] = TokenError, *, least: int = -LARGEST) -> list[int]:
    """One or several as a list of Python integers. Raises as `whole_number`."""
    return [whole_number(one, what, error, least=least) for one in one_or_several(given, what, error)]


def sliced(given: slice, length: int, what: str, error: type[InterpError] = HookError) -> range:
    """The indices that a slice chooses of so many. Raises InterpError of the class given for one of anything but whole numbers."""
    for end in (given.start, given.stop, given.step):
        if end is not None:
            whole_number(end, f"{what}: each end of a slice", error)
    if given.step == 0:
        raise error(f"{what}: the step of a slice cannot be 0.")
    return range(length)[given]


def in_64_bits(number: int) -> int:
    """A seed made of another, as a generator takes it: the same number where it fits."""
    return (number + 2**63) % 2**64 - 2**63


def takes_whole(
    *names: str, several: Sequence[str] = (), least: Mapping[str, int] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For functions that users call: the named arguments arrive as plain integers, in whatever form they were given; None stays where the
    signature allows it.

    Args:
        several: arguments that are lists of them.
        least: by name, the least that an argument may be.

    Raises:
        InterpError: when called, for what is no whole number, see `whole_number`.
    """
    lowest = dict(least or {})

    def decorator(function: Callable[P, R]) -> Callable[P, R]:
        parameters = signature(function)

        def plain(name: str, value: Any) -> Any:
            if value is None and "None" in str(parameters.parameters[name].annotation):
                return None
            what, low = f"{function.__name__}: {name}", lowest.get(name, -LARGEST)
            read = whole_numbers if name in several else whole_number
            return read(value, what, InterpError, least=low)

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            given = parameters.bind(*args, **kwargs)
            for name in (*names, *several):
                if name in given.arguments:
                    given.arguments[name] = plain(name, given.arguments[name])
            return function(*given.args, **given.kwargs)

        return called

    return decorator
