"""Attribution patching: a gradient ranks all cells at once, then the sweep says what the best ones really do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.answers import Tokens
from analyses.from_end import FROM_END, side_by_side
from analyses.intervals import over_prompts
from analyses.patching.experiment import Experiment, Method
from analyses.patching.grid import check_gap, coordinates, left_out, left_out_variable, normalised
from analyses.patching.methodology import rank_correlation
from analyses.patching.metrics import Custom, Metric, metric_of
from analyses.patching.replacements import check_used, values_of
from analyses.patching.sites import Site
from analyses.results import Variable, make
from interp.errors import InterpError
from interp.model import Transformer
from interp.modes import ordinary, recording
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.interventions import Add, Change, Patch
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

WHO = "attribution_patching"


@ordinary()
@takes_whole("verify", several=["layers"])
def attribution_patching(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    site: str = "z",
    verify: int = 20,
    direction: str | None = None,
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    by_position: bool | None = None,
    layers: Sequence[int] | None = None,
    reference: Prompt | None = None,
    vector: Float[Tensor, " d_model"] | None = None,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Estimate the effect of every cell of a patching grid from one gradient, and check the largest exactly.

    The estimate is the first order of a Taylor series around the run that is patched: the gradient of the metric there, times
    the change of the value (Nanda 2023, "Attribution patching"; Syed et al. 2023, arXiv 2310.10348). It costs two forward passes and
    one backward pass for all cells together. It fails where the model is far from linear between the two runs: at the early
    stream, through a layer norm, a saturated softmax, or an activation that switches. So the best cells are patched in earnest.

    Args:
        verify: how many cells to patch exactly, those whose estimated change of the metric, mean over pairs, is largest; 0 is none.
        The others: as in `activation_patching`; the metric must have a gradient, which a rank has not. There is no window of
            layers: a value put in above cuts off what one put in below would have done there, so that their slopes do not add.

    Returns:
        A Dataset. `estimate` (prompt, layer, ...), the estimated effect, on the scale of `activation_patching`; `effect`, the exact one
        of the cells that were checked, NaN elsewhere; `error`, estimate minus effect. `rank_correlation`: Spearman's between the mean
        estimate and the mean effect of the checked cells (NaN for fewer than two). `clean_baseline`, `corrupt_baseline` and `left_out`
        (prompt). With several pairs also means, standard errors and intervals of `estimate` and `effect`, as in `activation_patching`:
        over prompts of unequal length by `position_from_end`, and the cells that are checked are those of each pair at that place.

    Raises:
        InterpError: a metric without a gradient, a negative `verify`, or as `activation_patching`.
    """
    if verify < 0:
        raise InterpError(f"{WHO}: verify is the number of cells to check, 0 or more; got {verify}.")
    check_gap(smallest_gap, WHO)
    read = given_position(position, WHO)
    method = Method.of(
        model,
        site,
        direction=direction,
        replacement=replacement,
        by_position=by_position,
        layers=layers,
        vector=vector,
        who=WHO,
    )
    chosen = metric_of(metric)
    run = Experiment.of(
        model,
        clean,
        corrupt,
        answer=answer,
        wrong=wrong,
        metrics=[chosen],
        position=read,
        bos=bos,
        align=None,
        max_bytes=max_bytes,
        who=WHO,
    )
    check_used(reference, replacement, WHO)
    reference_tokens = None if reference is None else model.to_tokens(reference, bos=bos)
    change = estimates(run, method, chosen, run.averages(method, reference_tokens))
    dims, lengths = method.site.dims, run.lengths(method)
    at, together = side_by_side(change.numpy(), dims, lengths)
    mean = together.mean(axis=0)
    best = _largest(mean, verify)
    places = [np.unravel_index(cell, mean.shape) for cell in best]
    only = {(pair, *_place(place, at, mean.shape, length)) for place in places for pair, length in enumerate(lengths)}
    values, baselines = run.patch(method, [chosen], reference_tokens, "verifying" if progress else None, only)
    effect = normalised(values[0], baselines[0], chosen, smallest_gap, WHO)
    start = baselines[0][0 if method.noising else 1].reshape(-1, *[1] * (change.ndim - 1))
    estimate = normalised(start + change, baselines[0], chosen, smallest_gap, WHO)
    share = f"share of the way from the corrupt to the clean {chosen.long_name}"
    each = {
        "estimate": (estimate, f"first-order estimate: {share}"),
        "effect": (effect, f"exact, where checked: {share}"),
    }
    averaged: dict[str, Variable] = {}
    for name, (value, long_name) in each.items():
        kept = ~left_out(baselines[0]).numpy()
        averaged |= over_prompts(name, value.numpy(), dims, long_name, "1", kept=kept, lengths=lengths)
    both = np.stack([averaged[f"{name}_mean"][1].ravel()[best] for name in each])
    agreement = rank_correlation(both)[0, 1] if len(best) > 1 else np.nan
    variables: dict[str, Variable] = {
        **{name: (("prompt", *dims), value, long_name, "1") for name, (value, long_name) in each.items()},
        "error": (("prompt", *dims), estimate - effect, "estimate minus exact effect, where checked", "1"),
        "rank_correlation": ((), agreement, "Spearman correlation over the checked cells", "1"),
        "left_out": left_out_variable(baselines[0]),
        **(averaged if len(run.pairs) > 1 else {}),
    }
    for role, found in zip(("clean", "corrupt"), baselines[0], strict=True):
        variables[f"{role}_baseline"] = (("prompt",), found, f"{chosen.long_name} of the {role} run", chosen.units)
    return make(
        "attribution_patching",
        variables,
        coordinates(run, method),
        model=model,
        prompts={"clean": run.pairs.clean, "corrupt": run.pairs.corrupt},
        parameters={**method.parameters(), "metric": chosen.name, "position": read, "verify": verify, "bos": bos},
    )


