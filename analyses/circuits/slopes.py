"""The slope of a metric by what every reader reads, before its norm."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import cast

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from analyses.circuits.edges import Destination
from analyses.patching.metrics import Metric, MetricReadout
from analyses.patching.replacements import values_of
from interp.errors import InterpError
from interp.model import Block, Transformer
from interp.modes import recording
from interp.names import block_name
from interp.sweep.tangents import LinearNorm

READERS = {"q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v"}
NEURONS = ("mlp.hook_pre", "mlp.hook_pre_linear")


class Slopes:
    """Gradients of a metric in runs of some prompts, where queries, keys, values and neurons come from their maps.

    Args:
        stream: what enters block 0; None is the embedding of the tokens.
        added: what is added to the values at some hook points, by name; these are set, so that no slope goes through them.
        at: where the metric is read in each prompt.

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
    ) -> None:
        self._model, config = model, model.config
        points = ("hook_resid_pre", *READERS.values(), "hook_resid_mid", *NEURONS)
        every = [block_name(layer, point) for layer in range(config.n_layers) for point in points]
        names = [name for name in every if name in model.hook_points]
        self._last = block_name(config.n_layers - 1, "hook_resid_post")
        plus = {name: lambda value, hook, more=more: value.detach() + more for name, more in added.items()}
        with recording(who), model.hooks(plus) if plus else nullcontext():
            values, normed = values_of(model, tokens, stream, [*names, self._last], at, with_gradients=True)
            total = readout.read(model, normed, torch.arange(len(normed), device=normed.device)).sum()
        if not total.requires_grad:
            raise InterpError(f"{who}: the metric {metric.name} has no gradient; choose another.")
        found = torch.autograd.grad(total, list(values.values()), allow_unused=True, materialize_grads=True)
        self._values = {name: value.detach() for name, value in values.items()}
        self._slopes = dict(zip(values, found, strict=True))

    def by(self, destination: Destination) -> Float[Tensor, "prompt position d_model"]:
        """The slope by what a destination reads."""
        layer, head = destination.layer, destination.head
        if layer is None:
            return self._slopes[self._last]
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

    def _before(self, block: Block, norm: torch.nn.Module, stream: str, slope: Tensor) -> Tensor:
        """The slope before a reader's norm, from that behind it."""
        if not block.reads_normed:
            return slope
        wide = torch.promote_types(slope.dtype, torch.float32)
        return LinearNorm(norm, self._values[stream].to(wide)).pull(slope.to(wide), slice(None))


def products(
    moved: Float[Tensor, "source prompt position d_model"], slope: Float[Tensor, "prompt position d_model"]
) -> Float[Tensor, "prompt source"]:
    """To first order, what the metric changes by where a reader's input moves by what each source writes differently."""
    wide = torch.promote_types(slope.dtype, moved.dtype)
    return einsum(moved.to(wide), slope.to(wide), "s n p d, n p d -> n s")
