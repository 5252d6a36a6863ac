"""Path patching: what the answer loses when some readers get one part of the model as it is in a different run, all other heads held."""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.answers import Tokens
from analyses.circuits.edges import Edge, Source, edges
from analyses.circuits.held import Held, Reader
from analyses.circuits.patching import MOST_ROWS, effect_variables, pair_coords
from analyses.circuits.runs import Batch, Runs
from analyses.patching.grid import check_gap
from analyses.patching.metrics import Custom, metric_of
from analyses.results import make
from interp.errors import InterpError, is_known, nearest
from interp.model import Transformer
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Add, Intervention, Row, Set
from interp.sweep.readouts import Position, given_position, positions_of
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "path_patching"
NORMS = ("recompute", "freeze")


@takes_whole(several=["positions"])
def path_patching(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    senders: Sequence[str] | str | None = None,
    receivers: Sequence[str] | str = "logits",
    through_mlps: bool = True,
    norm: str = "recompute",
    positions: Sequence[int] | int | None = None,
    direction: str = "noising",
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    reference: Prompt | None = None,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Patch the paths from one sender at a time to some receivers that run through no other head, and read how far the answer moves.

    As in Wang et al. 2022 (arXiv 2211.00593, section 3 and appendix B): in a first run the sender writes what it writes in the other run,
    every other head writes what it did, and what each receiver would read is kept; in a second the receivers together read what was kept,
    and all else is computed anew. Goldowsky-Dill et al. 2023 (arXiv 2304.05969) patch single paths, in which no MLP stands: that is
    `through_mlps=False`, where one receiver gives the change of `edge_patching`.

    Args:
        clean, corrupt: one prompt each, or as many; each pair of equal token length.
        answer, wrong: as in `activation_patching`.
        senders: names or globs (`input`, `a3.h1`, `a3.*`, `m2`); None is all that write before some receiver reads.
        receivers: names or globs (`a5.h2<q>`, `a5.*<k>`, `m5`, `logits`). What a receiver reads is kept and put in as a whole, so that one
            beyond another sees nothing of that one's change; with the logits among them only what these read counts.
        through_mlps: compute the MLPs between sender and receivers anew, so that paths through them count, as in Wang et al.; or hold them
            like heads, so that only the direct path does.
        norm: `recompute` the norms on the path; or `freeze` them: those through which an MLP between and a receiver reads, the final norm
            too, and that on what such an MLP writes, keep the scale of the run that is patched.
        positions: at which the sender is patched, negative from the end; None is all.
        direction, replacement, metric, position, reference, smallest_gap, bos, max_bytes, progress: as in `edge_patching`.

    Returns:
        A Dataset over `source`, the senders, each with its `source_layer` and `source_head` (-1 where it has none). `change` and `effect`
        (prompt, source), `clean_baseline`, `corrupt_baseline` and `left_out` (prompt), and with several pairs means, standard errors and
        intervals, as in `edge_patching`.

    Raises:
        TokenError, ResultError: as `edge_patching`; and a position that a prompt does not have.
        ConfigError: a post-norm model, whose stream is no sum of what was written.
        InterpError: a sender, receiver, norm, direction, replacement or metric that cannot be, or no sender before any receiver.
    """
    check_gap(smallest_gap, WHO)
    if not isinstance(through_mlps, bool):
        raise InterpError(f"{WHO}: through_mlps is True or False, got {through_mlps!r}.")
    if not is_known(norm, NORMS):
        raise InterpError(f"{WHO}: unknown norm {norm!r}. {nearest(norm, NORMS)}")
    if positions is not None and not positions:
        raise InterpError(f"{WHO}: positions is empty; give one or more, or None for all of them.")
    read = given_position(position, WHO)
    chosen = metric_of(metric)
    into = [receivers] if receivers is None else receivers  # there is no receiver None
    found = edges(model.config, sources=senders, destinations=into, who=WHO, called=("sender", "receiver"))
    out_of = list(dict.fromkeys(edge.source for edge in found))
    runs = Runs.of(
        model, clean, corrupt, out_of, answer=answer, wrong=wrong, metric=chosen, position=read,
        direction=direction, replacement=replacement, reference=reference, bos=bos, max_bytes=max_bytes, who=WHO,
    )  # fmt: skip
    where = _patched(runs, cast(list[int] | None, positions))
    with torch.no_grad():
        values, baselines = patch_paths(runs, found, where, through_mlps, norm == "freeze", progress)
    runs.run.check_finite([chosen], baselines[None])
    return make(
        "path_patching",
        effect_variables(runs, values, baselines, ("source",), smallest_gap),
        {
            "source": np.array([source.name for source in out_of], dtype=object),
            "source_layer": ("source", [-1 if source.layer is None else source.layer for source in out_of]),
            "source_head": ("source", [-1 if source.head is None else source.head for source in out_of]),
        }
        | pair_coords(runs, ("source",)),
        model=model,
        prompts=runs.prompts,
        parameters={
            "senders": senders, "receivers": receivers, "through_mlps": through_mlps, "norm": norm, "positions": positions,
            "direction": direction, "replacement": replacement, "metric": chosen.name, "position": read, "bos": bos,
        },
    )  # fmt: skip


def _patched(runs: Runs, positions: Sequence[int] | None) -> Bool[Tensor, "pair position"]:
    """Where the senders are patched. Raises TokenError for a position that a prompt does not have."""
    where = torch.full((len(runs.run.pairs), runs.width), positions is None)
    for position in positions or []:
        at = positions_of(position, runs.lengths, f"{WHO}: positions")
        where[torch.arange(len(at)), at] = True
    return where


def patch_paths(
    runs: Runs,
    found: Sequence[Edge],
    where: Bool[Tensor, "pair position"],
    through_mlps: bool,
    freeze: bool,
    progress: bool,
) -> tuple[Float[Tensor, "pair sender"], Float[Tensor, "two pair"]]:
    """The metric of the run in which the paths from a sender are patched, for each; and of the clean and the corrupt run.

    Args:
        found: the edges from senders to receivers.
        where: the senders are patched.
    """
    run, model = runs.run, runs.run.model
    number = {source: place for place, source in enumerate(dict.fromkeys(edge.source for edge in found))}
    readers = Reader.all(model, list(dict.fromkeys(edge.destination for edge in found)), freeze)
    kept = {reader.read for reader in readers}
    share = 2 + len(kept) + -(-2 * sum(reader.width(model.config) for reader in readers) // model.config.d_model)
    dtype = torch.promote_types(model.dtype, torch.float32)
    values, baselines = (
        torch.empty(len(run.pairs), len(number), dtype=dtype),
        torch.empty(2, len(run.pairs), dtype=dtype),
    )
    with progress_bar(progress) as bar:
        task = bar.add_task("patching paths", total=values.numel())
        for batch in runs.batches(share=2):
            this, other = (0, 1) if runs.noising else (1, 0)
            baselines[other, batch.pairs] = batch.read(batch.other).cpu().to(dtype)
            held = Held(model, batch, readers, through_mlps, freeze, run.max_bytes // 8)
            here = where[batch.pairs].to(batch.tokens.device) & (batch.tokens != PAD)
            for senders, moved in runs.all_moved(batch, found, share):
                for rows, places in _rows(held, batch, readers, senders, moved, here):
                    bar.update(task, part=len(rows))
                    swept = sweep(model, batch.tokens, rows, batch.readout, max_bytes=max(1, run.max_bytes // 2))
                    pairs, numbers = ([place[side] for place in places] for side in (0, 1))
                    values[torch.tensor(pairs) + batch.pairs.start, [number[senders[n]] for n in numbers]] = (
                        swept.values[:, 0].cpu().to(dtype)
                    )
                    baselines[this, batch.pairs] = swept.base[:, 0].cpu().to(dtype)
                    bar.advance(task, len(rows))
    return values, baselines


def _rows(
    held: Held,
    batch: Batch,
    readers: Sequence[Reader],
    senders: Sequence[Source],
    moved: Float[Tensor, "sender pair position d_model"],
    where: Bool[Tensor, "pair position"],
) -> Iterator[tuple[list[Row], list[tuple[int, int]]]]:
    """The second run of each pair under each sender, as many as are put together at once; and each one's pair and sender."""
    places = where & (moved != 0).any(-1).any(0)
    moved = moved[:, places]
    reaching = held.reaching(moved, senders, places)
    seen = [held.seen(reader, reaching[reader.read], places) for reader in readers]
    differs = (moved != 0).any(-1)
    counts = places.sum(1).tolist()
    starts = np.cumsum([0, *counts]).tolist()
    rows, numbers = list[Row](), list[tuple[int, int]]()
    for number, sender in enumerate(senders):
        later = [place for place, reader in enumerate(readers) if sender.written < reader.read]
        for pair in range(len(batch.lengths)):
            here, changes = slice(starts[pair], starts[pair + 1]), list[Intervention]()
            at = places[pair].nonzero()[:, 0].tolist()
            for place in later if bool(differs[number, here].any()) else []:
                reader, first = readers[place], readers[place].read == readers[later[0]].read
                for name, by in seen[place].items():
                    more = by[number, here]
                    if first:  # no other receiver is below it, so it reads what it did but for this
                        changes.append(Intervention(name, Add(more), at, heads=reader.heads))
                        continue
                    value = held.value(reader, name, pair).clone()
                    value[at] += more
                    changes.append(Intervention(name, Set(value), heads=reader.heads))
            rows.append(Row(changes, pair))
            numbers.append((pair, number))
        if len(rows) >= MOST_ROWS:
            yield rows, numbers
            rows, numbers = [], []
    if rows:
        yield rows, numbers
