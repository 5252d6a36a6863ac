"""Grids of doses and temperatures, as users give them."""

from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor


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
