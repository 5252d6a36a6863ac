"""A patched grid as labelled arrays: its effects, normalised, and what its axes mean."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.from_end import end_coords
from analyses.intervals import over_prompts
from analyses.patching.experiment import Experiment, Method
from analyses.patching.metrics import Metric
from analyses.results import Variable, token_coords
from interp.errors import InterpError, ResultError


def check_gap(smallest_gap: Any, who: str) -> None:
    """Raise InterpError for a least difference of the baselines that is neither None nor a number of 0 or more: asked before any run."""
    known = isinstance(smallest_gap, Real) and not isinstance(smallest_gap, bool) and float(smallest_gap) >= 0
    if smallest_gap is not None and not known:
        raise InterpError(f"{who}: smallest_gap must be a number of 0 or more, or None, got {smallest_gap!r}.")


def normalised(
    values: Float[Tensor, "pair ..."],
    baselines: Float[Tensor, "two pair"],
    metric: Metric,
    smallest_gap: float | None,
    who: str,
) -> Float[Tensor, "pair ..."]:
    """Each pair's values on a scale of 0 at its corrupt baseline to 1 at its clean one; NaN for a pair whose baselines are equal.

    Raises ResultError where the baselines differ by less than `smallest_gap` (None: the metric's), or are not numbers.
    """
    clean, corrupt = baselines
    smallest = metric.smallest_gap if smallest_gap is None else smallest_gap
    for number in (~((clean - corrupt).abs() >= smallest)).nonzero().flatten().tolist():
        found = f"{clean[number]:.4f} and {corrupt[number]:.4f}{'' if metric.units == '1' else ' ' + metric.units}"
        raise ResultError(
            f"{who}: pair {number}: the {metric.long_name} of the clean and the corrupt run are nearly the same ({found}), so an "
            "effect between them means nothing. Use prompts, or an answer, on which the model differs, or set smallest_gap."
        )
    shape = (-1, *[1] * (values.ndim - 1))
    gap = (clean - corrupt).masked_fill(left_out(baselines), torch.nan)
    effect: Tensor = (values - corrupt.reshape(shape)) / gap.reshape(shape)
    return effect


def left_out(baselines: Float[Tensor, "*variant two pair"]) -> Bool[Tensor, "*variant pair"]:
    """The pairs whose baselines are equal: no effect lies between them, so no mean can hold one."""
    return baselines.select(-2, 0) == baselines.select(-2, 1)


def left_out_variable(baselines: Float[Tensor, "*variant two pair"], dims: tuple[str, ...] = ("prompt",)) -> Variable:
    """The same, as a result says it."""
    return dims, left_out(baselines).numpy(), "whether a pair has no effect, its runs being equal", "1"


def patched(
    run: Experiment,
    method: Method,
    metric: Metric,
    effect: Float[Tensor, "pair ..."],
    values: Float[Tensor, "pair ..."],
    baselines: Float[Tensor, "two pair"],
) -> dict[str, Variable]:
    """Effect and value of every cell, the baselines, and over several pairs the effect's mean, standard error and interval."""
    dims = method.site.dims
    share = f"share of the way from the corrupt to the clean {metric.long_name}"
    variables: dict[str, Variable] = {
        "effect": (("prompt", *dims), effect, share, "1"),
        "value": (("prompt", *dims), values, f"{metric.long_name} of the patched run", metric.units),
    }
    if len(effect) > 1:
        kept = ~left_out(baselines).numpy()
        variables |= over_prompts("effect", effect.numpy(), dims, share, "1", kept=kept, lengths=run.lengths(method))
    variables["left_out"] = left_out_variable(baselines)
    return variables | {
        f"{role}_baseline": (("prompt",), found, f"{metric.long_name} of the {role} run", metric.units)
        for role, found in zip(("clean", "corrupt"), baselines, strict=True)
    }


def coordinates(run: Experiment, method: Method) -> dict[Any, Any]:
    """The grid's layers, heads or neurons; the tokens of both prompts; the answers; and, where lengths differ, which
    position belongs to which."""
    site, pairs = method.site, run.pairs
    base, other = ("clean", "corrupt") if method.noising else ("corrupt", "clean")
    tokens = {"clean": pairs.clean, "corrupt": pairs.corrupt}
    coords: dict[Any, Any] = {"layer": list(site.layers), "position": np.arange(tokens[base].shape[1])}
    if site.inner_dim:
        coords[site.inner_dim] = np.arange(site.inner)
    if len(pairs) > 1:
        coords["bound"] = ["lower", "upper"]
        coords |= end_coords(site.dims, run.lengths(method))
    same = pairs.equal and tokens[base].shape == tokens[other].shape
    for role, dim in ((base, "position"), (other, "position" if same else f"{other}_position")):
        coords |= token_coords(run.model, tokens[role], dim, f"{role}_")
    if not pairs.equal:
        matched = np.full(tokens[base].shape, -1)
        for number, row in enumerate(pairs.matched):
            for clean, corrupt in row:
                at, there = (clean, corrupt) if method.noising else (corrupt, clean)
                matched[number, at] = there
        coords["matched_position"] = (("prompt", "position"), matched)
    ids = {"answer": run.answers} | ({} if run.wrongs is None else {"wrong": run.wrongs})
    return coords | {f"{role}_id": (("prompt",), values.cpu().numpy()) for role, values in ids.items()}
