"""Prompts of unequal length side by side: their positions counted from the end, where the answer stands."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

FROM_END = "position_from_end"
"""The axis of what is averaged over prompts of unequal length: -1 is the last token of each. An index from the start would put the last
token of one prompt beside a middle one of another."""


def unequal(lengths: Sequence[int]) -> bool:
    """Whether prompts of these lengths have no positions in common but from the end."""
    return len(set(lengths)) > 1


def from_end(
    values: Float[np.ndarray, "prompt ..."], axis: int, lengths: Sequence[int]
) -> Float[np.ndarray, "prompt ..."]:
    """The same with each prompt's last position at the last place of the axis; NaN before its first."""
    moved = np.full(values.shape, np.nan)
    rows, found = np.moveaxis(values, axis, 1), np.moveaxis(moved, axis, 1)
    for row, length in enumerate(lengths):
        found[row, rows.shape[1] - length :] = rows[row, :length]
    return moved


def side_by_side(
    values: Float[np.ndarray, "prompt ..."], dims: tuple[str, ...], lengths: Sequence[int]
) -> tuple[tuple[str, ...], Float[np.ndarray, "prompt ..."]]:
    """The axes after the prompt's, and the values, of what shall be averaged over prompts: by position as it is where they are equally
    long, else counted from the end."""
    if "position" not in dims or not unequal(lengths):
        return dims, values
    moved = from_end(values, 1 + dims.index("position"), lengths)
    return tuple(FROM_END if dim == "position" else dim for dim in dims), moved


def end_coords(dims: Sequence[str], lengths: Sequence[int]) -> dict[Hashable, Any]:
    """The coordinate of that axis, where there is one."""
    return {FROM_END: np.arange(-max(lengths), 0)} if "position" in dims and unequal(lengths) else {}
