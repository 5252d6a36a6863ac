"""Gradients of a metric at hook points, beside the activations."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from interp.cache import ActivationCache
from interp.errors import HookError
from interp.model import Transformer
from interp.modes import as_ordinary, recording
from interp.names import Selection
from interp.prompts import as_ids

Metric = Callable[[Float[Tensor, "batch position vocab"]], Float[Tensor, ""]]


def gradients(
    model: Transformer, tokens: Integer[Tensor, "batch position"], metric: Metric, names: Selection = None
) -> tuple[Float[Tensor, ""], ActivationCache, ActivationCache]:
    """A metric of the logits, the activations at the named hook points, and the metric's gradient at each.

    The parameters are left as they are: they need no gradients and get none (`.grad` stays untouched). Gradients are recorded also where
    they are switched off around the call (`torch.no_grad`, `torch.inference_mode`).

    Args:
        metric: from logits to one number; rows of a batch are summed over by summing in the metric.
        names: glob, list or predicate; None is all hook points.

    Raises:
        HookError: a selection that misses, or a metric that is no single number or has no gradient. InterpError: weights made in
            inference mode.

    Example:
        >>> value, cache, grads = interp.gradients(model, tokens, lambda logits: logits[0, -1, answer])
        >>> attribution = (grads["z", 3] * cache["z", 3]).sum(-1)
    """
    with recording("gradients"):
        with model.capture(names, with_gradients=True) as values:
            result: Any = metric(model(as_ordinary(as_ids(tokens))))
        if not isinstance(result, Tensor) or result.numel() != 1:
            found = (
                f"shape {tuple(result.shape)}"
                if isinstance(result, Tensor)
                else f"no tensor but {type(result).__name__}"
            )
            raise HookError(f"gradients: the metric must return one number, got {found}.")
        if not result.requires_grad:
            raise HookError(
                "gradients: the metric's number does not depend on the logits by operations that have a gradient."
            )
        slopes = torch.autograd.grad(
            result.reshape(()), list(values.values()), allow_unused=True, materialize_grads=True
        )
    axes = {name: point.axes for name, point in model.hook_points.items() if name in values}
    by_name = dict(zip(values, slopes, strict=True))
    cache = ActivationCache({name: values[name].detach() for name in axes}, axes)
    return result.detach().reshape(()), cache, ActivationCache({name: by_name[name] for name in axes}, axes)
