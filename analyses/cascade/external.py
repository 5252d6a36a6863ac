"""Piano string or pile? The external half of the verdict: what becomes of a difference as the model reads its own words."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.intervals import FEWEST_PROMPTS, RESAMPLES, largest_rare, tail
from interp.errors import ResultError

EPSILON = 0.05
"""Late damage, changed tokens in a token, below which a disturbance counts as gone."""

MARGIN = 0.25
"""Change of ln(damage) per change of ln(length) that counts as none."""

CRITICAL = -1.0
"""The same slope for the survival of a critical branching process (Kolmogorov 1938): what decays faster is subcritical."""

SHORTEST = 16
"""Steps below which there are no three lengths to compare."""


@dataclass(frozen=True)
class Decided:
    """What the damage says.

    Args:
        lengths: tokens, of the three lengths that are compared: a quarter, half and all of what was generated.
        late: mean damage of each window, the last half of each length [length].
        late_interval: [bound, length].
        slope, slope_interval: d ln(late damage) / d ln(length) from the last but one length to the last.
        decay_interval: of the same from the shortest length to the last, by which a decay is judged.
        spread_interval: of d ln(variance of a run's late damage) / d ln(length).
        verdict: one of `VERDICTS`.
    """

    lengths: list[int]
    late: Float[np.ndarray, " length"]
    late_interval: Float[np.ndarray, "bound length"]
    slope: float
    slope_interval: Float[np.ndarray, " bound"]
    decay_interval: Float[np.ndarray, " bound"]
    spread_interval: Float[np.ndarray, " bound"]
    verdict: str


def external_verdict(result: xr.Dataset, *, epsilon: float = EPSILON) -> xr.Dataset:
    """Whether a difference dies away or grows as the model reads its own words, at this dose, temperature and length.

    By the aligned damage of the last half of three lengths (a quarter, half and all of the steps), with 95 % bootstrap intervals over
    prompts. `piano string`: the upper bound of late damage is below epsilon, and it decays faster with the length than the survival of a
    critical branching process does, which falls as 1/length: the upper bound of d ln(damage) / d ln(length) is below -1.25 from the
    shortest length on, or below -1.5 from the first steps on. `near-critical`: late damage neither rises nor falls between all three
    (two one-sided tests at 5 %, margin 0.25 of ln per ln), and its variance over runs grows. `pile`: the lower bound is above epsilon, and
    late damage rises, or does not fall while its variance does not grow. Otherwise, and with fewer than 6 prompts, `undetermined`.
    Checked on branching processes of known ratio, see the documentation: at most 5 % false verdicts.

    Args:
        result: of `analyses.cascade.coupled`, with 16 steps at least.
        epsilon: late damage below which a disturbance counts as gone; changed tokens in a token.

    Returns:
        A Dataset with the provenance of the result, over horizon (the lengths): `late_damage` (horizon, prompt), `late_damage_mean`,
        `late_damage_interval`; `slope`, d ln(late damage) / d ln(length) at the last doubling, `slope_interval`, `decay_interval` (from the
        shortest length), `spread_interval` (of the variance); `epsilon`, `margin`, `critical`; `prompts`; `verdict`.

    Raises:
        ResultError: no result of `coupled`, or fewer than 16 steps.
    """
    if result.attrs.get("kind") != "cascade_coupled" or result.sizes["time"] < SHORTEST:
        raise ResultError(
            f"external_verdict: expected a result of analyses.cascade.coupled over {SHORTEST} steps at least."
        )
    damage = result["aligned_damage"].to_numpy().astype(float)
    found = decide_outside(damage, epsilon=epsilon)
    each = np.stack([damage[:, :, length // 2 : length].mean((1, 2)) for length in found.lengths])
    ratio = {"units": "1"}
    return xr.Dataset(
        {
            "late_damage": (("horizon", "prompt"), each, {"long_name": "late damage", "units": "1"}),
            "late_damage_mean": (("horizon",), found.late, {"long_name": "mean over prompts: late damage", "units": "1"}),
            "late_damage_interval": (("bound", "horizon"), found.late_interval, {"long_name": "95 % interval over prompts", "units": "1"}),
            "slope": ((), found.slope, {"long_name": "d ln(late damage) / d ln(length)", **ratio}),
            "slope_interval": (("bound",), found.slope_interval, {"long_name": "95 % interval of the slope", **ratio}),
            "decay_interval": (("bound",), found.decay_interval, {"long_name": "95 % interval of the slope from the shortest", **ratio}),
            "spread_interval": (("bound",), found.spread_interval, {"long_name": "95 % interval of the slope of ln(variance)", **ratio}),
            "epsilon": ((), epsilon, {"long_name": "late damage that counts as gone", **ratio}),
            "margin": ((), MARGIN, {"long_name": "slope that counts as none", **ratio}),
            "critical": ((), CRITICAL, {"long_name": "slope of a critical process' survival", **ratio}),
            "prompts": ((), damage.shape[0], {"long_name": "prompts", **ratio}),
            "verdict": ((), found.verdict, {"long_name": "verdict", **ratio}),
        },
        coords={"horizon": found.lengths, "bound": ["lower", "upper"]},
        attrs={**result.attrs, "kind": "external_verdict"},
    )  # fmt: skip


def decide_outside(damage: Float[np.ndarray, "prompt seed time"], *, epsilon: float = EPSILON) -> Decided:
    """The verdict on damage at each step, 0 or 1 for texts, any count for a branching process; prompts are the unit of replication."""
    n, _, steps = damage.shape
    lengths = [steps // 4, steps // 2, steps]
    windows = np.stack(
        [damage[:, :, length // 2 : length].mean(2) for length in lengths], axis=-1
    )  # [prompt, seed, length]
    early = (1 + damage[:, :, : steps // 8].sum(2)).mean(1) / (1 + steps // 8)  # the disturbance itself is one
    by_prompt = windows.mean(1)
    late = by_prompt.mean(0)
    nothing = np.full(2, np.nan)
    if n < FEWEST_PROMPTS:
        return Decided(
            lengths, late, np.full((2, len(lengths)), np.nan), np.nan, nothing, nothing, nothing, "undetermined"
        )
    half = 0.5 / (damage.shape[0] * damage.shape[1] * np.array([length - length // 2 for length in lengths]))
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n  # [resample, prompt]
    drawn = weights @ by_prompt
    logs = np.log(drawn + half)
    squares = weights @ (windows**2).mean(1)
    variance = np.log(np.maximum(squares - drawn**2, half**2))
    doubling = np.log(2)
    bounds = [tail(n), 1 - tail(n)]
    interval = np.quantile(drawn, bounds, axis=0)
    interval[1] = np.maximum(interval[1], _rare(by_prompt, damage[:, :, : steps // 8].mean((1, 2))))
    slopes = (logs[:, 2] - logs[:, 1]) / doubling
    spreads = (variance[:, 2] - variance[:, 1]) / doubling
    slope, spread = (np.quantile(values, bounds) for values in (slopes, spreads))
    # Where hardly any run is left, resampling does not know how many there might be; the upper bound of late damage does.
    most = np.log(interval[1, 2] + half[2])
    begun, far = np.log(weights @ early), np.log(12)  # from the first eighth to the last half, by their middles
    decay, sudden = (
        np.maximum(np.quantile((logs[:, 2] - start) / distance, bounds), [-np.inf, (most - start.mean()) / distance])
        for start, distance in ((logs[:, 0], 2 * doubling), (begun, far))
    )
    inner = np.quantile(
        (logs[:, 1:] - logs[:, :-1]) / doubling, [tail(n, 0.05), 1 - tail(n, 0.05)], axis=0
    )  # 90 %: two one-sided tests
    still = bool((np.abs(inner) < MARGIN).all())
    if interval[1, 2] < epsilon and (decay[1] < CRITICAL - MARGIN or sudden[1] < 1.5 * CRITICAL):
        said = "piano string"
    elif still and spread[0] > 0.5:
        said = "near-critical"
    elif interval[0, 2] > epsilon and (slope[0] > MARGIN or (slope[0] > -MARGIN and spread[1] < 0.5)):
        said = "pile"
    else:
        said = "undetermined"
    return Decided(
        lengths,
        late,
        interval,
        float(np.log(late[2] + half[2]) - np.log(late[1] + half[1])) / doubling,
        slope,
        decay,
        spread,
        said,
    )


def _rare(
    by_prompt: Float[np.ndarray, "prompt length"], at_first: Float[np.ndarray, " prompt"]
) -> Float[np.ndarray, " length"]:
    """`largest_rare` of each window; where none has any, what those have that do is taken from the last window in which some did, or from
    the first steps."""
    typical = float(at_first[at_first > 0].mean()) if (at_first > 0).any() else 1.0
    bound = np.empty(by_prompt.shape[1])
    for window, values in enumerate(by_prompt.T):
        typical = float(values[values > 0].mean()) if (values > 0).any() else typical
        bound[window] = largest_rare(values, typical)
    return bound
