"""Values that are no numbers: where a run makes the first one."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from interp.errors import ResultError
from interp.hooks import HookPoint
from interp.tokenizer import PAD

SCORES, COSTLY = "attn.hook_attn_scores", "attn.hook_result"
"""Scores of keys that a query may not see are minus infinity by right; of results there are many, which no later value reads alone."""

LARGEST = 2**24
"""Pairs of a query and a key beyond which scores and patterns are not looked at: what is wrong with them shows in what the heads read."""


@runtime_checkable
class Runs(Protocol):
    """What is needed of a model."""

    hook_points: dict[str, HookPoint]
    ln_final: Any

    def hooks(self, functions: Any) -> AbstractContextManager[None]: ...

    def check_tokens(self, tokens: Tensor) -> Tensor | None: ...

    def embed(self, tokens: Tensor) -> Tensor: ...

    def run_blocks(self, residual: Tensor, *, real: Tensor | None = None) -> Tensor: ...

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]: ...


def not_finite(model: Any, tokens: Tensor, what: str, *, residual: Tensor | None = None) -> ResultError:
    """The error to raise where a run has given NaN or an infinity. It names the first hook point that holds one, and the weights that do.

    Args:
        tokens: [batch, position], of the run; PAD stands where a shorter row has no token.
        what: the operation, and which of its results is no number.
        residual: the stream that entered block 0, where that was not the embedding of the tokens.
    """
    found = first_not_finite(model, tokens, residual)
    where = (
        "every hook point holds numbers, so it is what is computed from the last of them" if found is None else found
    )
    weights = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    blamed = (
        f" Weights that are not finite: {', '.join(weights[:3])}{', ...' if len(weights) > 3 else ''}."
        if weights
        else ""
    )
    fix = (
        "Mend them, or load the model again."
        if weights
        else "Half precision overflows where float32 does not, and float32 where float64 does not; load in a wider one, or look there."
    )
    return ResultError(f"{what} is not finite. The first value that is not: {where}.{blamed} {fix}")


@torch.no_grad()
def first_not_finite(model: Runs, tokens: Tensor, residual: Tensor | None = None) -> str | None:
    """The first hook point, in the order of the forward pass, whose value at a token holds NaN or an infinity, and where; None where none
    does. The rows are run again, with whatever hooks are attached."""
    real = tokens != PAD
    found: list[str] = []

    def look(value: Tensor, hook: HookPoint) -> None:
        if found:
            return
        wrong = ~torch.isfinite(value)
        if hook.name.endswith(SCORES):
            wrong &= ~value.isneginf()
        by_position = wrong.transpose(1, 2) if "key" in hook.axes else wrong
        rows, positions = (by_position.flatten(2).any(2) & real).nonzero(as_tuple=True)
        if len(rows):
            row = f" of prompt {int(rows[0])}" if len(tokens) > 1 else ""
            found.append(f"{hook.name}, at position {int(positions[0])}{row}")

    def wanted(name: str) -> bool:
        attention = "key" in model.hook_points[name].axes
        large = attention and tokens.numel() * tokens.shape[1] > LARGEST
        return not (large or name.endswith(COSTLY)) and (residual is None or name.startswith(("blocks.", "ln_final")))

    with model.hooks([(wanted, look)]):
        entering = model.embed(tokens) if residual is None else residual
        model.ln_final(model.run_blocks(entering, real=model.check_tokens(tokens)))
    return found[0] if found else None
