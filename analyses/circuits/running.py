"""What a model computes where only the edges of a circuit carry the clean run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from analyses.circuits.circuit import Circuit, graph
from analyses.circuits.edges import INPUT, destinations, sources
from analyses.circuits.runs import Batch, Runs
from interp.decompose import frozen_norm
from interp.errors import ConfigError, HookError, InterpError
from interp.hooks import attached_hooks
from interp.model import Block, Transformer
from interp.norms import Norm
from interp.progress import progress_bar
from interp.tokenizer import PAD
from interp.view import whole


def values_of_circuits(
    runs: Runs, circuits: Sequence[Circuit], progress: str | None
) -> tuple[Float[Tensor, "pair circuit"], Float[Tensor, "two pair"]]:
    """The metric of every circuit's run on every pair; and of the clean and the corrupt run.

    In such a run every reader reads, from each source whose edge to it is in the circuit, what that source writes in this very run, and
    from each other source what it writes in the corrupt run (or the replacement's value). Output biases are always there.

    Args:
        runs: noising ones.
        progress: what the bar on standard error is called; None shows none.
    """
    run, model = runs.run, runs.run.model
    check_circuits(model, circuits, run.who)
    dtype = torch.promote_types(model.dtype, torch.float32)
    values = torch.empty(len(run.pairs), len(circuits), dtype=dtype)
    baselines = torch.empty(2, len(run.pairs), dtype=dtype)
    gates = Gates(model, circuits)
    with progress_bar(progress is not None) as bar:
        task = bar.add_task(progress or "circuits", total=values.numel())
        for batch in runs.batches(share=OF_BATCH):
            baselines[0, batch.pairs] = batch.read(batch.own).cpu().to(dtype)
            baselines[1, batch.pairs] = batch.read(batch.other).cpu().to(dtype)
            outside = Outside(runs, batch)
            for rows in _rows(model, batch, len(circuits), run.max_bytes // 2):
                at = torch.tensor(batch.read_at, device=model.device)[rows.pairs]
                normed = _run(model, batch, outside, gates, rows, at[:, None])
                found = batch.readout.read(model, normed, rows.pairs)[:, 0].cpu().to(dtype)
                values[rows.pairs.cpu() + batch.pairs.start, rows.circuits.cpu()] = found
                bar.advance(task, len(found))
    return values, baselines


def logits_of_circuit(runs: Runs, circuit: Circuit) -> Float[Tensor, "pair position vocab"]:
    """The logits of a circuit's run on every pair, at every position; NaN beyond the end of a prompt."""
    model, found = runs.run.model, []
    gates = Gates(model, [circuit])
    for batch in runs.batches(share=OF_BATCH):
        outside, at = Outside(runs, batch), torch.arange(runs.width, device=model.device)
        for rows in _rows(model, batch, 1, runs.run.max_bytes // 2):
            normed = _run(model, batch, outside, gates, rows, at.expand(len(rows.pairs), -1))
            padding = (batch.tokens[rows.pairs] == PAD)[..., None]
            found.append(model.to_logits(normed).masked_fill(padding, torch.nan))
    return torch.cat(found)


OF_BATCH = 4
"""How many times as much what all sources write takes as what a batch keeps to know it."""


def check_circuits(model: Transformer, circuits: Sequence[Circuit], who: str) -> None:
    """Raises InterpError for no circuits, for what is none, and for circuits of another model."""
    if not circuits:
        raise InterpError(f"{who}: give at least one circuit.")
    for one in circuits:
        if not isinstance(one, Circuit):
            raise InterpError(f"{who}: a circuit is a Circuit, got {type(one).__name__}.")
        if one.shape != (own := Circuit.none(model).shape):
            raise ConfigError(f"{who}: a circuit of a model of another shape: {one.shape}, where this one's is {own}.")
    if attached := attached_hooks(model):
        raise HookError(f"{who}: the model has hooks attached ({', '.join(attached[:3])}); remove them first.")


@dataclass(frozen=True, eq=False)
class Rows:
    """Runs that are made at once: the pair of each within its batch, and the circuit."""

    pairs: Tensor
    circuits: Tensor


def _rows(model: Transformer, batch: Batch, circuits: int, max_bytes: int) -> Iterator[Rows]:
    """All pairs by all circuits, as many as fit into the bound; always at least one."""
    config = model.config
    wide = len(sources(config)) + 3 * (config.n_heads + 2 * config.kv_heads + 2) + 2 * config.n_heads
    numbers = batch.tokens.shape[1] * (wide * config.d_model + 3 * config.d_mlp)
    size = max(1, max_bytes // (numbers * torch.promote_types(model.dtype, torch.float32).itemsize))
    every = torch.cartesian_prod(torch.arange(len(batch.tokens)), torch.arange(circuits)).to(batch.tokens.device)
    for some in torch.split(every, size):
        yield Rows(some[:, 0], some[:, 1])


class Gates:
    """Which edges are open in each circuit, by reader."""

    def __init__(self, model: Transformer, circuits: Sequence[Circuit]) -> None:
        shape = Circuit.none(model).shape
        place = {source.name: number for number, source in enumerate(sources(shape))}
        into = destinations(shape)
        number = {one.name: row for row, one in enumerate(into)}
        every = np.zeros((len(circuits), len(into), len(place)), dtype=bool)
        known = graph(shape)
        for row, circuit in enumerate(circuits):
            for name in circuit.edges:
                edge = known[name]
                every[row, number[edge.destination.name], place[edge.source.name]] = True
        self._dtype = torch.promote_types(model.dtype, torch.float32)
        self._open = torch.from_numpy(every).to(model.device)
        self._readers: dict[tuple[int | None, str], list[int]] = {}
        for one in into:
            self._readers.setdefault((one.layer, one.part), []).append(number[one.name])

    def by(self, layer: int | None, part: str, circuits: Tensor, written: int) -> Float[Tensor, "row reader source"]:
        """1 for an open edge from each of the first sources to the readers of that kind, else 0."""
        readers = torch.tensor(self._readers[layer, part], device=self._open.device)
        return self._open[circuits][:, readers, :written].to(self._dtype)


class Outside:
    """What sources write in the other run, or what replaces it: what readers read where an edge is not in the circuit.

    Args:
        written: [pair, source, position, d_model].
        own_input: [pair, position, d_model], what the input writes in the clean run.
    """

    def __init__(self, runs: Runs, batch: Batch) -> None:
        model = runs.run.model
        wide, every = torch.promote_types(model.dtype, torch.float32), sources(model.config)
        self.written = torch.stack(
            [(batch.own.by(one) + more).to(wide) for one, more in zip(every, runs.moved(batch, every), strict=True)],
            dim=1,
        )
        self.own_input = batch.own.by(INPUT).to(wide)


def _run(
    model: Transformer, batch: Batch, outside: Outside, gates: Gates, rows: Rows, at: Int[Tensor, "row read"]
) -> Float[Tensor, "row read d_model"]:
    """The final stream of every row at some positions, after the final norm."""
    pairs = rows.pairs
    written = outside.written[pairs]  # [row, source, position, d_model], of the layers below what it is in these runs
    moved = torch.zeros_like(written)  # ... and less what it is outside
    moved[:, 0] = (outside.own_input - outside.written[:, 0])[pairs]
    real = batch.tokens[pairs] != PAD
    view = whole(model.config, written[:, 0].to(model.dtype), None if bool(real.all()) else real)
    stream = outside.written[:, 0][pairs]  # of what has been written outside, and of all biases
    done = 1  # sources that have written

    def reads(layer: int, part: str) -> Float[Tensor, "row reader position d_model"]:
        gate = gates.by(layer, part, rows.circuits, done)
        inside = (gate @ moved[:, :done].flatten(2)).view(len(pairs), -1, *moved.shape[2:])
        return stream[:, None] + inside

    def writes(new: Float[Tensor, "row source position d_model"]) -> None:
        nonlocal done, stream
        some = slice(done, done + new.shape[1])
        moved[:, some] = new - written[:, some]
        stream = stream + written[:, some].sum(1)
        done = some.stop

    for layer in range(model.config.n_layers):
        block = cast(Block, model.blocks[layer])
        q, k, v = (_mapped(block, part, reads(layer, part).to(model.dtype)) for part in "qkv")
        heads, rest = _heads(block, block.attn.meet(q, k, v, view))
        read = reads(layer, "mlp")[:, 0] if block.mlp is not None and block.parallel else None
        writes(heads)
        stream = stream + rest
        if block.mlp is not None:
            read = reads(layer, "mlp")[:, 0] if read is None else read
            read = read.to(model.dtype)
            out = block.ln2_post(block.mlp(block.ln2(read) if block.reads_normed else read))
            writes(out.to(stream.dtype)[:, None])
    there = at[:, None, :, None].expand(-1, done, -1, moved.shape[-1])
    inside = einsum(
        gates.by(None, "logits", rows.circuits, done)[:, 0], moved.gather(2, there), "r s, r s p d -> r p d"
    )
    final = stream.gather(1, there[:, 0]) + inside
    normed: Tensor = model.ln_final(final.to(model.dtype))
    return normed


def _mapped(block: Block, part: str, read: Float[Tensor, "row reader position d_model"]) -> Tensor:
    """Queries, keys or values [row, position, head, d_head], each of what it reads by itself."""
    attention = block.attn
    normed = block.ln1(read) if block.reads_normed else read
    made: Tensor = einsum(normed, getattr(attention, f"W_{part.upper()}"), "r h p d, h d e -> r p h e")
    if attention.qkv.bias is None:
        return made
    bias = torch.split(attention.qkv.bias, attention.widths)["qkv".index(part)]
    return made + bias.view(-1, made.shape[-1])


def _heads(block: Block, z: Float[Tensor, "row position head d_head"]) -> tuple[Tensor, Tensor | float]:
    """What each head writes into the stream [row, head, position, d_model], and what attention writes that is no head's."""
    wide = torch.promote_types(z.dtype, torch.float32)
    result = einsum(block.attn.hook_z(z), block.attn.W_O, "r p h e, h e d -> r h p d").to(wide)
    bias: Tensor | float = 0.0 if block.attn.o.bias is None else block.attn.o.bias.to(wide)
    norm = block.ln1_post
    if not isinstance(norm, Norm):
        return result, bias
    _, scale = norm.measured(result.sum(1) + bias)
    rest = frozen_norm(norm, bias, scale) if isinstance(bias, Tensor) else 0.0
    return frozen_norm(norm, result, scale[:, None]), rest + (0.0 if norm.bias is None else norm.bias)
