"""AtP*: heads that look elsewhere are computed anew, and slopes are taken without each block in turn (Kramar et al. 2024)."""

from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from analyses.circuits.edges import Destination, Edge
from analyses.circuits.runs import Batch, Runs
from analyses.circuits.slopes import Graph, Slopes, Z, products
from interp.names import HEAD_INPUTS, block_name
from interp.sweep.inputs import HeadAlone, input_of
from interp.sweep.interventions import Add, Edit, Intervention


def atp_star(
    runs: Runs, batch: Batch, found: Sequence[Edge], graph: Graph, plain: Slopes
) -> Float[Tensor, "pair edge"]:
    """The estimated change of the metric by each edge.

    Args:
        graph: of the runs, with what slopes without a block need.
        plain: its slopes with all blocks.
    """
    layers = range(runs.run.model.config.n_layers)
    dropped = [graph.slopes(without=layer, again=layer < layers[-1]) for layer in layers]
    dtype = torch.promote_types(runs.run.model.dtype, torch.float32)
    estimate = torch.zeros(len(batch.tokens), len(found), dtype=dtype, device=batch.tokens.device)
    for numbers, destination, moved in runs.moved_into(batch, found):
        if destination.part in "qk":
            at, change = _read(runs, batch, graph, destination, moved)
            layer = destination.layer
            assert layer is not None
            by_all, *without = (_through(change, one.by_read(layer)[:, :, at]) for one in (plain, *dropped))
        else:
            by_all, *without = (products(moved, one.by(destination)) for one in (plain, *dropped))
        estimate[:, numbers] = _together(by_all, [without[n] for n in layers if n != destination.layer]).to(dtype)
    return estimate


def _together(by_all: Tensor, without: Sequence[Tensor]) -> Tensor:
    """The mean size without each block, with the sign of the estimate with all; where that is 0, positive."""
    if not without:
        return by_all
    size = torch.stack([one.abs() for one in without]).mean(0)
    return torch.where(by_all < 0, -size, size)


def _through(change: Tensor, slope: Tensor) -> Float[Tensor, "pair edge"]:
    wide = torch.promote_types(slope.dtype, torch.float32)
    return einsum(change.to(wide), slope.to(wide), "s n p h e, n p h e -> n s")


def _read(
    runs: Runs, batch: Batch, graph: Graph, destination: Destination, moved: Float[Tensor, "edge pair position d_model"]
) -> tuple[list[int], Float[Tensor, "edge pair position head d_head"]]:
    """Which heads use a head's queries or keys, and how far what they read moves where its input does."""
    model, layer, head = graph.model, destination.layer, destination.head
    assert layer is not None
    assert head is not None
    config, name = model.config, destination.input_name(model.config)
    group = config.n_heads // config.kv_heads
    at = [head] if destination.part == "q" else list(range(head * group, (head + 1) * group))
    given = input_of(model, graph.values, name)
    z = graph.values[block_name(layer, Z)]
    alone = HeadAlone(model, layer, graph.values | {name: given}, max(1, runs.run.max_bytes // 4))
    edges, pairs, width, _ = moved.shape
    change = z.new_zeros(edges, pairs, width, len(at), config.d_head)
    lengths = torch.tensor(list(batch.lengths), device=z.device)
    prompts = torch.arange(pairs, device=z.device)
    size = max(1, runs.run.max_bytes // 4 // (4 * moved[0].numel() * moved.element_size()))
    for begin in range(0, edges, size):
        some = range(begin, min(begin + size, edges))
        edits = [
            (number * pairs + pair, _added(name, moved[edge, pair, :length], head, length, given))
            for number, edge in enumerate(some)
            for pair, length in enumerate(batch.lengths)
        ]
        for row, edit in alone.read(edits, prompts.repeat(len(some)), lengths.repeat(len(some))):
            edge, pair = begin + row // pairs, row % pairs
            before = z[pair, edit.positions][:, edit.heads]
            change[edge, pair, edit.positions] = edit.new(before) - before
    return at, change


def _added(name: str, moved: Tensor, head: int, length: int, given: Tensor) -> Edit:
    axes = HEAD_INPUTS[name.rpartition(".")[2]]
    return Edit(Intervention(name, Add(moved), heads=head), axes, given.shape[2:], length, given)
