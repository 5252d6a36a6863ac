"""Piano string or pile? The external half of the verdict: what becomes of a difference as the model reads its own words."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats

from analyses.cascade.driven import END
from analyses.cascade.feedback import Feedback, feedback
from analyses.cascade.rising import positive
from analyses.clusters import by_unit
from analyses.intervals import FEWEST_PROMPTS, RESAMPLES, largest_rare, tail
from analyses.results import is_result
from interp.errors import InterpError, ResultError

EPSILON = 0.05
"""Late damage, changed tokens in a token, below which a disturbance counts as gone."""

NEAR = 0.05
"""How far from 1 the 90 % interval of R may lie to count as near-critical."""

LATE = 2 * NEAR
"""The same of the last quarter, of which there is a quarter of the data."""

MARGIN = 0.25
"""Change of ln(damage) per change of ln(length) that counts as none."""

SHORTEST = 16
"""Steps below which there are no three lengths to compare."""

MOST_LOOPING = 0.5
"""Share of looping texts beyond which there is no verdict."""

HEAVIEST = 0.35
"""Share of the squares of all units' deviations that one may have for an upper bound of R to hold; more where normal numbers may."""


@dataclass(frozen=True)
class Decided:
    """What the damage says.

    Args:
        r, late: of all steps, and of the last quarter alone.
        lengths: tokens, of the three lengths that are compared: a quarter, half and all of what was generated.
        damage: mean damage of each window, the last half of each length [length].
        damage_interval: [bound, length].
        slope, slope_interval: d ln(late damage) / d ln(length) from the last but one length to the last.
        verdict: one of `VERDICTS`.
        reason: why there is none; empty where there is one.
    """

    r: Feedback
    late: Feedback
    lengths: list[int]
    damage: Float[np.ndarray, " length"]
    damage_interval: Float[np.ndarray, "bound length"]
    slope: float
    slope_interval: Float[np.ndarray, " bound"]
    verdict: str
    reason: str


