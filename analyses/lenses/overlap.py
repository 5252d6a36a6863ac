"""Which rows of tokens hold text that stands in others: what a lens was trained on says nothing of how it does elsewhere."""

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

LONGEST_RUN = 32
"""Tokens in a row that two texts do not share by chance."""


def overlapping(rows: Int[Tensor, "row position"], others: Int[Tensor, "other place"]) -> Bool[np.ndarray, " row"]:
    """Which rows share a run of tokens with any of the others: of 32, or of half a row, so that the same text cut elsewhere is found."""
    run = min(LONGEST_RUN, max(1, rows.shape[1] // 2), others.shape[1])
    factors = np.random.default_rng(0).integers(1, 2**63, run, dtype=np.uint64)
    own, known = (_runs(tokens, factors) for tokens in (rows, others))
    return np.asarray(np.isin(own, known).any(axis=1))


def _runs(tokens: Int[Tensor, "row position"], factors: np.ndarray) -> np.ndarray:
    """A number for each run of tokens [row, start]: equal for equal runs; for others only by a chance of one in 2^63."""
    values = (tokens.cpu().numpy() + 1).astype(np.uint64)
    starts = values.shape[1] - len(factors) + 1
    summed = np.zeros((len(values), starts), dtype=np.uint64)
    for place, factor in enumerate(factors):
        summed += values[:, place : place + starts] * factor  # modulo 2^64
    return summed
