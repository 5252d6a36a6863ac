"""Edge patching: what the answer loses when one part of the model reads another as it is in a different run."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from rich.progress import Progress, TaskID
from torch import Tensor

from analyses.answers import Tokens
from analyses.circuits.edges import Edge, edges
from analyses.circuits.runs import Batch, Runs
from analyses.from_end import end_coords
from analyses.intervals import over_prompts
from analyses.kept import Arrays, Kept, request_of
from analyses.patching.grid import check_gap, left_out, left_out_variable, normalised
from analyses.patching.metrics import Custom, metric_of
from analyses.results import Variable, make, token_coords
from interp.config import ModelConfig
from interp.errors import InterpError
from interp.hooks import check_unhooked
from interp.model import Transformer
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Add, Intervention, Row
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

WHO = "edge_patching"

MOST_ROWS = 20_000
"""Rows that are put together at once."""

LARGEST_PART = 2**41
"""Multiplications of a part of the work, which is what is lost where it is stopped: 20 seconds of two cores."""

NOTHING_KEPT = Kept(None, {})


@takes_whole(several=["layers"])
def edge_patching(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    sources: Sequence[str] | str | None = None,
    destinations: Sequence[str] | str | None = None,
    layers: Sequence[int] | None = None,
    direction: str = "noising",
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    by_position: bool = False,
    reference: Prompt | None = None,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    keep: Path | str | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Patch every edge of the model by itself, exactly, and read how far the answer moves.

    An edge (Wang et al. 2022, arXiv 2211.00593; Conmy et al. 2023, arXiv 2304.14997) is patched by changing what one reader reads, before
    its norm, by what the source writes in the other run less what it writes in this one. The reader's norm, the reader, and all that
    reads the reader are computed anew; whatever else reads the source gets it as it was. Gradients estimate this
    (Syed et al. 2023, arXiv 2310.10348); here nothing is estimated. An edge whose effect is small may still matter where others make up
    for it, or where its positions cancel each other: see `by_position`.

    Args:
        clean, corrupt: one prompt each, or as many; each pair of equal token length.
        answer, wrong: as in `activation_patching`.
        sources, destinations: names or globs (`input`, `a3.h1`, `a3.*`, `m2`; `a5.h2<q>`, `a5.*<k>`, `m5`, `logits`); None is all. A
            source or a destination that has no edge to what is chosen on the other side is left out.
        layers: of the destinations, the logits being in none; None is all and the logits.
        direction: `noising`, the corrupt run's value into the clean run, which is how circuits are looked for; or `denoising`.
        replacement: `resample`, the other run's value; `zero`; `mean`, over all positions of the reference prompts together, or
            `mean_by_position`, each position by itself.
        metric, position, smallest_gap, bos, progress: as in `activation_patching`.
        by_position: patch one position at a time, of the source and so of what is read; else all together.
        reference: prompts over which the means are taken; None is those of the run that values would come from.
        max_bytes: bound on the memory of the sweep.
        keep: a folder in which finished parts are kept, so that the same call goes on where it was stopped; None keeps nothing. It is
            made where it is not there, and left when all is done.

    Returns:
        A Dataset over `edge`, each named `a3.h1->a5.h2<q>` with its `source` and `destination`. `change` (prompt, edge) or (prompt, edge,
        position), the metric of the patched run less that of the run that is patched, and `effect`, the patched run on a scale of 0 at
        the corrupt baseline to 1 at the clean one, so that in noising an edge without any has 1. `clean_baseline`, `corrupt_baseline`
        and `left_out` (prompt), whether these are equal. With several pairs also means, standard errors and 95 % bootstrap intervals over
        pairs of both; by position, over prompts of unequal length, by `position_from_end`.

    Raises:
        TokenError, ResultError: as `activation_patching`.
        ConfigError: a post-norm model, which has no edges.
        InterpError: a source, destination, layer, direction, replacement or metric that cannot be; a folder that keeps parts of another
            request, or cannot keep any. With `keep` also a metric that is a function, which no name tells from another.
        HookError: with `keep`, hooks that are attached to the model.
    """
    check_gap(smallest_gap, WHO)
    if keep is not None:
        _check_keeps(keep, metric, model)
    read = given_position(position, WHO)
    chosen = metric_of(metric)
    found = edges(model.config, sources=sources, destinations=destinations, layers=layers, who=WHO)
    from_where = list(dict.fromkeys(edge.source for edge in found))
    runs = Runs.of(
        model, clean, corrupt, from_where, answer=answer, wrong=wrong, metric=chosen, position=read,
        direction=direction, replacement=replacement, reference=reference, bos=bos, max_bytes=max_bytes, who=WHO,
    )  # fmt: skip
    parameters = {
        "direction": direction, "replacement": replacement, "metric": chosen.name, "position": read,
        "by_position": by_position, "sources": sources, "destinations": destinations, "layers": layers, "bos": bos,
    }  # fmt: skip
    parts = NOTHING_KEPT if keep is None else Kept(Path(keep), _request(runs, found, parameters))
    with torch.no_grad():
        values, baselines = patch_edges(runs, found, by_position, progress, parts)
    runs.run.check_finite([chosen], baselines[None])
    dims = ("edge", "position") if by_position else ("edge",)
    return make(
        "edge_patching",
        effect_variables(runs, values, baselines, dims, smallest_gap),
        edge_coords(found) | pair_coords(runs, dims),
        model=model,
        prompts=runs.prompts,
        parameters=parameters,
    )


