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
from analyses.circuits.estimates import METHODS
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
EXACT = "exact"
AGREEMENTS = ("rank_correlation", "rank_correlation_of_size", "correlation", "same_sign")


@takes_whole("steps", "random", "seed", "max_bytes", several=["counts"], least={"max_bytes": 1})
def compare_methods(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    methods: Sequence[str] = METHODS,
    steps: int = 5,
    counts: Sequence[int] = (10, 20, 50, 100, 200),
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
        methods: of `edge_attribution`; steps: of those that take steps.
        counts: how many edges that come first, by size, are compared.
        shares, random, seed: of the curves, see `faithfulness_curve`.
        keep: a folder for the finished parts of the exact effects, see `edge_patching`.
        The others: as in `edge_patching`, in the direction of noising.

    Returns:
        A Dataset over `estimator`, `exact` first. Over pairs' means: `score` (estimator, edge), how much each edge helps the answer; and between
        each method and the exact effects `rank_correlation`, Spearman's over all edges, of the signed scores; `rank_correlation_of_size`;
        `correlation`, Pearson's; `same_sign`, the share of edges; `overlap` (estimator, count), the share of the first edges that are among
        the first exactly; each with a 95 % bootstrap interval over pairs. And what `faithfulness_curve` gives for them, on these pairs.

    Raises:
        InterpError: a count below 1 or above the number of edges, no methods, or as `edge_patching`, `edge_attribution` and
        `faithfulness_curve`.
    """
    asked: dict[str, Any] = {
        "answer": answer, "wrong": wrong, "replacement": replacement, "metric": metric, "position": position, "reference": reference,
        "bos": bos, "max_bytes": max_bytes, "progress": progress,
    }  # fmt: skip
    listed = [methods] if isinstance(methods, str) else list(methods)
    if not listed:
        raise InterpError(f"{WHO}: give at least one method.")
    estimated = edge_attribution(model, clean, corrupt, **asked, method=listed, steps=steps, verify=0)
    edges = estimated.sizes["edge"]
    numbers = [count for count in counts if count <= edges]
    if not numbers or min(numbers) < 1:
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
    for name, one in curves.data_vars.items():
        variables[str(name)] = (tuple(map(str, one.dims)), one.to_numpy(), one.attrs["long_name"], one.attrs["units"])
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
    exact, sizes = mean[0], np.abs(mean)
    ranks, size_ranks = stats.rankdata(mean, axis=1), stats.rankdata(sizes, axis=1)
    orders = np.argsort(-sizes, axis=1, kind="stable")
    rows = []
    for number, scores in enumerate(mean):
        row = [
            _correlation(ranks[number], ranks[0]),
            _correlation(size_ranks[number], size_ranks[0]),
            _correlation(scores, exact),
            float((np.sign(scores) == np.sign(exact)).mean()),
        ]
        row += [len(np.intersect1d(orders[number][:count], orders[0][:count])) / count for count in counts]
        rows.append(row)
    return np.array(rows)


def _correlation(a: Float[np.ndarray, " edge"], b: Float[np.ndarray, " edge"]) -> float:
    """Pearson's; NaN where one of them does not vary."""
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else np.nan
