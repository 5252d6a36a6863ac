"""Whether fluctuations at several lengths fall onto one curve, as they do at a transition, judged on prompts that were not fitted."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

FOLDS = 5
GROWTH = np.linspace(-0.5, 1.5, 9)
INVERSE_NU = np.array([0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0])
CENTRES = 9
"""Exponents g and 1/nu, and the number of critical temperatures over the range, that are tried."""


def collapse_advantage(
    chi: Float[np.ndarray, "prompt temperature horizon"], grid: Float[np.ndarray, " temperature"], sizes: Sequence[int]
) -> Float[np.ndarray, " prompt"]:
    """For each prompt, by how much chi = H^g f((T - T_c) H^(1/nu)) foretells it better than chi = H^g f(T), both fitted to other prompts.

    NaN with fewer than 5 prompts. The mean over temperatures and lengths of the squared errors over the variance there, of the second less
    of the first. Without any growth (g = 0) and with growth at all temperatures alike, the second is the law, and the first has nothing to
    add.
    """
    n = len(chi)
    if n < FOLDS or not np.isfinite(chi).all():
        return np.full(n, np.nan)
    spread = chi.var(axis=0, ddof=1)
    weight = 1 / np.maximum(spread, 1e-12 + 1e-6 * spread.mean())
    fold = np.random.default_rng(0).permutation(n) % FOLDS
    better = np.empty(n)
    for one in range(FOLDS):
        held = fold == one
        mean = chi[~held].mean(0)
        without, collapsed = (_fitted(mean, weight, grid, sizes, scaled) for scaled in (False, True))
        losses = [((chi[held] - law) ** 2 * weight).mean((1, 2)) for law in (without, collapsed)]
        better[held] = losses[0] - losses[1]
    return better


def _fitted(
    mean: Float[np.ndarray, "temperature horizon"],
    weight: Float[np.ndarray, "temperature horizon"],
    grid: Float[np.ndarray, " temperature"],
    sizes: Sequence[int],
    scaled: bool,
) -> Float[np.ndarray, "temperature horizon"]:
    """The best of the laws that are tried, by weighted least squares."""
    length = np.asarray(sizes, dtype=float) / sizes[-1]
    root, wanted = np.sqrt(weight).ravel(), mean.ravel()
    best, found = np.inf, mean
    centres, powers = (np.linspace(grid[0], grid[-1], CENTRES), INVERSE_NU) if scaled else (grid[:1], np.zeros(1))
    for centre in centres:
        for power in powers:
            curve = _hats(((grid[:, None] - centre) * length**power).ravel(), len(grid))
            for growth in GROWTH:
                design = curve * np.broadcast_to(length**growth, mean.shape).reshape(-1, 1)
                values = np.linalg.lstsq(design * root[:, None], wanted * root, rcond=None)[0]
                law = design @ values
                loss = float((((law - wanted) * root) ** 2).sum())
                if loss < best:
                    best, found = loss, law.reshape(mean.shape)
    return found


def _hats(x: Float[np.ndarray, " point"], knots: int) -> Float[np.ndarray, "point knot"]:
    """What each knot of a piecewise linear curve weighs at each point; knots at equal shares of the points: without a collapse, one at
    each temperature, so that any f(T) is met."""
    at = np.unique(np.quantile(x, np.linspace(0, 1, knots), method="nearest"))
    return np.stack([np.interp(x, at, one) for one in np.eye(len(at))], axis=1)