def _check_keeps(keep: Any, metric: Any, model: Transformer) -> None:
    """Raises InterpError or HookError where parts cannot be kept, or not known again."""
    if not isinstance(keep, (str, os.PathLike)):
        raise InterpError(f"{WHO}: keep is the folder for finished parts, or None; got {keep!r}.")
    if callable(metric):
        raise InterpError(
            f"{WHO}: what is kept would not say which function the metric is. Leave keep= away, or give a metric by name."
        )
    check_unhooked(model, WHO)


def _request(runs: Runs, found: Sequence[Edge], parameters: dict[str, Any]) -> dict[str, Any]:
    """All that the numbers depend on; how the edges were chosen does not matter."""
    run, chosen = runs.run, {"sources", "destinations", "layers", "bos"}
    asked = {name: value for name, value in parameters.items() if name not in chosen}
    asked |= {
        "edges": [edge.name for edge in found],
        "roles": list(runs.prompts),
        "answers": run.answers.tolist(),
        "wrongs": None if run.wrongs is None else run.wrongs.tolist(),
    }
    return request_of(run.model, list(runs.prompts.values()), asked, None)


def effect_variables(
    runs: Runs,
    values: Float[Tensor, "pair ..."],
    baselines: Float[Tensor, "two pair"],
    dims: tuple[str, ...],
    smallest_gap: float | None,
) -> dict[str, Variable]:
    """Change and effect of what was patched, over several pairs with their means and intervals; and the baselines.

    Args:
        values: the metric of each patched run, by pair and by `dims`.
    """
    metric = runs.metric
    start = baselines[0 if runs.noising else 1].reshape(-1, *[1] * (values.ndim - 1))
    each = {
        "change": (values - start, f"{metric.long_name} of the patched run less that of the run patched", metric.units),
        "effect": (
            normalised(values, baselines, metric, smallest_gap, runs.run.who),
            f"share of the way from the corrupt to the clean {metric.long_name}",
            "1",
        ),
    }
    variables: dict[str, Variable] = {n: (("prompt", *dims), value, *said) for n, (value, *said) in each.items()}  # type: ignore[misc]
    if len(runs.run.pairs) > 1:
        kept = {"change": None, "effect": ~left_out(baselines).numpy()}
        for name, (value, long_name, units) in each.items():
            variables |= over_prompts(
                name, value.numpy(), dims, long_name, units, kept=kept[name], lengths=runs.lengths
            )
    variables["left_out"] = left_out_variable(baselines)
    return variables | runs.baseline_variables(baselines)


def patch_edges(
    runs: Runs, found: Sequence[Edge], by_position: bool, progress: bool, kept: Kept = NOTHING_KEPT
) -> tuple[Float[Tensor, "pair edge *position"], Float[Tensor, "two pair"]]:
    """The metric of the run in which an edge is patched, for each; and of the clean and the corrupt run."""
    run, model = runs.run, runs.run.model
    dtype = torch.promote_types(model.dtype, torch.float32)
    sizes = (len(run.pairs), len(found), *([runs.width] if by_position else []))
    values, baselines = torch.full(sizes, torch.nan, dtype=dtype), torch.empty(2, len(run.pairs), dtype=dtype)
    ordered = _in_order(found)
    done = 0
    with progress_bar(progress) as bar:
        task = bar.add_task(
            "patching edges", total=sum(runs.lengths if by_position else [1] * len(run.pairs)) * len(found)
        )
        for batch in runs.batches():
            this, other = (0, 1) if runs.noising else (1, 0)
            baselines[other, batch.pairs] = batch.read(batch.other).cpu().to(dtype)
            baselines[this, batch.pairs] = (
                batch.read(batch.own).cpu().to(dtype)
            )  # the sweep's own, where there are rows
            each = sum(batch.lengths) if by_position else len(batch.lengths)
            for part in _parts(model.config, runs.width, each, [found[number] for number in ordered]):
                numbers = ordered[part.start : part.stop]
                compute = partial(
                    _patched,
                    runs,
                    batch,
                    [found[number] for number in numbers],
                    by_position,
                    bar,
                    task,
                )
                whole = kept.part(f"edges-{batch.pairs.start}-{batch.pairs.stop}-{part.start}-{part.stop}", compute)
                values[batch.pairs, numbers] = torch.from_numpy(whole["values"])
                baselines[this, batch.pairs] = torch.from_numpy(whole["baseline"])
                done += each * len(part)
                bar.update(task, completed=done)
    return values, baselines


