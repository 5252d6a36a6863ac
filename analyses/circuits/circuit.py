"""A circuit: some of the edges of a model, as an object of its own."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from numbers import Real

import numpy as np
import xarray as xr

from analyses.circuits.edges import Destination, Edge, Shape, chosen, edges, sources
from analyses.circuits.scores import Scores, edge_scores, numbers_by_edge, shape_of_result
from interp.config import ModelConfig
from interp.errors import InterpError, nearest
from interp.model import Transformer
from interp.whole_numbers import takes_whole, whole_number

WHO = "Circuit"


@dataclass(frozen=True)
class Circuit:
    """Some of the edges of a model. Taking out a node takes out the edges out of it.

    Args:
        shape: of the model, which says what edges there are.
        edges: their names, as in `edge_patching`.
        scores: what each edge scored where the circuit was chosen by scores, by name; they are carried along, but two circuits are equal
            that have the same edges.

    Raises:
        InterpError: an edge that a model of that shape does not have.
    """

    shape: Shape
    edges: frozenset[str]
    scores: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Raises InterpError for a name that is no edge."""
        known = graph(self.shape)
        for name in (given := list(self.edges)):
            if not isinstance(name, str) or name not in known:
                raise InterpError(f"{WHO}: there is no edge {name!r}. {nearest(str(name), list(known))}")
        object.__setattr__(self, "edges", frozenset(given))

    @classmethod
    def of(cls, model: "Transformer | ModelConfig | Shape", names: Iterable[str]) -> "Circuit":
        """A circuit of these edges, of a model or one of that shape."""
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise InterpError(f"{WHO}: give a list of edges, not {names!r}.")
        return cls(shape_of(model), frozenset(_as_name(one) for one in names))

    @classmethod
    def whole(cls, model: "Transformer | ModelConfig | Shape") -> "Circuit":
        """All edges: the model itself."""
        return cls(shape_of(model), frozenset(graph(shape_of(model))))

    @classmethod
    def none(cls, model: "Transformer | ModelConfig | Shape") -> "Circuit":
        """No edge."""
        return cls(shape_of(model), frozenset())

    @classmethod
    @takes_whole("count", "seed", least={"count": 0})
    def random(cls, model: "Transformer | ModelConfig | Shape", count: int, seed: int = 0) -> "Circuit":
        """So many edges, each as likely as any other."""
        every = list(graph(shape_of(model)))
        if count > len(every):
            raise InterpError(f"{WHO}: {count} edges asked for of {len(every)}.")
        drawn = np.random.default_rng(seed % 2**64).choice(len(every), count, replace=False)
        return cls(shape_of(model), frozenset(every[place] for place in drawn))

    @classmethod
    def from_scores(
        cls,
        scores: Scores,
        *,
        model: "Transformer | ModelConfig | Shape | None" = None,
        count: int | None = None,
        share: float | None = None,
        threshold: float | None = None,
        absolute: bool = True,
        greedy: bool = False,
        method: str | None = None,
        prompt: int | None = None,
    ) -> "Circuit":
        """The edges that score most. Prune it afterwards (`pruned`), for some of them may lie on no path from the input to the logits.

        Args:
            scores: a result of `edge_patching` or `edge_attribution`, see `edge_scores`; or a number by
                edge, with `model`.
            count, share, threshold: how many; how many of all edges of the model, rounded down; or all that score that much at least.
                Exactly one of the three.
            absolute: rank by size; else edges that help the answer come first, and those that hurt it last.
            greedy: from the logits on: time and again the edge that scores most of those into what the circuit already has
                (Hanna et al. 2024, arXiv 2403.17806), so that all of it leads to the logits.
            method, prompt: as in `edge_scores`.

        Raises:
            InterpError: none or several of the three, or what cannot be; more edges than have a score; a `model` of another shape than the
                result's. ResultError: as `edge_scores`, and scores by name that are no numbers.
        """
        if isinstance(scores, xr.Dataset):
            shape, given = shape_of_result(scores), edge_scores(scores, method=method, prompt=prompt)
            if model is not None and (other := shape_of(model)) != shape:
                raise InterpError(
                    f"{WHO}: the scores are of a model of another shape: {shape}, where this one's is {other}."
                )
        elif model is None:
            raise InterpError(f"{WHO}: scores by name need model=, which says what edges there are.")
        else:
            shape, given = shape_of(model), numbers_by_edge(scores, WHO)
        known = graph(shape)
        if wrong := [name for name in given if name not in known]:
            raise InterpError(f"{WHO}: there is no edge {wrong[0]!r}. {nearest(str(wrong[0]), list(known))}")
        scored = {name: given[name] for name in known if name in given and not np.isnan(given[name])}
        rank = {name: abs(value) if absolute else value for name, value in scored.items()}
        if sum(one is not None for one in (count, share, threshold)) != 1:
            raise InterpError(f"{WHO}: give one of count, share and threshold.")
        if threshold is not None:
            if greedy:
                raise InterpError(f"{WHO}: a greedy choice takes count or share.")
            if isinstance(threshold, bool) or not isinstance(threshold, Real) or np.isnan(float(threshold)):
                raise InterpError(f"{WHO}: threshold must be a number, got {threshold!r}.")
            names = [name for name, value in rank.items() if value >= threshold]
        else:
            number = counted(count, share, len(known))
            if number > len(scored):
                raise InterpError(
                    f"{WHO}: {number} edges asked for, of {len(known)}, but only {len(scored)} have a score. Score all, or "
                    "ask for fewer."
                )
            names = _greedy(rank, shape, number) if greedy else sorted(rank, key=lambda name: -rank[name])[:number]
        return cls(shape, frozenset(names), {name: given[name] for name in names})

    @cached_property
    def listed(self) -> list[Edge]:
        """The edges in the graph's order: by source, then by destination."""
        return [edge for name, edge in graph(self.shape).items() if name in self.edges]

    @property
    def nodes(self) -> list[str]:
        """What the edges run between, in the order of the forward pass, `logits` last. Of heads that share keys or values which are read,
        those that write; all of them where none does."""
        there = {edge.source.name for edge in self.listed}
        for edge in self.listed:
            readers = readers_of(edge.destination, self.shape)
            there |= set(readers) if not there & set(readers) else set()
        every = [*(source.name for source in sources(self.shape)), "logits"]
        return [name for name in every if name in there]

    def pruned(self) -> "Circuit":
        """Without the edges that lie on no path from the input to the logits.

        Where other edges carry the corrupt run (`replacement="resample"`), they change nothing that comes out, unless the heads of a layer
        share a scale (`norm_placement` output or both, `qk_norm="whole"`), through which every edge into one moves all. With zero or means
        they may: a node that no path from the input reaches is computed anew from what it reads, and only where no edge out of it is left
        does its replacement stand in its place.
        """
        by_read = sorted(self.listed, key=lambda edge: edge.destination.read)
        fed, leads, kept = {"input"}, {"logits"}, list[Edge]()
        for edge in by_read:
            if edge.source.name in fed:
                fed |= set(readers_of(edge.destination, self.shape))
                kept.append(edge)
        names = []
        for edge in reversed(kept):
            if leads & set(readers_of(edge.destination, self.shape)):
                leads.add(edge.source.name)
                names.append(edge.name)
        return self._with(names)

    def without(self, nodes: Sequence[str] | str) -> "Circuit":
        """Without the edges out of these nodes, by name or glob (`a3.*`)."""
        out = {source.name for source in chosen(sources(self.shape), nodes, "node", WHO)}
        return self._with(edge.name for edge in self.listed if edge.source.name not in out)

    def complement(self) -> "Circuit":
        """All edges but these."""
        return type(self)(self.shape, frozenset(graph(self.shape)) - self.edges)

    @property
    def share(self) -> float:
        """Of all edges of the model."""
        return len(self) / len(graph(self.shape))

    def __or__(self, other: object) -> "Circuit":
        return self._with(self.edges | self._alike(other).edges, self._alike(other))

    def __and__(self, other: object) -> "Circuit":
        return self._with(self.edges & self._alike(other).edges, self._alike(other))

    def __sub__(self, other: object) -> "Circuit":
        return self._with(self.edges - self._alike(other).edges)

    def __xor__(self, other: object) -> "Circuit":
        return self._with(self.edges ^ self._alike(other).edges, self._alike(other))

    def __le__(self, other: object) -> bool:
        return self.edges <= self._alike(other).edges

    def __contains__(self, edge: object) -> bool:
        return edge in self.edges

    def __len__(self) -> int:
        return len(self.edges)

    def __iter__(self) -> Iterator[str]:
        return iter([edge.name for edge in self.listed])

    def __repr__(self) -> str:
        return f"Circuit of {len(self):,} of {len(graph(self.shape)):,} edges, {len(self.nodes)} nodes"

    def overlap(self, other: "Circuit") -> float:
        """Edges of both over edges of either (Jaccard); NaN where neither has any."""
        either = self.edges | self._alike(other).edges
        return len(self.edges & other.edges) / len(either) if either else np.nan

    def _alike(self, other: object) -> "Circuit":
        if not isinstance(other, Circuit):
            raise InterpError(f"{WHO}: a circuit is combined with another one, not with {type(other).__name__}.")
        if other.shape != self.shape:
            raise InterpError(
                f"{WHO}: these are circuits of models of different shape: {self.shape} and {other.shape}."
            )
        return other

    def _with(self, names: Iterable[str], other: "Circuit | None" = None) -> "Circuit":
        kept, scores = frozenset(names), {**(other.scores if other else {}), **self.scores}
        return type(self)(self.shape, kept, {name: value for name, value in scores.items() if name in kept})


