"""Edge attribution: gradients rank all edges at once, then the sweep says what the best ones really do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.answers import Tokens
from analyses.circuits.edges import INPUT, Edge, Source, edges
from analyses.circuits.edges import sources as every_source
from analyses.circuits.patching import edge_coords, pair_coords, patch_edges
from analyses.circuits.runs import Batch, Runs
from analyses.circuits.slopes import Slopes, products
from analyses.intervals import over_prompts
from analyses.patching.methodology import rank_correlation
from analyses.patching.metrics import Custom, metric_of
from analyses.results import Variable, make
from interp.config import ModelConfig
from interp.errors import InterpError, is_known, nearest
from interp.model import Transformer
from interp.modes import ordinary
from interp.names import block_name
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

WHO = "edge_attribution"
METHODS = ("eap", "eap_ig_inputs", "eap_ig_activations", "clean_corrupted")


@ordinary()
@takes_whole("steps", "verify", several=["layers"])
def edge_attribution(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    method: str = "eap_ig_inputs",
    steps: int = 5,
    verify: int = 20,
    sources: Sequence[str] | str | None = None,
    destinations: Sequence[str] | str | None = None,
    layers: Sequence[int] | None = None,
    direction: str = "noising",
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    reference: Prompt | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Estimate the effect of every edge from gradients, and patch the edges that come first in earnest.

    The estimate is the slope of the metric by what the edge's reader reads, before its norm, times what its source writes in the other run
    less what it writes in this one, summed over positions. `eap` takes the slope in the run that is patched (Syed et al. 2023,
    arXiv 2310.10348); `eap_ig_inputs` the mean slope over runs whose input goes from the other run's to this one's (Hanna et al. 2024,
    arXiv 2403.17806), which sees past a saturated softmax but may get the signs of small edges wrong; `eap_ig_activations` the mean over
    runs in which the input, or the heads of one layer, or one MLP, are set to something between; `clean_corrupted` the mean of the slopes
    in the two runs.

    Args:
        method: `eap`, `eap_ig_inputs`, `eap_ig_activations` or `clean_corrupted`.
        steps: runs of `eap_ig_inputs`, and of each part in `eap_ig_activations`. As in their code this run's share is k / steps, for inputs
            k = 0 to steps - 1, for activations 1 to steps.
        verify: how many edges to patch exactly, those with the largest estimates by size (mean over pairs); 0 is none.
        The others: as in `edge_patching`, but that the metric must have a gradient.

    Returns:
        A Dataset over `edge`, each with its `source` and `destination`. `estimate` (prompt, edge), the estimated change of the metric (a
        peer whose score is a change of the loss has the opposite sign); `change`, the exact one of the edges that were checked, NaN
        elsewhere, and `error`, estimate minus change. `rank_correlation`: Spearman's between their means over the edges that were checked
        (NaN for fewer than two). `clean_baseline`, `corrupt_baseline` (prompt). With several pairs also means, standard errors and
        intervals of `estimate` and `change`.

    Raises:
        InterpError: an unknown method, a metric without a gradient, a number of steps below 1, a negative `verify`, or as `edge_patching`.
        TokenError, ResultError, ConfigError: as `edge_patching`.
    """
    if not is_known(method, METHODS):
        raise InterpError(f"{WHO}: unknown method {method!r}. {nearest(method, METHODS)}")
    if steps < 1 or verify < 0:
        raise InterpError(f"{WHO}: steps must be 1 or more and verify 0 or more; got steps={steps}, verify={verify}.")
    read = given_position(position, WHO)
    chosen = metric_of(metric)
    found = edges(model.config, sources=sources, destinations=destinations, layers=layers, who=WHO)
    runs = Runs.of(
        model, clean, corrupt, every_source(model.config), answer=answer, wrong=wrong, metric=chosen, position=read,
        direction=direction, replacement=replacement, reference=reference, bos=bos, max_bytes=max_bytes, who=WHO,
    )  # fmt: skip
    with torch.no_grad(), progress_bar(progress):
        estimate = estimates(runs, found, ways(model.config, method, steps)).numpy()
        size = np.where(np.isfinite(estimate).all(0), np.abs(estimate.mean(0)), -1.0)
        best = sorted(np.argsort(-size, kind="stable")[: min(verify, int((size >= 0).sum()))].tolist())
        values, baselines = patch_edges(runs, [found[number] for number in best], False, progress)
    runs.run.check_finite([chosen], baselines[None])
    change = np.full(estimate.shape, np.nan, dtype=estimate.dtype)
    change[:, best] = (values - baselines[0 if runs.noising else 1][:, None]).numpy()
    both = np.stack([estimate[:, best].mean(0), change[:, best].mean(0)])
    each = {
        "estimate": (estimate, f"first-order estimate: change of the {chosen.long_name}"),
        "change": (change, f"exact, where checked: change of the {chosen.long_name}"),
    }
    variables: dict[str, Variable] = {
        n: (("prompt", "edge"), value, said, chosen.units) for n, (value, said) in each.items()
    }
    variables |= {
        "error": (("prompt", "edge"), estimate - change, "estimate minus exact change, where checked", chosen.units),
        "rank_correlation": (
            (),
            rank_correlation(both)[0, 1] if len(best) > 1 else np.nan,
            "Spearman correlation over the checked edges",
            "1",
        ),
    }
    if len(runs.run.pairs) > 1:
        for name, (value, said) in each.items():
            variables |= over_prompts(name, value, ("edge",), said, chosen.units)
    variables |= runs.baseline_variables(baselines)
    return make(
        "edge_attribution",
        variables,
        edge_coords(found) | pair_coords(runs, ("edge",)),
        model=model,
        prompts=runs.prompts,
        parameters={
            "method": method, "steps": steps, "verify": verify, "direction": direction, "replacement": replacement,
            "metric": chosen.name, "position": read, "sources": sources, "destinations": destinations, "layers": layers, "bos": bos,
        },
    )  # fmt: skip


