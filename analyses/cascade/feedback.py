"""How many changed tokens each changed token begets, apart from those that the disturbed beginning goes on striking."""

from collections.abc import Sequence
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
    """

    ratio: float
    per_unit: Float[np.ndarray, " unit"]

    def interval(self, tails: float = 0.025) -> Float[np.ndarray, " bound"]:
        """Interval of R over units that leaves `tails` out on either side; NaN with fewer than 6."""
        if len(self.per_unit) < FEWEST_PROMPTS or not np.isfinite(self.per_unit).all():
            return np.full(2, np.nan)
        return careful_interval(self.per_unit, tails)


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
    sum_t g_t (D_t - mu_t) = 0. The weights g_t = x_t / (1 - exp(-s_t - x_t)), those of maximum likelihood at R = 1, are known before.

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
    there = x > 0  # elsewhere the weight is zero

    def left(ratio: float) -> Any:
        mean = s + ratio * x if counts else -np.expm1(-s - ratio * x)
        return weight * (d - mean)

    if not there.any():
        return Feedback(np.nan, np.full(int(units.max()) + 1, np.nan))
    ratio = float((weight * (d - s)).sum() / (weight * x).sum()) if counts else _root(lambda r: float(left(r).sum()))
    if np.isinf(ratio):
        return Feedback(ratio, np.full(int(units.max()) + 1, np.nan))
    steep = weight * x * (1.0 if counts else np.exp(-s - ratio * x))
    left_over, slope = (np.bincount(units, values.sum((1, 2))) for values in (left(ratio), steep))
    return Feedback(ratio, ratio + left_over / slope.mean())


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


def units_of(clusters: Sequence[Any] | None, prompts: int) -> Int[np.ndarray, " prompt"]:
    """The number of each prompt's cluster, from 0 in the order in which they first stand; without clusters that of the prompt itself."""
    if clusters is None:
        return np.arange(prompts)
    known: dict[Any, int] = {}
    return np.array([known.setdefault(cluster, len(known)) for cluster in clusters], dtype=np.int64)
