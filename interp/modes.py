"""Torch's modes: what a user has switched off around a call does not change what it computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from interp.errors import InterpError

_transforms = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
"""What of `torch.func` is under way, where this torch says so; else nothing is written over."""


def may_reuse() -> bool:
    """Whether a run may write over a tensor of its own that nobody needs again: no gradient is recorded, and no transform of
    `torch.func` is under way, in which a factor may stand for many, so that the product would not fit."""
    return not torch.is_grad_enabled() and _transforms is not None and _transforms() is None


@contextmanager
def ordinary() -> Iterator[None]:
    """Within the block, also in `torch.inference_mode`, ordinary tensors are made; gradients stay on or off as they are.

    Inference tensors do not count their changes, and gradients can never go through them.
    """
    on = torch.is_grad_enabled()
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(on),
    ):  # leaving inference mode by itself switches gradients on
        yield


@contextmanager
def recording(who: str) -> Iterator[None]:
    """Within the block gradients are recorded, whatever is switched off around it.

    Raises:
        InterpError: the user's own tensors, such as weights, were made in inference mode, so that no gradient goes through them.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    except RuntimeError as error:
        if "Inference tensors cannot be saved for backward" not in str(error):
            raise
        raise InterpError(
            f"{who}: gradients cannot go through tensors that were made in torch.inference_mode(), such as weights or a vector of yours. "
            "Make them outside of it, or clone() them there."
        ) from error


def as_ordinary(tensor: Tensor) -> Tensor:
    """The tensor itself, or an ordinary copy of an inference tensor."""
    if not tensor.is_inference():
        return tensor
    with ordinary():
        return tensor.clone()
