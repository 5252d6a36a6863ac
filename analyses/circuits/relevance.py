"""Relevance: a run whose values are as ever, and whose slopes are those of a model that is linear at these values (RelP).

Norms divide by constants, patterns are constants, an activation is the line through zero and its value, and of a product of two, as in a
gated MLP, either factor gets half. Without biases what is written then sums to the answer exactly.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from analyses.patching.metrics import Metric, MetricReadout, Truth
from interp.hooks import HookFunction, HookPoint
from interp.model import MLP, Block, Transformer, capped
from interp.names import block_name
from interp.processing import uncapped


def relevance_hooks(model: Transformer) -> dict[str, HookFunction]:
    """By hook point: what leaves a run's values as they are and makes its slopes relevance's."""
    hooks: dict[str, HookFunction] = {name: _hold for name in model.hook_points if _is_held(name)}
    for layer in range(model.config.n_layers):
        mlp = cast(Block, model.blocks[layer]).mlp
        if mlp is not None:
            hooks |= _neurons(mlp, layer)
    return hooks


def _is_held(name: str) -> bool:
    """What norms of the stream divide by, and patterns, behind which queries and keys need nothing more."""
    return name.endswith("attn.hook_pattern") or (name.endswith("hook_scale") and ".attn." not in name)


def _hold(value: Tensor, hook: HookPoint) -> Tensor:
    return value.detach()


def _neurons(mlp: MLP, layer: int) -> dict[str, HookFunction]:
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: HookPoint) -> None:
        seen[hook.name] = value

    def linear(value: Tensor, hook: HookPoint) -> Tensor:
        active = through_zero(mlp.activation, seen.pop(before))
        if mlp.gate is None:
            return active
        other = seen.pop(beside)
        both = active * other.detach() + active.detach() * other
        return value.detach() + (both - both.detach()) / 2

    before, beside, after = (block_name(layer, f"mlp.hook_{point}") for point in ("pre", "pre_linear", "post"))
    hooks: dict[str, HookFunction] = {before: keep, after: linear}
    return hooks if mlp.gate is None else hooks | {beside: keep}


def through_zero(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The values of a function that is 0 at 0, with the slope of the line from there to each; at 0, which is the limit, with its own."""
    at = x.detach()
    value = function(at)
    zero = torch.zeros((), dtype=at.dtype, device=at.device, requires_grad=True)
    (own,) = torch.autograd.grad(function(zero), zero)
    return value + (x - at) * torch.where(at == 0, own, value / at)


def relevance_readout(model: Transformer, readout: MetricReadout) -> tuple[Transformer, MetricReadout]:
    """The same metrics behind a soft cap that is linear; and the model whose logits are not capped yet."""
    cap = model.config.logit_cap
    if cap is None:
        return model, readout

    def behind(metric: Metric, logits: Tensor, prompts: Tensor, truth: Truth) -> Tensor:
        return metric.of(through_zero(lambda x: capped(x, cap), logits), prompts, truth)

    metrics = [replace(metric, of=partial(behind, metric)) for metric in readout.metrics]
    return uncapped(model), replace(readout, metrics=metrics)