def estimates(
    run: Experiment, method: Method, metric: Metric, averages: dict[str, Tensor] | None
) -> Float[Tensor, "pair ..."]:
    """The estimated change of the metric by each cell of each pair; NaN where a pair has no such cell."""
    site = method.site
    names = site.all_hooks()
    found = torch.full(
        (len(run.pairs), *run.sizes(method)), torch.nan, dtype=torch.promote_types(run.model.dtype, torch.float32)
    )
    for pairs in run.batches(names):
        batch = run.prepare(method, [metric], pairs)
        with recording(WHO):
            values, normed = values_of(run.model, *batch.base, names, batch.read_at, with_gradients=True)
            total = batch.readout.read(run.model, normed, torch.arange(len(normed), device=normed.device)).sum()
        if not total.requires_grad:
            raise InterpError(f"{WHO}: the metric {metric.name} has no gradient; choose another.")
        gradients = torch.autograd.grad(total, list(values.values()), allow_unused=True, materialize_grads=True)
        slope = dict(zip(values, gradients, strict=True))
        for row, changes in enumerate(run.changes(method, batch, averages)):
            positions = run.into(method, pairs.start + row)
            parts = {
                name: _products(change, values[name][row].detach(), slope[name][row], site)
                for name, change in changes.items()
            }
            for place, where in site.cells(positions):
                inner = 0 if where.inner is None else where.inner
                (name,) = site.hooks(where.layer)
                found[(pairs.start + row, *place)] = parts[name][inner, where.positions].sum()
    return found


def _products(change: Change, value: Tensor, slope: Tensor, site: Site) -> Float[Tensor, "inner position"]:
    """Gradient times change of one pair's value at one hook point, summed over what a cell changes together."""
    if isinstance(change, Add):
        return (change.values * slope).sum(-1)[None]
    assert isinstance(change, Patch)
    source = change.source
    if site.name == "pattern":
        length = source.shape[-1]
        return ((source - value[:, :length, :length]) * slope[:, :length, :length]).sum(-1)
    product = (source - value[: len(source)]) * slope[: len(source)]
    if site.inner_dim == "neuron":
        return product.mT
    return product.sum(-1).mT if site.inner_dim else product.sum(-1)[None]


def _largest(mean: Float[np.ndarray, "..."], count: int) -> list[int]:
    """The cells of the largest means by size, where there is one, as places in the flat grid; at most so many."""
    size = np.where(np.isfinite(mean), np.abs(mean), -1.0).ravel()
    order = np.argsort(-size, kind="stable")
    return [int(cell) for cell in order[: min(count, int((size >= 0).sum()))]]


def _place(place: Sequence[Any], dims: tuple[str, ...], shape: tuple[int, ...], length: int) -> tuple[int, ...]:
    """Where a cell of the mean stands in the grid of a prompt of that length."""
    shift = [length - size if dim == FROM_END else 0 for dim, size in zip(dims, shape, strict=True)]
    return tuple(int(at) + by for at, by in zip(place, shift, strict=True))
