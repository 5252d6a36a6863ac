"""Two texts put beside each other so that one insertion is one difference, not a lasting one."""

import numpy as np
from jaxtyping import Bool, Int

TOGETHER = 64
"""Pairs whose tables are held at once."""


def align(
    clean: Int[np.ndarray, "row time"], other: Int[np.ndarray, "row time"]
) -> tuple[Bool[np.ndarray, "row time"], Int[np.ndarray, " row"]]:
    """Which tokens of the clean text have no equal partner in a cheapest alignment, and how many edits that takes.

    Levenshtein's distance (insertions, deletions and substitutions at cost 1) by dynamic programming, all rows of a block together.
    Of equally cheap alignments the one is taken that pairs equal tokens last to first wherever it can.
    """
    damage = np.zeros(clean.shape, dtype=bool)
    distance = np.zeros(len(clean), dtype=np.int64)
    for start in range(0, len(clean), TOGETHER):
        rows = slice(start, start + TOGETHER)
        damage[rows], distance[rows] = _block(clean[rows], other[rows])
    return damage, distance


def _block(clean: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, length = clean.shape
    width = other.shape[1]
    across = np.arange(width + 1)
    table = np.empty((length + 1, rows, width + 1), dtype=np.int32)
    table[0] = across
    for i in range(1, length + 1):
        above = table[i - 1]
        differs = clean[:, i - 1, None] != other
        best = above + 1
        best[:, 1:] = np.minimum(best[:, 1:], above[:, :-1] + differs)
        table[i] = np.minimum.accumulate(best - across, axis=1) + across  # insertions, from the left
    damage = np.zeros((rows, length), dtype=bool)
    row = np.arange(rows)
    at: np.ndarray = np.full(rows, length)
    to: np.ndarray = np.full(rows, width)
    while (at > 0).any():
        here = table[at, row, to]
        inside = (at > 0) & (to > 0)
        before = np.maximum(at - 1, 0), np.maximum(to - 1, 0)
        equal = inside & (clean[row, before[0]] == other[row, before[1]]) & (table[before[0], row, before[1]] == here)
        left = ~equal & (to > 0) & (table[at, row, before[1]] + 1 == here) & (at > 0)
        swapped = ~equal & ~left & inside & (table[before[0], row, before[1]] + 1 == here)
        deleted = ~equal & ~left & ~swapped & (at > 0)
        lost = swapped | deleted
        damage[row[lost], at[lost] - 1] = True
        at = at - (equal | lost)
        to = to - (equal | swapped | left)
    return damage, table[length, :, width]