def _as_name(given: object) -> str:
    if not isinstance(given, str):
        raise InterpError(f"{WHO}: an edge is given by its name, such as 'input->m0', not {given!r}.")
    return given


@lru_cache(maxsize=8)
def graph(shape: Shape) -> Mapping[str, Edge]:
    """All edges of a model of that shape, by name, in their order."""
    return {edge.name: edge for edge in edges(shape, who=WHO)}


def shape_of(model: "Transformer | ModelConfig | Shape") -> Shape:
    """The shape of a model's graph. Raises InterpError for what is none of these."""
    if not isinstance(model, (Transformer, ModelConfig, Shape)):
        raise InterpError(f"{WHO}: edges are those of a model, its ModelConfig or a Shape; got {type(model).__name__}.")
    return Shape.of(model.config if isinstance(model, Transformer) else model)


def readers_of(destination: Destination, shape: Shape) -> list[str]:
    """The nodes that read there: several heads where they share keys and values."""
    if destination.head is None:
        return [destination.name]
    if destination.part == "q":
        return [f"a{destination.layer}.h{destination.head}"]
    group = shape.n_heads // shape.kv_heads
    return [f"a{destination.layer}.h{head}" for head in range(destination.head * group, (destination.head + 1) * group)]


def counted(count: int | None, share: float | None, every: int) -> int:
    """How many edges to take. Raises InterpError for more than there are, or a share that is none."""
    if count is not None:
        number = whole_number(count, f"{WHO}: count", InterpError, least=0)
        if number > every:
            raise InterpError(f"{WHO}: {number} edges asked for of {every}.")
        return number
    if isinstance(share, bool) or not isinstance(share, (int, float, np.number)) or not 0 <= share <= 1:
        raise InterpError(f"{WHO}: share must be a number from 0 to 1, got {share!r}.")
    return int(share * every)


def _greedy(rank: Mapping[str, float], shape: Shape, count: int) -> list[str]:
    """Edges from the logits on, the one that ranks first of those within reach first; of equals, the earlier in the graph."""
    into: dict[str, list[tuple[float, int, str]]] = {}
    known = graph(shape)
    for place, (name, edge) in enumerate(known.items()):
        for node in readers_of(edge.destination, shape) if name in rank else ():
            into.setdefault(node, []).append((-rank[name], place, name))
    within, taken, reach = {"logits"}, dict[str, None](), list(into.get("logits", []))
    heapq.heapify(reach)
    while reach and len(taken) < count:
        name = heapq.heappop(reach)[2]
        taken[name] = None
        if (node := known[name].source.name) not in within:
            within.add(node)
            for entry in into.get(node, []):
                if entry[2] not in taken:
                    heapq.heappush(reach, entry)
    return list(taken)
