"""Norms: of the stream, and of queries and keys."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.config import ModelConfig
from interp.hooks import Points, unless_changed
from interp.modes import may_reuse
from interp.names import block_name


class Norm(nn.Module):
    """Divide each vector by its size and scale it. LayerNorm first takes away the mean, and in the end shifts.

    Statistics are in float32 at least, and what flows on is the fused kernel's result unless a hook changes something on the way.
    """

    def __init__(
        self,
        config: ModelConfig,
        points: Points,
        name: str,
        shape: tuple[int, ...] | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.centres = config.norm_eps, (kind or config.norm) == "layernorm"
        self.weight = nn.Parameter(torch.empty(shape or (config.d_model,)))
        self.bias = nn.Parameter(torch.empty(config.d_model)) if self.centres and config.bias else None
        self.hook_scale, self.hook_normalized = points[f"{name}.hook_scale"], points[f"{name}.hook_normalized"]
        self.hook_out = points[f"{name}.hook_out"]

    def forward(self, x: Tensor) -> Tensor:
        if not (self.hook_scale.active or self.hook_normalized.active):
            return self.hook_out(self.fused(x))
        wide, scale = self.measured(x)
        heard_scale = self.hook_scale(scale)
        normalized = (wide / heard_scale).to(x.dtype)
        heard = self.hook_normalized(normalized)
        out = heard * self.weight if self.bias is None else heard * self.weight + self.bias
        return self.hook_out(unless_changed(out, [(scale, heard_scale), (normalized, heard)], lambda: self.fused(x)))

    def measured(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is divided, [..., d_model], and by what, [..., 1]."""
        axes = tuple(range(-self.weight.ndim, 0))  # the last; of a norm over all heads together, the last two
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide - wide.mean(axes, keepdim=True) if self.centres else wide
        return wide, (wide.pow(2).mean(axes, keepdim=True) + self.eps).sqrt()

    def fused(self, x: Tensor) -> Tensor:
        """The same in one kernel, past all hooks."""
        if self.centres:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        if not may_reuse() or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        # A CPU has no kernel for it: the same steps to the bit, with one tensor of the stream's size instead of two.
        axes = tuple(range(-self.weight.ndim, 0))
        rate = x.square().mean(axes, keepdim=True).add_(self.eps).rsqrt_()
        return (x * rate).mul_(self.weight)


class Nothing(nn.Identity):
    """Where there is no norm; without a module's way to its forward pass, which takes longer than reading one token there."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


def norm_or_nothing(config: ModelConfig, points: Points, name: str, there: bool) -> nn.Module:
    """A norm of the stream where there is one; else what changes nothing."""
    return Norm(config, points, name) if there else Nothing()


def head_norms(config: ModelConfig, points: Points, layer: int) -> list[nn.Module]:
    """RMS norms of queries and keys: of each head by itself, or of all heads together."""
    if config.qk_norm == "none":
        return [Nothing(), Nothing()]
    alone = config.qk_norm == "head"
    return [
        Norm(
            config,
            points,
            block_name(layer, f"attn.{name}_norm"),
            (config.d_head,) if alone else (heads, config.d_head),
            "rmsnorm",
        )
        for name, heads in (("q", config.n_heads), ("k", config.kv_heads))
    ]
