"""What a sweep reads of each row: at the top only the positions and vocabulary columns that are asked for, or the stream on its way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model import Transformer


@runtime_checkable
class Readout(Protocol):
    """What is read of a run."""

    def positions(self, length: int) -> Sequence[int]:
        """The positions, of a prompt of that length, whose final stream is read; as many for prompts of every length."""

    def read(
        self,
        model: Transformer,
        normed: Float[Tensor, "row read d_model"],
        prompts: Int[Tensor, " row"],
    ) -> Tensor:
        """A value [row, ...] for each row, from its final stream after the final norm; `prompts` says which prompt each row runs."""


class AtLast:
    """Reads the last position."""

    def positions(self, length: int) -> Sequence[int]:
        return [length - 1]


@dataclass(frozen=True, eq=False)
class Logits(AtLast):
    """The logits at the last position: [row, vocab].

    Args:
        tokens: [prompt, k], columns to read for each prompt; then [row, k] and nothing else is unembedded.
    """

    tokens: Int[Tensor, "prompt k"] | None = None

    def read(
        self, model: Transformer, normed: Float[Tensor, "row read d_model"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, "row k"]:
        if self.tokens is None:
            return model.to_logits(normed)[:, 0]
        ids = self.tokens.to(prompts.device)[prompts]
        wide = torch.promote_types(normed.dtype, torch.float32)
        products = (model.W_U.mT[ids].to(wide) @ normed[:, 0, :, None].to(wide))[..., 0]
        return model.finished_logits(products if model.b_U is None else products + model.b_U[ids])


@dataclass(frozen=True, eq=False)
class OfLogits(AtLast):
    """A function of the logits at the last position.

    Args:
        function: from logits [row, vocab] and the prompt of each row [row] to values [row, ...].
    """

    function: Callable[[Tensor, Tensor], Tensor]

    def read(
        self, model: Transformer, normed: Float[Tensor, "row read d_model"], prompts: Int[Tensor, " row"]
    ) -> Tensor:
        return self.function(model.to_logits(normed)[:, 0], prompts)


@dataclass(frozen=True, eq=False)
class LogitDifference(AtLast):
    """Logit of the answer minus that of a wrong answer, at the last position: [row].

    Args:
        answer, wrong: [prompt], token ids.
    """

    answer: Int[Tensor, " prompt"]
    wrong: Int[Tensor, " prompt"]

    def read(
        self, model: Transformer, normed: Float[Tensor, "row read d_model"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        both = Logits(torch.stack([self.answer, self.wrong], dim=1)).read(model, normed, prompts)
        return both[:, 0] - both[:, 1]


@dataclass(frozen=True, eq=False)
class EachLayer:
    """Reads the stream that enters each block, and the one that leaves the last: [row, layer, position, ...].

    Where a row differs from the base run in nothing that it depends on, nothing is computed and the base run is read. NaN stands
    beyond the end of a shorter prompt. Nothing is unembedded, so a change at the final norm would not be seen and is an error.

    Args:
        measure: from the stream [place, d_model] of some places and that of the base run there to values [place, ...]; of the base run
            itself, both are the same.
    """

    measure: Callable[[Tensor, Tensor], Tensor]
