"""Every approximation beside the exact effects: how well it ranks the edges, and how faithful the circuits are that it finds."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from analyses.answers import Tokens
from analyses.circuits.attribution import edge_attribution
from analyses.circuits.curve import SHARES, faithfulness_curve
from analyses.circuits.estimates import METHODS, chosen_methods
from analyses.circuits.patching import edge_patching
from analyses.circuits.scores import edge_scores, scores_by_pair
from analyses.intervals import resampled
from analyses.patching.metrics import Custom, metric_of
from analyses.results import Variable, make
from interp.errors import InterpError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position
from interp.whole_numbers import takes_whole

WHO = "compare_methods"
EXACT, COUNTS = "exact", (10, 20, 50, 100, 200)
AGREEMENTS = ("rank_correlation", "rank_correlation_of_size", "correlation", "same_sign")


@takes_whole("steps", "random", "seed", "max_bytes", several=["counts"], least={"max_bytes": 1})
def compare_methods(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    methods: Sequence[str] | None = None,
    steps: int = 5,
    counts: Sequence[int] = COUNTS,
    shares: Sequence[float] = SHARES,
    random: int = 3,
    seed: int = 0,
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    reference: Prompt | None = None,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    keep: Path | str | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Patch every edge exactly, estimate it by each method, and say how far they agree: the ground truth in one call, on any model.

    Args:
        methods: of `edge_attribution`; None is all that the model can have. steps: of those that take steps.
        counts: how many edges that come first, by size, are compared; of the usual ones those that the model has so many of.
        shares, random, seed: of the curves, see `faithfulness_curve`.
        keep: a folder for the finished parts of the exact effects, see `edge_patching`.
        The others: as in `edge_patching`, in the direction of noising.

    Returns:
        A Dataset over `estimator`, `exact` first. Over pairs' means: `score` (estimator, edge), how much each edge helps the answer; and
        between each method and the exact effects `rank_correlation`, Spearman's over all edges, of the signed scores;
        `rank_correlation_of_size`; `correlation`, Pearson's; `same_sign`, the share of edges; `overlap` (estimator, count), the share of
        the first edges that are among the first exactly; each with a 95 % bootstrap interval over pairs. And what `faithfulness_curve`
        gives for them, on these pairs.

    Raises:
        InterpError: a count below 1 or above the number of edges, no methods, or as `edge_patching`, `edge_attribution` and
        `faithfulness_curve`.
    """
    asked: dict[str, Any] = {
        "answer": answer, "wrong": wrong, "replacement": replacement, "metric": metric, "position": position, "reference": reference,
        "bos": bos, "max_bytes": max_bytes, "progress": progress,
    }  # fmt: skip
    if methods is None:
        methods = [one for one in METHODS if one != "atp_star" or model.config.qk_norm != "whole"]
    listed = chosen_methods(methods, model.config, WHO)
    estimated = edge_attribution(model, clean, corrupt, **asked, method=listed, steps=steps, verify=0)
    edges = estimated.sizes["edge"]
    usual = tuple(counts) == COUNTS
    numbers = [count for count in counts if count <= edges or not usual]
    if not numbers or not 1 <= min(numbers) <= max(numbers) <= edges:
        raise InterpError(f"{WHO}: counts must be 1 to {edges}, the number of edges; got {list(counts)}.")
    exact = edge_patching(model, clean, corrupt, **asked, smallest_gap=0.0, keep=keep)
    names = [EXACT, *listed]
    scores = {EXACT: edge_scores(exact)} | {one: edge_scores(estimated, method=one) for one in listed}
    curves = faithfulness_curve(
        model,
        clean,
        corrupt,
        **asked,
        scores=scores,
        shares=shares,
        random=random,
        seed=seed,
        smallest_gap=smallest_gap,
    )
    whole = np.stack(
        [scores_by_pair(exact, None, WHO), *(scores_by_pair(estimated, one, WHO) for one in listed)], axis=1
    )
    measured = partial(_agreement, counts=numbers)
    found, bounds = measured(whole), resampled(whole, measured)
    units = exact["change"].attrs["units"]
    variables: dict[str, Variable] = {
        "score": (("estimator", "edge"), whole.mean(0), "mean over pairs: how much the edge helps the answer", units)
    }
    said = {
        "rank_correlation": "Spearman correlation with the exact effects, over edges",
        "rank_correlation_of_size": "Spearman correlation of sizes with those of the exact effects",
        "correlation": "Pearson correlation with the exact effects",
        "same_sign": "share of edges with the sign of their exact effect",
    }
    for number, name in enumerate(AGREEMENTS):
        variables[name] = (("estimator",), found[:, number], said[name], "1")
        variables[f"{name}_interval"] = (
            ("bound", "estimator"),
            bounds[:, :, number],
            f"95 % interval over pairs: {said[name]}",
            "1",
        )
    most = "share of the first edges by size that are among the first exactly"
    variables["overlap"] = (("estimator", "count"), found[:, len(AGREEMENTS) :], most, "1")
    variables["overlap_interval"] = (
        ("bound", "estimator", "count"),
        bounds[:, :, len(AGREEMENTS) :],
        f"95 % interval over pairs: {most}",
        "1",
    )
    for key, one in curves.data_vars.items():
        variables[str(key)] = (tuple(map(str, one.dims)), one.to_numpy(), one.attrs["long_name"], one.attrs["units"])
    coords: dict[Any, Any] = dict(curves.coords.items())
    coords |= {"estimator": names, "count": numbers} | {name: exact[name] for name in ("edge", "source", "destination")}
    tokens = {"clean": model.to_tokens(clean, bos=bos), "corrupt": model.to_tokens(corrupt, bos=bos)}
    return make(
        "circuit_methods",
        variables,
        coords,
        model=model,
        prompts=tokens,
        parameters={
            "steps": steps, "replacement": replacement, "metric": metric_of(metric).name,
            "position": position, "random": random, "bos": bos,
        },
        seed=seed,
    )  # fmt: skip


def _agreement(
    whole: Float[np.ndarray, "prompt estimator edge"], counts: Sequence[int]
) -> Float[np.ndarray, "estimator many"]:
    """Each method with the first one: `AGREEMENTS`, then the overlap at each count."""
    mean = whole.mean(0)
    sizes = np.abs(mean)
    place = np.empty(mean.shape, dtype=int)  # of each edge, from the largest on
    np.put_along_axis(place, np.argsort(-sizes, axis=1, kind="stable"), np.arange(mean.shape[1])[None], axis=1)
    columns = [
        _correlations(stats.rankdata(mean, axis=1)),
        _correlations(stats.rankdata(sizes, axis=1)),
        _correlations(mean),
        (np.sign(mean) == np.sign(mean[0])).mean(1),
    ]
    columns += [((place < count) & (place[0] < count)).sum(1) / count for count in counts]
    return np.stack(columns, axis=1)


def _correlations(values: Float[np.ndarray, "estimator edge"]) -> Float[np.ndarray, " estimator"]:
    """Pearson's, of each with the first; NaN where one of them does not vary."""
    centred = values - values.mean(1, keepdims=True)
    sizes = np.sqrt((centred**2).sum(1))
    varies = np.ptp(values, axis=1) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (centred @ centred[0]) / (sizes * sizes[0])
    return np.where(varies & varies[0], found.clip(-1, 1), np.nan)