def _in_order(found: Sequence[Edge]) -> list[int]:
    """The numbers of edges in the order in which what they run to reads, those into one destination together."""
    place = {
        destination: number for number, destination in enumerate(dict.fromkeys(edge.destination for edge in found))
    }
    return sorted(range(len(found)), key=lambda n: (found[n].destination.read, place[found[n].destination]))


def _parts(config: ModelConfig, width: int, each: int, ordered: Sequence[Edge]) -> Iterator[range]:
    """Edges, in their order, that are patched together: as many as take about a minute, or less; at least one.

    Args:
        each: rows of an edge.
    """
    attention = 2 * (config.n_heads + config.kv_heads) * config.d_head
    of_block = config.d_model * (attention + {"none": 0, "plain": 2, "gated": 3}[config.mlp] * config.d_mlp)
    first, work = 0, 0
    for number, edge in enumerate(ordered):
        layer = edge.destination.layer
        more = each * width * of_block * (1 if layer is None else config.n_layers - layer)
        if number > first and (work + more > LARGEST_PART or (number + 1 - first) * each > MOST_ROWS):
            yield range(first, number)
            first, work = number, 0
        work += more
    if ordered:
        yield range(first, len(ordered))


def _patched(runs: Runs, batch: Batch, part: Sequence[Edge], by_position: bool, bar: Progress, task: TaskID) -> Arrays:
    """The metric of a batch's runs [pair, edge, ...] with each edge of a part patched, and of those without."""
    run, model = runs.run, runs.run.model
    dtype = torch.promote_types(model.dtype, torch.float32)
    values = torch.full((len(batch.tokens), len(part), *([runs.width] if by_position else [])), torch.nan, dtype=dtype)
    baseline = torch.empty(0, dtype=dtype)
    for rows, places in _rows(runs, batch, part, by_position):
        bar.update(task, part=len(rows))
        swept = sweep(model, batch.tokens, rows, batch.readout, max_bytes=max(1, run.max_bytes // 2))
        index = tuple(torch.tensor(column) for column in zip(*places, strict=True))
        values[index] = swept.values[:, 0].cpu().to(dtype)
        baseline = swept.base[:, 0].cpu().to(dtype)
        bar.advance(task, len(rows))
    return {"values": values.numpy(), "baseline": baseline.numpy()}


Place = tuple[int, ...]


def _rows(runs: Runs, batch: Batch, part: Sequence[Edge], by_position: bool) -> Iterator[tuple[list[Row], list[Place]]]:
    """The rows of a batch of pairs, destination by destination, as many as are put together at once; and each one's place in the grid."""
    config, rows, places = runs.run.model.config, list[Row](), list[Place]()
    for some, moved in runs.all_moved(batch, part):
        of = dict(zip((source.name for source in some), moved, strict=True))
        for number, edge in enumerate(part):
            if edge.source.name not in of:
                continue
            name, heads = edge.destination.input_name(config), edge.destination.head
            for pair, length in enumerate(batch.lengths):
                added = of[edge.source.name][pair, :length]
                if not by_position:
                    rows.append(Row([Intervention(name, Add(added), heads=heads)], pair))
                    places.append((pair, number))
                    continue
                for at in range(length):
                    rows.append(Row([Intervention(name, Add(added[at]), at, heads=heads)], pair))
                    places.append((pair, number, at))
            if len(rows) >= MOST_ROWS:
                yield rows, places
                rows, places = [], []
        if rows:
            yield rows, places
            rows, places = [], []


def edge_coords(found: Sequence[Edge]) -> dict[Any, Any]:
    """The names of edges, and of what each runs from and to."""
    names = {
        "edge": [edge.name for edge in found],
        "source": [edge.source.name for edge in found],
        "destination": [edge.destination.name for edge in found],
    }
    return {name: ("edge", np.array(listed, dtype=object)) for name, listed in names.items()}


def pair_coords(runs: Runs, dims: tuple[str, ...]) -> dict[Any, Any]:
    """Positions with the tokens of both prompts, and the answers."""
    run = runs.run
    coords: dict[Any, Any] = {"position": np.arange(runs.width)}
    if len(run.pairs) > 1:
        coords |= {"bound": ["lower", "upper"]} | end_coords(dims, runs.lengths)
    for role, tokens in (("clean", run.pairs.clean), ("corrupt", run.pairs.corrupt)):
        coords |= token_coords(run.model, tokens, "position", f"{role}_")
    ids = {"answer": run.answers} | ({} if run.wrongs is None else {"wrong": run.wrongs})
    return coords | {f"{role}_id": (("prompt",), values.cpu().numpy()) for role, values in ids.items()}
