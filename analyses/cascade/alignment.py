"""Two texts put beside each other so that one insertion is one difference, not a lasting one."""

import numpy as np
from jaxtyping import Bool, Int

TOGETHER = 64
"""Pairs whose tables are held at once."""


def align(
    clean: Int[np.ndarray, "row time"], other: Int[np.ndarray, "row other_time"]
) -> tuple[Bool[np.ndarray, "row time"], Int[np.ndarray, " row"]]:
    """Which steps of the clean text are damaged in a cheapest alignment with the other, and how many edits that takes.

    Levenshtein's distance (insertions, deletions and substitutions at cost 1) with free ends, by dynamic programming: what the other text
    has beyond the clean one's end costs nothing, nor does what the clean one has beyond the other's, of which nothing is known. A clean
    token without an equal partner is damaged; n tokens put in are n damaged ones from where they stand on. Of equally cheap alignments
    the one is taken that uses most of the clean text and pairs equal tokens last to first wherever it can.

    Args:
        other: may be longer than the clean text, so that what an insertion has pushed beyond that one's end has its partners still.
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
    at, to = _ends(table)
    row = np.arange(rows)
    distance = table[at, row, to]
    lost = np.zeros((rows, length), dtype=bool)
    inserted = np.zeros((rows, length + 1), dtype=np.int32)  # before each clean token
    while ((at > 0) | (to > 0)).any():
        here = table[at, row, to]
        inside = (at > 0) & (to > 0)
        before = np.maximum(at - 1, 0), np.maximum(to - 1, 0)
        equal = inside & (clean[row, before[0]] == other[row, before[1]]) & (table[before[0], row, before[1]] == here)
        left = ~equal & (to > 0) & (table[at, row, before[1]] + 1 == here)
        swapped = ~equal & ~left & inside & (table[before[0], row, before[1]] + 1 == here)
        deleted = ~equal & ~left & ~swapped & (at > 0)
        gone = swapped | deleted
        lost[row[gone], at[gone] - 1] = True
        inserted[row[left], at[left]] += 1
        at = at - (equal | gone)
        to = to - (equal | swapped | left)
    waiting = np.zeros(rows, dtype=np.int32)
    for i in range(length):
        waiting += inserted[:, i]
        here = ~lost[:, i] & (waiting > 0)
        lost[:, i] |= here
        waiting -= here
    return lost, distance


def _ends(table: Int[np.ndarray, "clean row other"]) -> tuple[np.ndarray, np.ndarray]:
    """Where each cheapest alignment ends: at the end of the clean text, as near to as far in the other as it can; else of the other."""
    length, width = table.shape[0] - 1, table.shape[2] - 1
    nearest = np.argsort(np.abs(np.arange(width + 1) - length), kind="stable")
    whole = nearest[table[length][:, nearest].argmin(1)]
    cut = length - table[::-1, :, width].argmin(0)
    row = np.arange(table.shape[1])
    shorter = table[cut, row, width] < table[length, row, whole]
    return np.where(shorter, cut, length), np.where(shorter, width, whole)
