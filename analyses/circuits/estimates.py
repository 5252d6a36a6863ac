"""What edges do by the slopes of some runs: the methods, and which runs they take slopes in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.circuits.atp_star import atp_star
from analyses.circuits.edges import INPUT, Edge, Source
from analyses.circuits.edges import sources as every_source
from analyses.circuits.runs import Batch, Runs
from analyses.circuits.slopes import Graph, Slopes
from interp.config import ModelConfig
from interp.errors import ConfigError, InterpError, is_known, nearest
from interp.names import block_name
from interp.progress import progress_bar

METHODS = ("eap", "eap_ig_inputs", "eap_ig_activations", "clean_corrupted", "relp", "atp_star")

GRAPH = 3
"""How many times as much a run takes of which a gradient is wanted."""


def chosen_methods(given: Any, config: ModelConfig, who: str) -> list[str]:
    """The methods that a user names.

    Raises:
        InterpError: none, an unknown one, or one twice. ConfigError: one that such a model cannot have.
    """
    listed = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    if not listed:
        raise InterpError(f"{who}: the list of methods is empty; name one or more of {', '.join(METHODS)}.")
    for method in listed:
        if not is_known(method, METHODS):
            raise InterpError(f"{who}: unknown method {method!r}. {nearest(method, METHODS)}")
        if listed.count(method) > 1:
            raise InterpError(f"{who}: the method {method!r} is named twice; name each once.")
    if "atp_star" in listed and config.qk_norm == "whole":
        raise ConfigError(
            f"{who}: atp_star computes the queries or keys of one head anew, but this model's norm of queries and keys "
            "(qk_norm='whole') ties all heads together; choose another method."
        )
    return listed


@dataclass(frozen=True)
class Way:
    """A run in which slopes are taken: some sources write what they write in this run with a share of the way to the other added.

    Args:
        point: the hook point after which they have written, through which no slope goes further down, as what is written there is set;
            None is the input, as the stream that enters block 0.
        relevance: whether its slopes are those of `analyses.circuits.relevance`.
    """

    sources: tuple[Source, ...]
    point: str | None
    share: float
    relevance: bool = False


def ways(config: ModelConfig, method: str, steps: int) -> list[Way]:
    """The runs in which a method takes slopes."""
    if method != "eap_ig_activations":
        of_inputs = {"eap": [0.0], "relp": [0.0], "atp_star": [0.0], "clean_corrupted": [0.0, 1.0]}
        shares = of_inputs.get(method, [1 - k / steps for k in range(steps)])
        return [Way((INPUT,), None, share, method == "relp") for share in shares]
    every = every_source(config)
    parts: list[tuple[list[Source], str | None]] = [([INPUT], None)]
    for layer in range(config.n_layers):
        of_layer = [source for source in every if source.layer == layer]
        heads = [source for source in of_layer if source.head is not None]
        parts.append((heads, block_name(layer, "hook_attn_out")))
        if mlp := of_layer[len(heads) :]:
            parts.append((mlp, block_name(layer, "hook_mlp_out")))
    return [Way(tuple(some), point, 1 - k / steps) for some, point in parts for k in range(1, steps + 1)]


def estimates(
    runs: Runs, found: Sequence[Edge], methods: Sequence[str], steps: int
) -> tuple[Float[Tensor, "method pair edge"], Float[Tensor, "two pair"]]:
    """The estimated change of the metric by each edge, by each method; what several take slopes in is run once. And the metric of the clean
    and the corrupt run."""
    config = runs.run.model.config
    users: dict[Way, list[int]] = {}
    counts = []
    for number, method in enumerate(methods):
        of = ways(config, method, steps)
        counts.append(len(of))
        for way in of:
            users.setdefault(way, []).append(number)
    dtype = torch.promote_types(runs.run.model.dtype, torch.float32)
    total = torch.zeros(len(methods), len(runs.run.pairs), len(found), dtype=dtype)
    baselines = torch.empty(2, len(runs.run.pairs), dtype=dtype)
    this, other = (0, 1) if runs.noising else (1, 0)
    with progress_bar(False) as bar:
        task = bar.add_task("slopes", total=len(runs.run.pairs) * len(users))
        for batch in runs.batches(share=_share(runs, methods)):
            for way, numbers in sorted(
                users.items(), key=lambda one: one[0].share != 0
            ):  # whose runs are those of the prompts
                graph = _graph(runs, batch, way, any(methods[number] == "atp_star" for number in numbers))
                for number, estimate in _by_method(runs, batch, found, graph, numbers, methods):
                    total[number, batch.pairs] += estimate.cpu().to(dtype) / counts[number]
                bar.advance(task, len(batch.tokens))
            baselines[this, batch.pairs] = batch.read(batch.own).cpu().to(dtype)
            baselines[other, batch.pairs] = batch.read(batch.other).cpu().to(dtype)
    return total, baselines


def _share(runs: Runs, methods: Sequence[str]) -> int:
    """How many times as much the largest of these methods' runs takes."""
    config = runs.run.model.config
    more = {
        "relp": -(-runs.width // config.d_head),  # patterns are computed one by one
        "atp_star": config.n_layers + 1,  # slopes as often
    }
    return GRAPH + max(more.get(method, 0) for method in methods)


def _graph(runs: Runs, batch: Batch, way: Way, blocks: bool) -> Graph:
    stream = None
    added: dict[str, Tensor] = {}
    if way.share or way.point is not None:
        more = way.share * runs.moved(batch, way.sources).sum(0)
        if way.point is None:
            stream = batch.own.by(INPUT) + more
        else:
            added[way.point] = more
    return Graph(
        runs.run.model, batch.tokens, stream, added, batch.read_at, batch.readout, runs.metric, runs.run.who,
        relevance=way.relevance, blocks=blocks, own=None if added or stream is not None else batch.own,
    )  # fmt: skip


def _by_method(
    runs: Runs, batch: Batch, found: Sequence[Edge], graph: Graph, numbers: Sequence[int], methods: Sequence[str]
) -> Iterator[tuple[int, Float[Tensor, "pair edge"]]]:
    """What each of the methods that use a run makes of it."""
    alike = [number for number in numbers if methods[number] != "atp_star"]
    others = [number for number in numbers if number not in alike]
    plain = graph.slopes(again=bool(others))
    if alike:
        estimate = _first_order(runs, batch, found, plain)
        for number in alike:
            yield number, estimate
    for number in others:
        yield number, atp_star(runs, batch, found, graph, plain)


def _first_order(runs: Runs, batch: Batch, found: Sequence[Edge], slopes: Slopes) -> Float[Tensor, "pair edge"]:
    dtype = torch.promote_types(runs.run.model.dtype, torch.float32)
    estimate = torch.zeros(len(batch.tokens), len(found), dtype=dtype, device=batch.tokens.device)
    for edges in runs.together(batch, found):
        every = slopes.onto(edges.into, edges.moved)
        estimate[:, edges.numbers] = every[:, edges.sources, edges.readers].to(dtype)
    return estimate
