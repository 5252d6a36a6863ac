"""The cascade inside and the cascade outside, side by side."""

import json

import numpy as np
import xarray as xr
from scipy import stats

from analyses.intervals import resampled
from analyses.results import is_result
from interp.errors import ResultError


def joined_verdict(
    internal: xr.Dataset, external: xr.Dataset, *, gain: xr.Dataset | None = None, coupled: xr.Dataset | None = None
) -> xr.Dataset:
    """Both verdicts, whether they agree, and how the growth inside goes with what happens outside, prompt by prompt.

    The two need not agree: a disturbance may shrink on its way up and still tip a close decision between two tokens, and it may grow
    where no decision is close.

    Args:
        internal, external: of `internal_verdict` and `external_verdict`, of one model.
        gain, coupled: what they were made of, with the same prompts: then the rank correlation (Spearman) over prompts of ln Gamma at
            the output with the mean of h over the steps.

    Returns:
        A Dataset with the provenance of the external verdict: `inside`, `outside`, `agree`; with gain and coupled also
        `log_relative_gain` (prompt), `mean_h` (prompt), `rank_correlation` and its bootstrap interval over prompts (bound).

    Raises:
        ResultError: results of other kinds, of different models, or of different prompts.
    """
    for result, kind in (
        (internal, "internal_verdict"),
        (external, "external_verdict"),
        (gain, "cascade_gain"),
        (coupled, "cascade_coupled"),
    ):
        given = result is not None or kind.endswith("verdict")
        if given and not is_result(result, kind):
            found = getattr(result, "attrs", {}).get("kind", type(result).__name__)
            raise ResultError(f"joined_verdict: expected a result of kind {kind}, got {found!r}.")
    if internal.attrs["weight_hash"] != external.attrs["weight_hash"]:
        raise ResultError("joined_verdict: the two verdicts are of different weights.")
    inside, outside = str(internal["verdict"].item()), str(external["verdict"].item())
    said = {"long_name": "verdict", "units": "1"}
    data = xr.Dataset(
        {
            "inside": ((), inside, said),
            "outside": ((), outside, said),
            "agree": (
                (),
                inside == outside != "undetermined",
                {"long_name": "whether both are determined and the same", "units": "1"},
            ),
        },
        coords={"bound": ["lower", "upper"]},
        attrs={**external.attrs, "kind": "joined_verdict"},
    )
    if gain is None or coupled is None:
        return data
    if json.loads(gain.attrs["prompts"])["prompt"] != json.loads(coupled.attrs["prompts"])["clean"]:
        raise ResultError("joined_verdict: the gain and the coupled texts are of different prompts.")
    pairs = np.stack(
        [gain["log_relative_gain"].to_numpy()[:, -1], coupled["h"].mean(("seed", "time")).to_numpy()], axis=1
    )
    data["log_relative_gain"] = ("prompt", pairs[:, 0], {"long_name": "ln Gamma at the output", "units": "nats"})
    data["mean_h"] = ("prompt", pairs[:, 1], {"long_name": "mean probability that the draws differ", "units": "1"})
    data["rank_correlation"] = ((), _spearman(pairs), {"long_name": "rank correlation over prompts", "units": "1"})
    data["rank_correlation_interval"] = (
        "bound",
        resampled(pairs, _spearman),
        {"long_name": "95 % interval over prompts", "units": "1"},
    )
    return data


def _spearman(pairs: np.ndarray) -> float:
    """NaN where one of the two does not vary."""
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return float("nan")
    return float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
