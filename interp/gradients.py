"""Gradients of a metric at hook points, beside the activations."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.cache import ActivationCache
from interp.errors import HookError
from interp.model import Transformer
from interp.names import Selection

Metric = Callable[[Float[Tensor, "batch position vocab"]], Float[Tensor, ""]]


def gradients(
    model: Transformer, tokens: Int[Tensor, "batch position"], metric: Metric, names: Selection = None
) -> tuple[Float[Tensor, ""], ActivationCache, ActivationCache]:
    """A metric of the logits, the activations at the named hook points, and the metric's gradient at each.

    The parameters are left as they are: they need no gradients and get none (`.grad` stays untouched).

    Args:
        metric: from logits to one number; rows of a batch are summed over by summing in the metric.
        names: glob, list or predicate; None is all hook points.

    Raises:
        HookError: a selection that misses, or a metric that is no single number.

    Example:
        >>> value, cache, grads = interp.gradients(model, tokens, lambda logits: logits[0, -1, answer])
        >>> attribution = (grads["z", 3] * cache["z", 3]).sum(-1)
    """
    with torch.enable_grad(), model.capture(names, with_gradients=True) as values:
        result = metric(model(tokens))
    if result.numel() != 1:
        raise HookError(f"gradients: the metric must return one number, got shape {tuple(result.shape)}.")
    found = torch.autograd.grad(result.reshape(()), list(values.values()), allow_unused=True, materialize_grads=True)
    axes = {name: point.axes for name, point in model.hook_points.items() if name in values}
    by_name = dict(zip(values, found, strict=True))
    cache = ActivationCache({name: values[name].detach() for name in axes}, axes)
    return result.detach().reshape(()), cache, ActivationCache({name: by_name[name] for name in axes}, axes)