@dataclass(frozen=True)
class Way:
    """A run in which slopes are taken: some sources write what they write in this run with a share of the way to the other added.

    Args:
        point: the hook point after which they have written, through which no slope goes further down, as what is written there is set;
            None is the input, as the stream that enters block 0.
    """

    sources: Sequence[Source]
    point: str | None
    share: float


def ways(config: ModelConfig, method: str, steps: int) -> list[Way]:
    """The runs in which a method takes slopes."""
    if method != "eap_ig_activations":
        of_inputs = {"eap": [0.0], "clean_corrupted": [0.0, 1.0]}
        return [Way([INPUT], None, share) for share in of_inputs.get(method, [1 - k / steps for k in range(steps)])]
    every = every_source(config)
    parts: list[tuple[list[Source], str | None]] = [([INPUT], None)]
    for layer in range(config.n_layers):
        of_layer = [source for source in every if source.layer == layer]
        heads = [source for source in of_layer if source.head is not None]
        parts.append((heads, block_name(layer, "hook_attn_out")))
        if mlp := of_layer[len(heads) :]:
            parts.append((mlp, block_name(layer, "hook_mlp_out")))
    return [Way(some, point, 1 - k / steps) for some, point in parts for k in range(1, steps + 1)]


def estimates(runs: Runs, found: Sequence[Edge], of: Sequence[Way]) -> Float[Tensor, "pair edge"]:
    """The estimated change of the metric by each edge, the mean of those from these runs."""
    model = runs.run.model
    dtype = torch.promote_types(model.dtype, torch.float32)
    total = torch.zeros(len(runs.run.pairs), len(found), dtype=dtype)
    with progress_bar(False) as bar:
        task = bar.add_task("slopes", total=len(runs.run.pairs) * len(of))
        for batch in runs.batches(share=GRAPH):
            for way in of:
                total[batch.pairs] += _estimates(runs, batch, found, way).cpu().to(dtype) / len(of)
                bar.advance(task, len(batch.tokens))
    return total


GRAPH = 8
"""How many times as much a run takes of which a gradient is wanted."""


def _estimates(runs: Runs, batch: Batch, found: Sequence[Edge], way: Way) -> Float[Tensor, "pair edge"]:
    model, stream = runs.run.model, None
    added: dict[str, Tensor] = {}
    if way.share or way.point is not None:
        more = way.share * torch.stack([runs.moved(batch, source) for source in way.sources]).sum(0)
        if way.point is None:
            stream = batch.own.by(INPUT) + more
        else:
            added[way.point] = more
    slopes = Slopes(model, batch.tokens, stream, added, batch.read_at, batch.readout, runs.metric, runs.run.who)
    estimate = torch.zeros(len(batch.tokens), len(found), dtype=torch.promote_types(model.dtype, torch.float32))
    estimate = estimate.to(batch.tokens.device)
    for moved in runs.all_moved(batch, found):
        into: dict[str, list[tuple[int, Edge]]] = {}
        for number, edge in enumerate(found):
            if edge.source.name in moved:
                into.setdefault(edge.destination.name, []).append((number, edge))
        stacked = torch.stack(list(moved.values()))
        place = {name: number for number, name in enumerate(moved)}
        for some in into.values():
            slope = slopes.by(some[0][1].destination)
            products_here = products(stacked[[place[edge.source.name] for _, edge in some]], slope)
            estimate[:, [number for number, _ in some]] = products_here.to(estimate.dtype)
    return estimate
