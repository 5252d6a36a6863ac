"""Piano string or pile? The internal half of the verdict."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from interp.errors import ResultError

MARGIN = 0.1
"""ln Gamma over the whole depth that counts as no growth: the margin is this over the number of layers, per layer."""

FEWEST = 3
VERDICTS = ("piano string", "near-critical", "pile", "undetermined")


def internal_verdict(result: xr.Dataset, *, null: xr.Dataset | None = None) -> xr.Dataset:
    """Whether a disturbance inside the model dies away or grows relative to the stream it sits in.

    The slope of ln Gamma against depth, by least squares for each prompt, and its t-interval over prompts. `piano string`: the 95 %
    interval lies below minus the margin; `pile`: above the margin; `near-critical`: the 90 % interval lies within the margin (two
    one-sided tests at 5 %, Schuirmann 1987); otherwise, and with fewer than 3 prompts, `undetermined`.

    Args:
        result: of `analyses.cascade.gain`, with several prompts.
        null: the same of the model at random initialisation.

    Returns:
        A Dataset with the provenance of the gain: `slope` (prompt), `slope_mean`, `slope_interval` (bound), `margin`, nats per layer;
        `prompts`, how many; `verdict`; with a null `null_slope` and `null_verdict`.

    Raises:
        ResultError: no result of `gain`, or fewer than two layers.
    """
    slopes = _slopes(result)
    mean, interval, margin, said = decide(slopes, result.sizes["layer"] - 1)
    variables = {
        "slope": (("prompt",), slopes, {"long_name": "slope of ln Gamma", "units": "nats per layer"}),
        "slope_mean": ((), mean, {"long_name": "mean slope of ln Gamma", "units": "nats per layer"}),
        "slope_interval": (
            ("bound",),
            interval,
            {"long_name": "95 % interval over prompts", "units": "nats per layer"},
        ),
        "margin": ((), margin, {"long_name": "slope that counts as none", "units": "nats per layer"}),
        "prompts": ((), len(slopes), {"long_name": "prompts", "units": "1"}),
        "verdict": ((), said, {"long_name": "verdict", "units": "1"}),
    }
    if null is not None:
        other = _slopes(null)
        found = decide(other, null.sizes["layer"] - 1)
        variables |= {
            "null_slope": (
                (),
                found[0],
                {"long_name": "mean slope at random initialisation", "units": "nats per layer"},
            ),
            "null_verdict": ((), found[3], {"long_name": "verdict at random initialisation", "units": "1"}),
        }
    return xr.Dataset(
        variables, coords={"bound": ["lower", "upper"]}, attrs={**result.attrs, "kind": "internal_verdict"}
    )


def decide(slopes: Float[np.ndarray, " prompt"], depth: int) -> tuple[float, Float[np.ndarray, " two"], float, str]:
    """Mean, 95 % interval, margin and verdict."""
    margin, n = MARGIN / depth, len(slopes)
    mean = float(slopes.mean())
    if n < FEWEST:
        return mean, np.full(2, np.nan), margin, "undetermined"
    error = float(slopes.std(ddof=1)) / np.sqrt(n)
    wide, narrow = (error * stats.t.ppf(level, n - 1) for level in (0.975, 0.95))
    interval = np.array([mean - wide, mean + wide])
    if interval[1] < -margin:
        said = "piano string"
    elif interval[0] > margin:
        said = "pile"
    else:
        said = "near-critical" if abs(mean) + narrow < margin else "undetermined"
    return mean, interval, margin, said


def _slopes(result: xr.Dataset) -> Float[np.ndarray, " prompt"]:
    if result.attrs.get("kind") != "cascade_gain" or result.sizes["layer"] < 2:
        raise ResultError("internal_verdict: expected a result of analyses.cascade.gain over at least one layer.")
    slopes: np.ndarray = np.polyfit(result["layer"].to_numpy(), result["log_relative_gain"].to_numpy().T, 1)[0]
    return slopes
