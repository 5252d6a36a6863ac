"""What can be patched: the sites, and the cells of each one's grid."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from interp.errors import InterpError, is_known, nearest
from interp.model import Transformer
from interp.names import block_name
from interp.sweep.interventions import Change, Intervention

STREAM = {name: f"hook_{name}" for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")}
HEADS = {name: f"attn.hook_{name}" for name in ("z", "q", "k", "v", "pattern")}
NEURONS = {"mlp_post": "mlp.hook_post"}
SITES = STREAM | HEADS | NEURONS


@dataclass(frozen=True)
class Site:
    """A kind of place that is patched, cell by cell.

    Args:
        name: one of `SITES`.
        by_position: one position at a time, not all together.
        window: adjacent layers patched together, centred on the cell's.
        layers: of the cells.
    """

    name: str
    by_position: bool
    window: int
    layers: tuple[int, ...]
    n_layers: int
    inner: int  # heads or neurons
    inner_dim: str

    @classmethod
    def of(
        cls,
        model: Transformer,
        name: str,
        *,
        by_position: bool | None,
        window: int,
        layers: "list[int] | None",
        who: str,
    ) -> "Site":
        """Raises InterpError for a site, window or layer that the model does not have."""
        if not is_known(name, SITES):
            raise InterpError(f"{who}: site {name!r} is not supported. {nearest(name, list(SITES))}")
        config = model.config
        if block_name(0, SITES[name]) not in model.hook_points:
            raise InterpError(f"{who}: site {name!r}: {model.name} has no such value (mlp={config.mlp!r}).")
        if not 1 <= window <= config.n_layers:
            raise InterpError(f"{who}: a window of {window} layers; the model has {config.n_layers}.")
        chosen = list(range(config.n_layers)) if layers is None else list(layers)
        wrong = [layer for layer in chosen if not 0 <= layer < config.n_layers]
        if wrong or not chosen:
            raise InterpError(f"{who}: layers {chosen}: the model has layers 0 to {config.n_layers - 1}.")
        if by_position is None:
            by_position = name in STREAM
        axes = model.hook_points[block_name(0, SITES[name])].axes
        inner_dim = "" if name in STREAM else "neuron" if name in NEURONS else axes[1] if "key" in axes else axes[2]
        sizes = {"": 1, "neuron": config.d_mlp, "head": config.n_heads, "kv_head": config.kv_heads}
        return cls(name, by_position, window, tuple(chosen), config.n_layers, sizes[inner_dim], inner_dim)

    @property
    def dims(self) -> tuple[str, ...]:
        """Of a pair's grid."""
        inner = (self.inner_dim,) if self.inner_dim else ()
        return ("layer", *inner, *(("position",) if self.by_position else ()))

    def sizes(self, positions: int) -> tuple[int, ...]:
        """Of a pair's grid."""
        inner = (self.inner,) if self.inner_dim else ()
        return (len(self.layers), *inner, *((positions,) if self.by_position else ()))

    def hooks(self, layer: int) -> list[str]:
        """The hook points that a cell of that layer changes."""
        below = (self.window - 1) // 2
        low = max(0, layer - below)
        return [block_name(at, SITES[self.name]) for at in range(low, min(self.n_layers, layer - below + self.window))]

    def all_hooks(self) -> list[str]:
        """The hook points that any cell changes."""
        names = {name for layer in self.layers for name in self.hooks(layer)}
        return [name for at in range(self.n_layers) if (name := block_name(at, SITES[self.name])) in names]

    def cells(self, positions: list[int]) -> Iterator[tuple[tuple[int, ...], "Where"]]:
        """Each cell's place in the grid, and what it changes; `positions` are those that may be changed."""
        inner: list[int | None] = list(range(self.inner)) if self.inner_dim else [None]
        for number, layer in enumerate(self.layers):
            for index in inner:
                head = (index,) if index is not None else ()
                for at in ([p] for p in positions) if self.by_position else [positions]:
                    tail = (at[0],) if self.by_position else ()
                    yield (number, *head, *tail), Where(self, layer, index, at)


@dataclass(frozen=True)
class Where:
    """What a cell changes."""

    site: Site
    layer: int
    inner: int | None
    positions: list[int]

    def interventions(self, change_at: Mapping[str, Change]) -> list[Intervention]:
        """The interventions of a cell, with the change of each hook point."""
        choice = "neurons" if self.site.inner_dim == "neuron" else "heads"
        inner = {} if self.inner is None else {choice: self.inner}
        return [Intervention(name, change_at[name], self.positions, **inner) for name in self.site.hooks(self.layer)]
