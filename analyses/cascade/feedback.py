"""How many changed tokens each changed token begets, apart from those that the disturbed beginning goes on striking."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize

from analyses.intervals import FEWEST_PROMPTS, careful_interval

LARGEST = 30.0
"""R beyond which it is not looked for: everything changes always."""


@dataclass(frozen=True)
class Feedback:
    """R of D_t ~ source_t + R sum_tau w_tau D_(t-tau).

    Args:
        ratio: R; NaN where no changed token is followed by any other.
        per_unit: R as each unit of replication would have it, so that their mean is R (pseudo-values of the estimating equation) [unit].
        damped: the same where the more damage a draw has had the less it counts, so that few large draws do not decide.
    """

    ratio: float
    per_unit: Float[np.ndarray, " unit"]
    damped: Float[np.ndarray, " unit"]

    def interval(self, tails: float = 0.025) -> Float[np.ndarray, " bound"]:
        """Interval of R over units that leaves `tails` out on either side, at each end the further out of both weightings'; NaN with fewer
        than 6 units."""
        both = np.stack([self.per_unit, self.damped], axis=1)
        if len(both) < FEWEST_PROMPTS or not np.isfinite(both).all():
            return np.full(2, np.nan)
        low, high = careful_interval(both, tails)
        return np.array([low.min(), high.max()])


def feedback(
    damage: Float[np.ndarray, "prompt seed time"],
    source: Float[np.ndarray, "prompt seed time"],
    kernel: Float[np.ndarray, " lag"],
    units: Int[np.ndarray, " prompt"],
    *,
    counts: bool = False,
    since: int = 0,
) -> Feedback:
    """R by an estimating equation whose terms have mean zero given all that came before, whatever the law of the offspring.

    With x_t = sum_tau w_tau D_(t-tau), a changed token is expected with mu_t = 1 - exp(-s_t - R x_t), and R solves
    sum_t g_t (D_t - mu_t) = 0. The weights g_t = x_t / (1 - exp(-s_t - x_t)), those of maximum likelihood at R = 1, are known before; so
    are those over sqrt(1 + sum_{s<=t} x_s), by which the interval is held as well.

    Args:
        damage: 0 or 1 in a text; with `counts` any number, as in a branching process, where mu_t = s_t + R x_t.
        source: s_t, what the disturbed beginning does by itself, nats.
        kernel: w, shares of a token's influence by lag, which sum to 1.
        units: of replication to which each prompt belongs, numbered from 0: the prompt itself, or its cluster.
        since: steps before this one are followed by others, but are not themselves explained.
    """
    x = influenced(damage, kernel)[..., since:]
    d, s = damage[..., since:].astype(float), source[..., since:]
    expected = s + x if counts else -np.expm1(-s - x)
    weight = np.divide(x, expected, out=np.zeros_like(x), where=x > 0)
    if not (x > 0).any():
        nothing = np.full(int(units.max()) + 1, np.nan)
        return Feedback(np.nan, nothing, nothing)
    ratio, per_unit = _solved(weight, x, d, s, units, counts)
    return Feedback(ratio, per_unit, _solved(weight / np.sqrt(1 + x.cumsum(-1)), x, d, s, units, counts)[1])


def _solved(
    weight: np.ndarray, x: np.ndarray, damage: np.ndarray, source: np.ndarray, units: np.ndarray, counts: bool
) -> tuple[float, Float[np.ndarray, " unit"]]:
    """R for weights [prompt, seed, time], and its pseudo-values."""

    def left(ratio: float) -> Any:
        mean = source + ratio * x if counts else -np.expm1(-source - ratio * x)
        return weight * (damage - mean)

    ratio = (
        float((weight * (damage - source)).sum() / (weight * x).sum())
        if counts
        else _root(lambda r: float(left(r).sum()))
    )
    if np.isinf(ratio):
        return ratio, np.full(int(units.max()) + 1, np.nan)
    steep = weight * x * (1.0 if counts else np.exp(-source - ratio * x))
    left_over, slope = (np.bincount(units, values.sum((1, 2))) for values in (left(ratio), steep))
    return ratio, ratio + left_over / slope.mean()


def _root(left: Any) -> float:
    """Where a falling function is zero; infinite where it is not within what is looked at."""
    if left(LARGEST) > 0:
        return float("inf")
    return float(optimize.brentq(left, -LARGEST, LARGEST, xtol=1e-10))


def influenced(
    damage: Float[np.ndarray, "prompt seed time"], kernel: Float[np.ndarray, " lag"]
) -> Float[np.ndarray, "prompt seed time"]:
    """x_t = sum_tau w_tau D_(t-tau), the earlier damage as it still acts."""
    x = np.zeros(damage.shape)
    for lag, share in enumerate(kernel[: damage.shape[-1] - 1], start=1):
        x[..., lag:] += share * damage[..., :-lag]
    return x
