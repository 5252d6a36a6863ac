"""The same grid patched by several methods: which findings hold whatever the method, and which come with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from analyses.answers import Tokens
from analyses.intervals import over_prompts
from analyses.patching.experiment import Experiment, Method
from analyses.patching.grid import check_gap, coordinates, left_out, left_out_variable, normalised
from analyses.patching.metrics import Metric, metric_of
from analyses.results import Variable, make
from interp.errors import InterpError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

WHO = "compare_patching"
METHODS = (
    ("denoising", "resample", "logit_difference"),
    ("noising", "resample", "logit_difference"),
    ("noising", "zero", "logit_difference"),
    ("noising", "mean", "logit_difference"),
    ("denoising", "resample", "probability"),
    ("noising", "resample", "probability"),
)
"""(direction, replacement, metric): what published studies have chosen between."""


@takes_whole("window", several=["layers"])
def compare_patching(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    site: str = "z",
    methods: Sequence[tuple[str, str, str]] = METHODS,
    position: Position = -1,
    by_position: bool | None = None,
    layers: Sequence[int] | None = None,
    window: int = 1,
    reference: Prompt | None = None,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Patch one grid under several choices of direction, replacement and metric, and say how far their rankings agree.

    Circuits found by patching change with these choices (Zhang and Nanda 2023, arXiv 2309.16042; Miller et al. 2024, arXiv
    2407.08734). A grid is run once for each direction and replacement; its metrics are read in the same runs.

    Args:
        methods: (direction, replacement, metric) by name, see `activation_patching`; at least two, each once.
        The others: as in `activation_patching`; `clean` and `corrupt` are of equal token length.

    Returns:
        A Dataset. `moved` (variant, prompt, ...): how far a patch moves the metric from that of the run that is patched (0) to that
        of the other run (1), so that denoising and noising are read alike. `clean_baseline`, `corrupt_baseline` and `left_out`
        (variant, prompt). `rank_correlation` (variant, other_variant): Spearman's, between the means over pairs of all cells that every
        pair has. With several pairs also `moved_mean`, `moved_standard_error` and `moved_interval`, see `activation_patching`.

    Raises:
        InterpError: fewer than two methods, one of them twice, or as `activation_patching`.
    """
    check_gap(smallest_gap, WHO)
    read = given_position(position, WHO)
    named = [(str(direction), str(replacement), metric_of(metric)) for direction, replacement, metric in methods]
    labels = [f"{direction} · {replacement} · {metric.name}" for direction, replacement, metric in named]
    if len(set(labels)) < max(2, len(labels)):
        raise InterpError(f"{WHO}: need at least two methods, each once; got {', '.join(labels) or 'none'}.")
    grids: dict[tuple[str, str], list[Metric]] = {}
    for direction, replacement, metric in named:
        grids.setdefault((direction, replacement), []).append(metric)
    checked = {
        (direction, replacement): Method.of(
            model, site, direction=direction, replacement=replacement, by_position=by_position, layers=layers, window=window, who=WHO
        )
        for direction, replacement in grids
    }  # fmt: skip
    run = Experiment.of(
        model,
        clean,
        corrupt,
        answer=answer,
        wrong=wrong,
        metrics=[metric for _, _, metric in named],
        position=read,
        bos=bos,
        align=None,
        max_bytes=max_bytes,
        who=WHO,
    )
    reference_tokens = None if reference is None else model.to_tokens(reference, bos=bos)
    moved: dict[str, Tensor] = {}
    baselines: dict[str, Tensor] = {}
    for key, metrics in grids.items():
        method = checked[key]
        title = f"{key[0]}, {key[1]}" if progress else None
        values, found = run.patch(method, metrics, reference_tokens, title)
        for metric, value, baseline in zip(metrics, values, found, strict=True):
            label = f"{key[0]} · {key[1]} · {metric.name}"
            effect = normalised(value, baseline, metric, smallest_gap, WHO)
            moved[label], baselines[label] = (1 - effect if method.noising else effect), baseline
    method = next(iter(checked.values()))
    return _result(run, method, named, labels, [moved[x] for x in labels], [baselines[x] for x in labels], read)


def _result(
    run: Experiment,
    method: Method,
    named: Sequence[tuple[str, str, Metric]],
    labels: Sequence[str],
    moved: Sequence[Float[Tensor, "pair ..."]],
    baselines: Sequence[Float[Tensor, "two pair"]],
    read: int | list[int],
) -> xr.Dataset:
    dims, together, every = method.site.dims, torch.stack(list(moved)).numpy(), torch.stack(list(baselines))
    kept, lengths = ~left_out(every).numpy(), run.lengths(method)
    name = "how far a patch moves the metric from the patched run's (0) to the other run's (1)"
    each = [
        over_prompts("moved", grid, dims, name, "1", kept=pairs, lengths=lengths)
        for grid, pairs in zip(together, kept, strict=True)
    ]
    means = np.stack([one["moved_mean"][1].ravel() for one in each])
    ranks = rank_correlation(means[:, np.isfinite(means).all(0)])
    variables: dict[str, Variable] = {
        "moved": (("variant", "prompt", *dims), together, name, "1"),
        "rank_correlation": (("variant", "other_variant"), ranks, "Spearman correlation over cells", "1"),
        "left_out": left_out_variable(every, ("variant", "prompt")),
    }
    for number, role in enumerate(("clean", "corrupt")):
        found = every[:, number]
        variables[f"{role}_baseline"] = (("variant", "prompt"), found, f"metric of the {role} run", "as the metric")
    if len(run.pairs) > 1:
        for key, (at, _, long_name, units) in each[0].items():
            values = np.stack([one[key][1] for one in each])
            variables[key] = (("variant", *at), values, long_name, units)
    coords: dict[Any, Any] = coordinates(run, method) | {"variant": list(labels), "other_variant": list(labels)}
    for number, role in enumerate(("direction", "replacement")):
        coords[role] = (("variant",), [entry[number] for entry in named])
    coords["metric"] = (("variant",), [metric.name for _, _, metric in named])
    site = method.site
    return make(
        "patching_methodology",
        variables,
        coords,
        model=run.model,
        prompts={"clean": run.pairs.clean, "corrupt": run.pairs.corrupt},
        parameters={
            "site": site.name,
            "by_position": site.by_position,
            "window": site.window,
            "position": read,
        },
    )


def rank_correlation(rows: Float[np.ndarray, "row cell"]) -> Float[np.ndarray, "row row"]:
    """Spearman's rank correlation of each pair of rows; NaN with a row whose cells are all equal or that has none, which has no ranking."""
    if rows.shape[1] == 0:
        return np.full((len(rows), len(rows)), np.nan)
    ranks = stats.rankdata(rows, axis=1)
    constant = np.ptp(rows, axis=1) == 0
    found = np.full((len(rows), len(rows)), np.nan)
    found[np.ix_(~constant, ~constant)] = np.corrcoef(ranks[~constant]) if (~constant).any() else np.nan
    return found
