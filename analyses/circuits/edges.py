"""A model as a graph: what writes into the stream, what reads it, and every edge between them, by name.

An edge runs from a source, `input`, a head `a3.h1` or an MLP `m3`, to what one reader reads: `a5.h2<q>`, `a5.h2<k>`, `a5.h2<v>`, `m5`, or
`logits`; it is named `a3.h1->a5.h2<q>`, as in EAP-IG (Hanna et al. 2024, arXiv 2403.17806). Where heads share keys and values, the number
of `<k>` and `<v>` is that of the shared ones. Output biases belong to no head, hence to no edge.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase

from interp.config import ModelConfig
from interp.errors import ConfigError, InterpError, nearest
from interp.names import block_name
from interp.whole_numbers import takes_whole


@dataclass(frozen=True)
class Source:
    """What writes into the stream.

    Args:
        layer, head: of a head or an MLP, which has no head; the input has neither.
    """

    name: str
    layer: int | None = None
    head: int | None = None

    @property
    def written(self) -> int:
        """When: 0 the input, 1 + 2l the heads of block l, 2 + 2l its MLP."""
        return 0 if self.layer is None else 2 * self.layer + (1 if self.head is not None else 2)


INPUT = Source("input")


@dataclass(frozen=True)
class Shape:
    """What says which edges a model has: all of a configuration that a circuit on file keeps.

    Args:
        kv_heads: heads with keys and values of their own, as many as heads unless these are grouped.
        mlp: `plain`, `gated` or `none`.
        parallel: whether attention and MLP of a block stand side by side.
        is_sum: whether the stream is the sum of what was written into it.
        d_model: width of the stream, where it is known; graphs of models of different width are alike.
    """

    n_layers: int
    n_heads: int
    kv_heads: int
    mlp: str = "plain"
    parallel: bool = False
    is_sum: bool = True
    d_model: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, config: "ModelConfig | Shape") -> "Shape":
        """Of a model."""
        return cls(**{one.name: getattr(config, one.name) for one in fields(cls)})


@dataclass(frozen=True)
class Destination:
    """What one reader reads.

    Args:
        part: `q`, `k`, `v`, `mlp` or `logits`.
        read: when: after all sources with a smaller number (`Source.written`).
        layer, head: of queries, keys and values, or of an MLP, which has no head; the logits have neither.
    """

    name: str
    part: str
    read: int
    layer: int | None = None
    head: int | None = None

    def input_name(self, config: ModelConfig) -> str:
        """Where a sweep changes what is read: the stream before the reader's norm."""
        if self.layer is None:
            return block_name(config.n_layers - 1, "hook_resid_post")
        return block_name(self.layer, "hook_mlp_in" if self.part == "mlp" else f"hook_{self.part}_input")


@dataclass(frozen=True)
class Edge:
    """From what is written to what is read."""

    source: Source
    destination: Destination

    @property
    def name(self) -> str:
        """As `a3.h1->a5.h2<q>`."""
        return f"{self.source.name}->{self.destination.name}"


def sources(config: ModelConfig | Shape) -> list[Source]:
    """All 1 + L(H + 1) of them (1 + LH without MLPs), in the order in which they write."""
    found = [INPUT]
    for layer in range(config.n_layers):
        found += [Source(f"a{layer}.h{head}", layer, head) for head in range(config.n_heads)]
        found += [] if config.mlp == "none" else [Source(f"m{layer}", layer)]
    return found


def destinations(config: ModelConfig | Shape) -> list[Destination]:
    """All L(H + 2K + 1) + 1 of them (one less a layer without MLPs), with K heads of keys and values, in the order in which they read."""
    found = []
    for layer in range(config.n_layers):
        for head in range(config.n_heads):
            for part in "qkv" if head < config.kv_heads else "q":
                found.append(Destination(f"a{layer}.h{head}<{part}>", part, 2 * layer + 1, layer, head))
        if config.mlp != "none":
            found.append(Destination(f"m{layer}", "mlp", 2 * layer + (1 if config.parallel else 2), layer))
    return [*found, Destination("logits", "logits", 2 * config.n_layers + 1)]


@takes_whole(several=["layers"])
def edges(
    config: ModelConfig | Shape,
    *,
    sources: Sequence[str] | str | None = None,
    destinations: Sequence[str] | str | None = None,
    layers: Sequence[int] | None = None,
    who: str = "edges",
    called: tuple[str, str] = ("source", "destination"),
) -> list[Edge]:
    """The edges of a model: from every source to everything that reads after it has written, by source, then by destination.

    Args:
        sources, destinations: names, or globs such as `a3.*`, that choose some; None is all.
        layers: of the destinations, the logits being in none; None is all and the logits.
        called: what the two ends are called in messages.

    Raises:
        ConfigError: a post-norm model, whose stream is no sum of what was written.
        InterpError: a name that matches nothing, a layer that does not exist, or no edge between what is chosen.
    """
    if not config.is_sum:
        raise ConfigError(f"{who}: a post-norm model rescales its stream after each addition, so it has no edges.")
    every_source, every_destination = _every(config)
    out_of = chosen(every_source, sources, called[0], who)
    into = chosen(every_destination, destinations, called[1], who)
    if layers is not None:
        wrong = [layer for layer in layers if layer not in range(config.n_layers)]
        if wrong or not layers:
            raise InterpError(f"{who}: layers {layers}: the model has layers 0 to {config.n_layers - 1}.")
        into = [one for one in into if one.layer in layers]
    found = [Edge(source, one) for source in out_of for one in into if source.written < one.read]
    if not found:
        raise InterpError(
            f"{who}: no edge runs from the chosen {called[0]}s to the chosen {called[1]}s, which all read before those write."
        )
    return found


def _every(config: ModelConfig | Shape) -> tuple[list[Source], list[Destination]]:
    return sources(config), destinations(config)


def chosen(every: Sequence, given: Sequence[str] | str | None, what: str, who: str) -> list:  # type: ignore[type-arg]
    """Those of a list whose names match."""
    if given is None:
        return list(every)
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    patterns, names = list(given) if several else [given], [one.name for one in every]
    for pattern in patterns:
        if not isinstance(pattern, str) or not any(fnmatchcase(name, pattern) for name in names):
            raise InterpError(f"{who}: there is no {what} {pattern!r}. {nearest(pattern, names)}")
    return [one for one in every if any(fnmatchcase(one.name, pattern) for pattern in patterns)]