def external_verdict(result: xr.Dataset, *, epsilon: float = EPSILON) -> xr.Dataset:
    """Whether a difference dies away or grows as the model reads its own words, at this dose, temperature and length.

    By R, how many tokens each changed token changes apart from what the disturbed beginning goes on striking. `pile`: the lower 95 % bound
    of R is above 1, that of the last quarter too, and late damage does not fall with the length (the lower bound of
    d ln(damage) / d ln(length) over the last doubling is above -0.25). `piano string`: the upper bound of R is below 1, and neither R in
    the last quarter nor the damage contradicts that; how much of the damage is driven is said beside it. `near-critical`: the 90 %
    interval of R lies within 1 +- 0.05, and that of the last quarter within 1 +- 0.1. Otherwise `undetermined`, with the reason; also with
    fewer than 6 prompts or clusters, and where most texts repeat themselves. Checked on processes of known R, see the documentation.

    Args:
        result: of `analyses.cascade.driven`, with 16 steps at least.
        epsilon: late damage below which a disturbance counts as gone; changed tokens in a token.

    Returns:
        A Dataset with the provenance of the result, over horizon (a quarter, half and all of the steps): `late_damage` (horizon, prompt),
        in the last half of each, with mean and interval; `slope`, d ln(late damage) / d ln(length) at the last doubling, and
        `slope_interval`. `r`, `late_r`, `driven_share`, `survival_share`, `survivor_damage`, with the intervals of the result, and
        `r_90_interval`; `looping`, the share of draws that repeat themselves; `epsilon`, `margin`, `near`; `prompts`, `clusters`, how many;
        `verdict` and `reason`.

    Raises:
        ResultError: no result of `driven`, or fewer than 16 steps. InterpError: an epsilon that is no number of 0 or more.
    """
    if not is_result(result, "cascade_driven") or result.sizes["time"] < SHORTEST:
        raise ResultError(
            f"external_verdict: expected a result of analyses.cascade.driven over {SHORTEST} steps at least. Late damage alone, as in "
            "coupled texts, does not tell a beginning that goes on striking from damage that sustains itself."
        )
    damage, units = result["damage"].to_numpy().astype(float), result["cluster"].to_numpy()
    if epsilon != 0 and not positive(epsilon):
        raise InterpError(f"external_verdict: epsilon must be a number of 0 or more, got {epsilon!r}.")
    loops = float(result["looping"].mean())
    found = decide_outside(
        damage, result["source"].to_numpy(), result["kernel"].to_numpy(), units, looping=loops, epsilon=epsilon
    )
    each = np.stack([damage[:, :, length // 2 : length].mean((1, 2)) for length in found.lengths])
    taken = ["r", "r_interval", "late_r", "late_r_interval", "driven_share", "driven_share_interval", "survival_share",
             "survival_share_mean", "survival_share_interval", "survivor_damage"]  # fmt: skip
    variables: dict[str, Any] = {name: result[name].variable for name in taken}
    shown: dict[str, tuple[tuple[str, ...], Any, str]] = {
        "r_90_interval": (("bound",), found.r.interval(0.05), "90 % interval over prompts"),
        "late_damage": (("horizon", "prompt"), each, "late damage"),
        "late_damage_mean": (("horizon",), found.damage, "mean over prompts: late damage"),
        "late_damage_interval": (("bound", "horizon"), found.damage_interval, "95 % interval over prompts"),
        "slope": ((), found.slope, "d ln(late damage) / d ln(length)"),
        "slope_interval": (("bound",), found.slope_interval, "95 % interval of the slope"),
        "looping": ((), loops, "share of draws whose texts repeat themselves"),
        "epsilon": ((), epsilon, "late damage that counts as gone"),
        "margin": ((), MARGIN, "slope that counts as none"),
        "near": ((), NEAR, "distance of R from 1 that counts as none"),
        "prompts": ((), len(damage), "prompts"),
        "clusters": ((), int(units.max()) + 1, "clusters of prompts"),
        "verdict": ((), found.verdict, "verdict"),
        "reason": ((), found.reason, "why it is undetermined"),
    }
    variables |= {
        name: (dims, values, {"long_name": said, "units": "1"}) for name, (dims, values, said) in shown.items()
    }
    return xr.Dataset(
        variables,
        coords={"horizon": found.lengths, "bound": ["lower", "upper"]},
        attrs={**result.attrs, "kind": "external_verdict"},
    )


def decide_outside(
    damage: Float[np.ndarray, "prompt seed time"],
    source: Float[np.ndarray, "prompt seed time"],
    kernel: Float[np.ndarray, " lag"],
    units: Int[np.ndarray, " prompt"] | None = None,
    *,
    counts: bool = False,
    looping: float = 0.0,
    epsilon: float = EPSILON,
) -> Decided:
    """The verdict on damage at each step, 0 or 1 for texts, or any count for a branching process; arguments as for `feedback`."""
    steps = damage.shape[-1]
    units = np.arange(len(damage)) if units is None else units
    lengths = [steps // 4, steps // 2, steps]
    windows = np.stack([damage[:, :, length // 2 : length].mean((1, 2)) for length in lengths], axis=-1)
    whole = feedback(damage, source, kernel, units, counts=counts)
    late = feedback(damage, source, kernel, units, counts=counts, since=steps - steps // END)
    by_units = by_unit(windows, units)
    interval, slope, bounds = _lengths(by_units, damage)
    said, reason = _said(whole, late, interval, bounds, len(by_units), looping, epsilon)
    return Decided(whole, late, lengths, by_units.mean(0), interval, slope, bounds, said, reason)


def _said(
    whole: Feedback, late: Feedback, damage: np.ndarray, slope: np.ndarray, units: int, looping: float, epsilon: float
) -> tuple[str, str]:
    """The verdict, or `undetermined` and why."""
    if units < FEWEST_PROMPTS:
        return "undetermined", f"{units} of the {FEWEST_PROMPTS} prompts or clusters that a verdict needs at least"
    if looping > MOST_LOOPING:
        return "undetermined", f"{looping:.0%} of the texts repeat themselves"
    low, high = whole.interval()
    if np.isnan(low):
        return "undetermined", "no changed token is followed by others, so nothing is known of what one changes"
    later = late.interval()[0]
    if low > 1:
        if not later > 1:
            return "undetermined", "R is above 1, but not certainly in the last quarter"
        if not slope[0] > -MARGIN:
            return "undetermined", "R is above 1, but the damage may be falling"
        return "pile", ""
    inner = whole.interval(0.05)
    if inner[0] > 1 - NEAR and inner[1] < 1 + NEAR:
        at_last = late.interval(0.05)
        if not (at_last[0] > 1 - LATE and at_last[1] < 1 + LATE):
            return "undetermined", "R is near 1, but not certainly in the last quarter"
        return "near-critical", ""
    if high < 1:
        if later > 1 or (damage[0, 2] > epsilon and slope[0] > MARGIN):
            return "undetermined", "R is below 1, but the damage grows"
        if _is_heavy(whole):
            return "undetermined", "R is below 1, but one prompt weighs so much that there may be larger ones still"
        return "piano string", ""
    return "undetermined", f"the interval of R, {low:.2f} to {high:.2f}, holds 1"


def _is_heavy(found: Feedback) -> bool:
    """Whether one unit has so large a share of the squares that the mean may not be where it seems: more than `HEAVIEST`, and more than
    one in twenty sets of as many normal numbers (Grubbs 1950)."""
    n = len(found.per_unit)
    squares = (found.per_unit - found.per_unit.mean()) ** 2
    t = float(stats.t.ppf(1 - 0.05 / (2 * n), n - 2)) ** 2
    normal = (n - 1) / n * t / (n - 2 + t)
    return bool(squares.max() > max(HEAVIEST, normal) * squares.sum())


def _lengths(
    by_unit: Float[np.ndarray, "unit length"], damage: Float[np.ndarray, "prompt seed time"]
) -> tuple[np.ndarray, float, np.ndarray]:
    """Interval of late damage at each length; d ln(late damage) / d ln(length) over the last doubling, and its interval."""
    n, steps = len(by_unit), damage.shape[-1]
    half = 0.5 / (damage.shape[0] * damage.shape[1] * np.array([steps // 8, steps // 4, steps // 2]))
    mean = by_unit.mean(0)
    slope = float(np.log(mean[2] + half[2]) - np.log(mean[1] + half[1])) / np.log(2)
    if n < FEWEST_PROMPTS:
        return np.full((2, 3), np.nan), slope, np.full(2, np.nan)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n  # [resample, unit]
    drawn = weights @ by_unit
    bounds = [tail(n), 1 - tail(n)]
    interval = np.quantile(drawn, bounds, axis=0)
    interval[1] = np.maximum(interval[1], _rare(by_unit, damage[:, :, : steps // 8].mean((1, 2))))
    logs = np.log(drawn + half)
    return interval, slope, np.quantile((logs[:, 2] - logs[:, 1]) / np.log(2), bounds)


def _rare(
    by_unit: Float[np.ndarray, "unit length"], at_first: Float[np.ndarray, " prompt"]
) -> Float[np.ndarray, " length"]:
    """`largest_rare` of each window; where none has any, what those have that do is taken from the last window in which some did, or from
    the first steps."""
    typical = float(at_first[at_first > 0].mean()) if (at_first > 0).any() else 1.0
    bound = np.empty(by_unit.shape[1])
    for window, values in enumerate(by_unit.T):
        typical = float(values[values > 0].mean()) if (values > 0).any() else typical
        bound[window] = largest_rare(values, typical)
    return bound
