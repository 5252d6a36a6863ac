"""Power against exponential, by AIC."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LAWS = ("power", "exponential")
FEWEST = 4
"""Fewer points than this do not tell one law from the other."""


@dataclass(frozen=True)
class Laws:
    """Straight lines through ln y, against ln x (power) and against x (exponential).

    Args:
        log_likelihood, aic: [law], nats; the smaller AIC is the better law (Akaike 1974). NaN with fewer than 4 points.
        slope: [law], d ln y / d ln x, and d ln y / dx.
    """

    log_likelihood: Float[np.ndarray, " law"]
    aic: Float[np.ndarray, " law"]
    slope: Float[np.ndarray, " law"]


def fit(x: Float[np.ndarray, " point"], y: Float[np.ndarray, " point"]) -> Laws:
    """Least squares of the logarithms, residuals taken for normal, over the points where x and y are positive."""
    usable = (x > 0) & (y > 0) & np.isfinite(y)
    likelihood, aic, slope = np.full((3, len(LAWS)), np.nan)
    if usable.sum() >= FEWEST:
        logs = np.log(y[usable])
        for number, against in enumerate((np.log(x[usable]), x[usable])):
            slope[number], offset = np.polyfit(against, logs, 1)
            residual = logs - slope[number] * against - offset
            variance = max(float(np.mean(residual**2)), np.finfo(float).tiny)
            likelihood[number] = -0.5 * len(logs) * (np.log(2 * np.pi * variance) + 1)
            aic[number] = 2 * 3 - 2 * likelihood[number]  # slope, offset, variance
    return Laws(likelihood, aic, slope)
