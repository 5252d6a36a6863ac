"""The slope of a metric by what every reader reads, before its norm."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import cast

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from analyses.circuits.edges import Destination
from analyses.circuits.relevance import relevance_hooks, relevance_readout
from analyses.circuits.written import Written, needed
from analyses.patching.metrics import Metric, MetricReadout
from analyses.patching.replacements import values_of
from interp.errors import InterpError
from interp.hooks import HookFunction, HookPoint
from interp.model import Block, Transformer
from interp.modes import recording
from interp.names import block_name
from interp.sweep.tangents import LinearNorm

READERS = {"q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v"}
NEURONS = ("mlp.hook_pre", "mlp.hook_pre_linear")
WRITTEN = ("hook_attn_out", "hook_mlp_out")
Z = "attn.hook_z"


class Graph:
    """Runs of some prompts, from which gradients of a metric may be taken several times.

    Args:
        stream: what enters block 0; None is the embedding of the tokens.
        added: what is added to the values at some hook points, by name; these are set, so that no slope goes through them.
        at: where the metric is read in each prompt.
        relevance: take slopes as `analyses.circuits.relevance` does.
        blocks: whether slopes without a block are wanted, and those by what heads read.
        own: what takes these runs' values, where they are the prompts' as they are.

    Attributes:
        values: of the runs, by hook point, as far as slopes need them.

    Raises:
        InterpError: the metric has no gradient.
    """

    def __init__(
        self,
        model: Transformer,
        tokens: Int[Tensor, "prompt position"],
        stream: Float[Tensor, "prompt position d_model"] | None,
        added: Mapping[str, Tensor],
        at: Sequence[int],
        readout: MetricReadout,
        metric: Metric,
        who: str,
        *,
        relevance: bool = False,
        blocks: bool = False,
        own: Written | None = None,
    ) -> None:
        self.model, self._relevance, config = model, relevance, model.config
        self._last = block_name(config.n_layers - 1, "hook_resid_post")
        points = ("hook_resid_pre", *READERS.values(), "hook_resid_mid", *NEURONS, *([Z] if blocks else []))
        self._by = [*self._of_all(points), self._last]
        hooks: dict[str, HookFunction] = {name: partial(_set, more) for name, more in added.items()}
        hooks |= relevance_hooks(model) if relevance else {}
        head, readout = relevance_readout(model, readout) if relevance else (model, readout)
        wanted = dict.fromkeys([*self._by, *(self._of_all(WRITTEN) if blocks else []), *(needed(model) if own else [])])
        with recording(who), model.hooks(hooks) if hooks else nullcontext():
            self._values, normed = values_of(model, tokens, stream, list(wanted), at, with_gradients=True)
            self._total = readout.read(head, normed, torch.arange(len(normed), device=normed.device)).sum()
        if own is not None:
            own.take(self._values, normed)
        if not self._total.requires_grad:
            raise InterpError(f"{who}: the metric {metric.name} has no gradient; choose another.")
        self.values = {name: self._values[name].detach() for name in self._by}

    def _of_all(self, points: Sequence[str]) -> list[str]:
        every = [block_name(layer, point) for layer in range(self.model.config.n_layers) for point in points]
        return [name for name in every if name in self.model.hook_points]

    def slopes(self, *, without: int | None = None, again: bool = False) -> "Slopes":
        """By what everything reads.

        Args:
            without: a block through whose attention and MLP no slope goes, only past them.
            again: whether others will be taken after these.
        """
        names = [] if without is None else [block_name(without, point) for point in WRITTEN]
        handles = [self._values[n].register_hook(torch.zeros_like) for n in names if n in self._values]  # type: ignore[no-untyped-call]
        by = [self._values[name] for name in self._by]
        try:
            found = torch.autograd.grad(self._total, by, allow_unused=True, materialize_grads=True, retain_graph=again)
        finally:
            for handle in handles:
                handle.remove()
        return Slopes(self.model, self.values, dict(zip(self._by, found, strict=True)), self._relevance)


def _set(more: Tensor, value: Tensor, hook: HookPoint) -> Tensor:
    return value.detach() + more


class Slopes:
    """Gradients of a metric, where queries, keys, values and neurons come from their maps.

    Args:
        values: of the runs, by hook point.
        slopes: the gradients there.
        held: whether what readers' norms divide by counts as constant.
    """

    def __init__(
        self, model: Transformer, values: Mapping[str, Tensor], slopes: Mapping[str, Tensor], held: bool
    ) -> None:
        self._model, self._values, self._slopes, self._held = model, values, slopes, held

    def by(self, destination: Destination) -> Float[Tensor, "prompt position d_model"]:
        """The slope by what a destination reads."""
        layer, head = destination.layer, destination.head
        if layer is None:
            return self._slopes[block_name(self._model.config.n_layers - 1, "hook_resid_post")]
        block = cast(Block, self._model.blocks[layer])
        if head is not None:
            weight = getattr(block.attn, f"W_{destination.part.upper()}")[head]
            slope = self._slopes[block_name(layer, READERS[destination.part])][:, :, head] @ weight.mT
            return self._before(block, block.ln1, block_name(layer, "hook_resid_pre"), slope)
        assert block.mlp is not None
        first, second = (self._slopes.get(block_name(layer, name)) for name in NEURONS)
        gate = block.mlp.input if block.mlp.gate is None else block.mlp.gate
        assert first is not None
        slope = first @ gate.weight
        slope = slope if second is None else slope + second @ block.mlp.input.weight
        stream = "hook_resid_pre" if block.parallel else "hook_resid_mid"
        return self._before(block, block.ln2, block_name(layer, stream), slope)

    def onto(
        self, into: Sequence[Destination], moved: Float[Tensor, "prompt source position d_model"]
    ) -> Float[Tensor, "prompt source reader"]:
        """To first order, what the metric changes by where readers read what each source writes differently.

        Args:
            into: heads of one layer, or one MLP, or the logits.
        """
        layer = into[0].layer
        if layer is None or into[0].head is None:
            slope = self.by(into[0])
            wide = torch.promote_types(slope.dtype, moved.dtype)
            pairs = zip(moved.flatten(2).to(wide), slope.flatten(1).to(wide), strict=True)
            return torch.stack([one @ by for one, by in pairs])[:, :, None]  # thrice as fast as one product of all
        block = cast(Block, self._model.blocks[layer])
        slopes = torch.stack(
            [self._slopes[block_name(layer, READERS[one.part])][:, :, one.head] for one in into], dim=2
        )
        weight = torch.stack([getattr(block.attn, f"W_{one.part.upper()}")[one.head] for one in into])
        wide = torch.promote_types(torch.promote_types(slopes.dtype, torch.float32), moved.dtype)
        norm = block.ln1 if block.reads_normed else torch.nn.Identity()
        stream = self._values[block_name(layer, "hook_resid_pre")]
        return LinearNorm(norm, stream.to(wide), self._held).products(moved.to(wide), slopes.to(wide), weight.to(wide))

    def by_read(self, layer: int) -> Float[Tensor, "prompt position head d_head"]:
        """The slope by what the heads of a layer read."""
        return self._slopes[block_name(layer, Z)]

    def _before(self, block: Block, norm: torch.nn.Module, stream: str, slope: Tensor) -> Tensor:
        """The slope before a reader's norm, from that behind it."""
        if not block.reads_normed:
            return slope
        wide = torch.promote_types(slope.dtype, torch.float32)
        return LinearNorm(norm, self._values[stream].to(wide), self._held).pull(slope.to(wide), slice(None))


def products(
    moved: Float[Tensor, "source prompt position d_model"], slope: Float[Tensor, "prompt position d_model"]
) -> Float[Tensor, "prompt source"]:
    """To first order, what the metric changes by where a reader's input moves by what each source writes differently."""
    wide = torch.promote_types(slope.dtype, moved.dtype)
    return einsum(moved.to(wide), slope.to(wide), "s n p d, n p d -> n s")
