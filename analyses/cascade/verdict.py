"""Piano string or pile? The internal half of the verdict."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from analyses.clusters import Labels, by_unit, units_for
from analyses.intervals import careful_interval
from analyses.results import is_result
from interp.errors import ResultError

MARGIN = 0.1
"""ln Gamma over the whole depth that counts as no growth: the margin is this over the number of layers, per layer."""

FEWEST = 3
VERDICTS = ("piano string", "near-critical", "pile", "undetermined")
DIFFERENCES = {
    "piano string": "damped more than before training",
    "near-critical": "as before training",
    "pile": "grows more than before training",
    "undetermined": "undetermined",
}
"""What the same rule says of the slopes less those of the random twin."""

AS_SLOPE = {
    "piano string": "below the margin",
    "near-critical": "within the margin",
    "pile": "above the margin",
    "undetermined": "on both sides of its edge",
}
"""Where the interval of a slope lies."""

REACHES = {"on site": "log_relative_gain", "all positions": "log_whole_relative_gain"}
STARTS = ("injection", "one block above")
LABELS = {
    "trained": ("verdict", "reason"),
    "twin": ("null_verdict", "null_reason"),
    "difference": ("difference", "difference_reason"),
}
"""The subjects, and the names of their labels and of the reasons for there being none."""

Curves = Mapping[str, Float[np.ndarray, "prompt layer"]]
"""ln Gamma by reach."""


def internal_verdict(
    result: xr.Dataset, *, null: xr.Dataset | None = None, clusters: Labels | None = None
) -> xr.Dataset:
    """Whether a disturbance inside the model dies away or grows relative to the stream it sits in, and what of that training has made.

    Four numbers, each of the model, of its random twin and of their difference paired by prompt: the slope of ln Gamma against depth, by
    least squares for each prompt, from the injection on and from one block above it; ln Gamma at the output; and its growth over each
    block. Each on site and over all positions. The first block is apart, since a token's embedding is small beside what it writes.

    A label rests on the slopes from one block above. `piano string`: the 95 % interval over prompts lies below minus the margin; `pile`:
    above the margin; `near-critical`: the 90 % interval lies within the margin (two one-sided tests at 5 %, Schuirmann 1987); and on site
    and over all positions must agree. Otherwise, and with fewer than 3 prompts, `undetermined`, with the reason. Intervals are those of
    `analyses.intervals.careful_interval`. Random twins are piano strings too: the difference is what was learned.

    Args:
        result: of `analyses.cascade.gain`, with several prompts.
        null: the same of `random_twin`, on the same prompts.
        clusters: what each prompt was made from, as in `analyses.cascade.driven`: prompts of one cluster count as one, their mean.

    Returns:
        A Dataset with the provenance of the gain, over `subject` (trained; with a null also twin and difference), `reach` (on site, all
        positions) and `start` (injection, one block above): `slope` (subject, reach, start, prompt), `slope_mean`, `slope_interval`
        (bound, ...), nats per layer, NaN above a single block; `output` (subject, reach, prompt), ln Gamma at the output, with mean and
        interval, nats; `growth` (subject, reach, block), its mean growth over each block, and `growth_interval`. `margin`, nats per layer;
        `prompts` and `clusters`, how many; `verdict` and `reason`, which is empty where there is a label; with a null `null_verdict`,
        `null_reason`, and `difference` (one of `DIFFERENCES`) with `difference_reason`.

    Raises:
        ResultError: no result of `gain`, none over at least one layer, or a null of other prompts or layers.
        InterpError: clusters that are not as many as prompts.
    """
    curves = {"trained": _curves(result)}
    if null is not None:
        curves["twin"] = _curves(null)
        if null.attrs["prompts"] != result.attrs["prompts"] or not np.array_equal(null["layer"], result["layer"]):
            raise ResultError("internal_verdict: the null is of other prompts or layers; measure both alike.")
        curves["difference"] = {reach: own - curves["twin"][reach] for reach, own in curves["trained"].items()}
    layers = result["layer"].to_numpy()
    margin = MARGIN / (len(layers) - 1)
    every = np.stack([[one[reach] for reach in REACHES] for one in curves.values()])  # [subject, reach, prompt, layer]
    _check_finite(every, curves, layers)
    slope = np.stack([_slopes(every[..., first:], layers[first:]) for first in (0, 1)], axis=2)
    prompts = every.shape[2]
    units = units_for(clusters, prompts, "internal_verdict")
    slopes, output, growth = (  # [unit, subject, reach, ...]
        by_unit(np.moveaxis(one, axis, 0), units)
        for one, axis in ((slope, -1), (every[..., -1], -1), (np.diff(every, axis=-1), 2))
    )
    there, per_layer = ("subject", "reach", "start"), "nats per layer"
    variables: dict[str, Any] = {
        "slope": ((*there, "prompt"), slope, _said("slope of ln Gamma", per_layer)),
        "slope_mean": (
            there,
            slopes.mean(0),
            _said("mean over prompts, or clusters, of the slope of ln Gamma", per_layer),
        ),
        "slope_interval": (
            ("bound", *there),
            careful_interval(slopes),
            _said("95 % interval over prompts, or clusters", per_layer),
        ),
        "output": (("subject", "reach", "prompt"), every[..., -1], _said("ln Gamma at the output", "nats")),
        "output_mean": (
            ("subject", "reach"),
            output.mean(0),
            _said("mean over prompts, or clusters, of ln Gamma at the output", "nats"),
        ),
        "output_interval": (
            ("bound", "subject", "reach"),
            careful_interval(output),
            _said("95 % interval over prompts, or clusters", "nats"),
        ),
        "growth": (
            ("subject", "reach", "block"),
            growth.mean(0),
            _said("mean growth of ln Gamma over the block", "nats"),
        ),
        "growth_interval": (
            ("bound", "subject", "reach", "block"),
            careful_interval(growth),
            _said("95 % interval over prompts, or clusters", "nats"),
        ),
        "margin": ((), margin, _said("slope that counts as none", per_layer)),
        "prompts": ((), prompts, _said("prompts", "1")),
        "clusters": ((), len(slopes), _said("clusters of prompts", "1")),
    }
    for number, subject in enumerate(curves):
        label, reason = agreed(dict(zip(REACHES, slopes[:, number, :, 1].T, strict=True)), margin)
        name, why = LABELS[subject]
        label = DIFFERENCES[label] if subject == "difference" else label
        variables |= {name: ((), label, _said("verdict", "1")), why: ((), reason, _said("why it is undetermined", "1"))}
    return xr.Dataset(
        variables,
        coords={
            "subject": list(curves),
            "reach": list(REACHES),
            "start": list(STARTS),
            "block": layers[:-1],
            "bound": ["lower", "upper"],
            "cluster": ("prompt", units),
        },
        attrs={**result.attrs, "kind": "internal_verdict"},
    )


def _check_finite(
    every: Float[np.ndarray, "subject reach prompt layer"], curves: Mapping[str, Any], layers: Int[np.ndarray, " layer"]
) -> None:
    """Raise ResultError where a gain is no number."""
    lacking = np.argwhere(~np.isfinite(every))
    if len(lacking):
        subject, reach, prompt, layer = lacking[0]
        raise ResultError(
            f"internal_verdict: ln Gamma {list(REACHES)[reach]} of prompt {prompt} at layer {layers[layer]} is no finite number "
            f"({list(curves)[subject]}), so it has no slope. Leave that prompt out, or measure its gain again."
        )


def agreed(slopes: Mapping[str, Float[np.ndarray, " prompt"]], margin: float) -> tuple[str, str]:
    """The verdict that the slopes of every reach give, or `undetermined` and why."""
    said = {reach: decide(own, margin) for reach, own in slopes.items()}
    if len(set(said.values())) == 1 and "undetermined" not in said.values():
        return next(iter(said.values())), ""
    count = len(next(iter(slopes.values())))
    if any(np.isnan(own).any() for own in slopes.values()):
        return "undetermined", "a single block leaves no slope above it"
    if count < FEWEST:
        return "undetermined", f"{count} of the {FEWEST} prompts or clusters that a verdict needs at least"
    return "undetermined", ", ".join(f"{reach} {AS_SLOPE[one]}" for reach, one in said.items())


def decide(slopes: Float[np.ndarray, " prompt"], margin: float) -> str:
    """The verdict on the mean of the slopes."""
    if len(slopes) < FEWEST or np.isnan(slopes).any():
        return "undetermined"
    low, high = careful_interval(slopes)
    if high < -margin:
        return "piano string"
    if low > margin:
        return "pile"
    low, high = careful_interval(slopes, 0.05)
    return "near-critical" if -margin < low and high < margin else "undetermined"


def _said(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units}


def _curves(result: xr.Dataset) -> Curves:
    if not is_result(result, "cascade_gain") or result.sizes["layer"] < 2:
        raise ResultError("internal_verdict: expected a result of analyses.cascade.gain over at least one layer.")
    return {reach: result[name].to_numpy() for reach, name in REACHES.items()}


def _slopes(
    curves: Float[np.ndarray, "subject reach prompt layer"], layers: np.ndarray
) -> Float[np.ndarray, "subject reach prompt"]:
    """By least squares; NaN with a single layer."""
    if len(layers) < 2:
        return np.full(curves.shape[:-1], np.nan)
    x = layers - layers.mean()
    slopes: np.ndarray = curves @ x / (x @ x)
    return slopes
