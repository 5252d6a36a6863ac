"""Doses, temperatures and the like, as users give them: one, or a grid of them."""

from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor


def positive(given: Any) -> bool:
    """Whether this is a positive, finite number."""
    return isinstance(given, Real) and not isinstance(given, bool) and 0 < float(given) < float("inf")


def rising(given: Any, least: int) -> Float[np.ndarray, " number"] | None:
    """Positive, finite, increasing numbers, so many at least; None where that is not what was given."""
    numbers = given.tolist() if isinstance(given, (np.ndarray, Tensor)) else given
    if not isinstance(numbers, Iterable):
        return None
    each = list(numbers)
    if len(each) < least or not all(isinstance(one, Real) and not isinstance(one, bool) for one in each):
        return None
    grid = np.array(each, dtype=float)
    fits = grid[0] > 0 and bool(np.isfinite(grid).all()) and bool((np.diff(grid) > 0).all())
    return grid if fits else None
