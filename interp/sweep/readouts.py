"""What a sweep reads of each row: at the top only the positions and vocabulary columns that are asked for, or the stream on its way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import HookError, TokenError, check_function
from interp.model import Transformer
from interp.prompts import as_ids, listed, rows_of_ids
from interp.whole_numbers import is_one, whole_number, whole_numbers

Position = int | np.integer[Any] | Sequence[int] | np.ndarray | Tensor
"""A position, counted from the end of its prompt where negative; one for all prompts, or one for each."""


@runtime_checkable
class Readout(Protocol):
    """What is read of a run."""

    def positions(self, length: int, prompt: int) -> Sequence[int]:
        """The positions, of the prompt of that number and length, whose final stream is read; as many for every prompt."""

    def read(
        self,
        model: Transformer,
        normed: Float[Tensor, "row read d_model"],
        prompts: Int[Tensor, " row"],
    ) -> Tensor:
        """A value [row, ...] for each row, from its final stream after the final norm; `prompts` says which prompt each row runs."""


def given_position(position: Any, who: str) -> int | list[int]:
    """A position, or one for each prompt, as plain numbers. Raises TokenError for anything else."""
    one = is_one(position) and not isinstance(position, str)
    try:
        return whole_number(position, f"{who}: position") if one else whole_numbers(position, f"{who}: position")
    except TypeError:
        raise TokenError(
            f"{who}: position must be a whole number, negative from the end, or one for each prompt; got {position!r}."
        ) from None


def positions_of(position: Position, lengths: Sequence[int], who: str) -> list[int]:
    """The absolute position in each prompt. Raises TokenError where a prompt has none there, or there is not one for each."""
    given = given_position(position, who)
    each = [given] * len(lengths) if isinstance(given, int) else given
    if len(each) != len(lengths):
        raise TokenError(f"{who}: {len(each)} positions for {len(lengths)} prompts; give one, or one for each.")
    for number, (at, length) in enumerate(zip(each, lengths, strict=True)):
        if not -length <= at < length:
            raise TokenError(
                f"{who}: position {at} is out of range: prompt {number} has {length} tokens, so positions 0 to {length - 1}, or -1 to "
                f"-{length} from its end."
            )
    return [at % length for at, length in zip(each, lengths, strict=True)]


@dataclass(frozen=True, eq=False, kw_only=True)
class AtPosition:
    """Reads one position of each prompt.

    Args:
        position: which; the default is the last.
    """

    position: Position = -1

    def __post_init__(self) -> None:
        """Raises TokenError for what is no position."""
        object.__setattr__(self, "position", given_position(self.position, "readout"))

    def positions(self, length: int, prompt: int) -> Sequence[int]:
        given = cast(int | list[int], self.position)
        if not isinstance(given, int):
            if prompt >= len(given):
                raise TokenError(f"readout: {len(given)} positions, but there is a prompt {prompt}; give one for each.")
            given = given[prompt]
        return positions_of(given, [length], f"readout of prompt {prompt}")


@dataclass(frozen=True, eq=False)
class Logits(AtPosition):
    """The logits at a position: [row, vocab].

    Args:
        tokens: [prompt, k], columns to read for each prompt; then [row, k] and nothing else is unembedded.
    """

    tokens: Int[Tensor, "prompt k"] | None = None

    def __post_init__(self) -> None:
        """Raises TokenError for what are no rows of ids."""
        super().__post_init__()
        if self.tokens is not None:
            given = as_ids(rows_of_ids(listed(self.tokens)))
            if given.ndim != 2 or given.numel() == 0:
                raise TokenError(f"readout: tokens must be ids [prompt, k], got shape {tuple(given.shape)}.")
            object.__setattr__(self, "tokens", given)

    def read(
        self, model: Transformer, normed: Float[Tensor, "row read d_model"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, "row k"]:
        if self.tokens is None:
            return model.to_logits(normed)[:, 0]
        ids = self._of(model, prompts)
        wide = torch.promote_types(normed.dtype, torch.float32)
        products = (model.W_U.mT[ids].to(wide) @ normed[:, 0, :, None].to(wide))[..., 0]
        return model.finished_logits(products if model.b_U is None else products + model.b_U[ids])

    def _of(self, model: Transformer, prompts: Int[Tensor, " row"]) -> Int[Tensor, "row k"]:
        """The columns to read of each row. Raises TokenError for ids that the model does not have, or no ids for a prompt."""
        assert self.tokens is not None
        low, high = (int(end) for end in torch.aminmax(self.tokens))
        if low < 0 or high >= model.config.d_vocab:
            wrong = low if low < 0 else high
            raise TokenError(
                f"readout: token id {wrong} is out of range: {model.name} has ids 0 to {model.config.d_vocab - 1}."
            )
        if len(prompts) and int(prompts.max()) >= len(self.tokens):
            raise TokenError(
                f"readout: {len(self.tokens)} rows of ids, but there is a prompt {int(prompts.max())}; give one for each."
            )
        return self.tokens.to(prompts.device)[prompts]


@dataclass(frozen=True, eq=False)
class OfLogits(AtPosition):
    """A function of the logits at a position.

    Args:
        function: from logits [row, vocab] and the prompt of each row [row] to values [row, ...].
    """

    function: Callable[[Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        """Raises HookError for what is no function, and TokenError for what is no position."""
        super().__post_init__()
        check_function(self.function, "readout: what is read of the logits")

    def read(
        self, model: Transformer, normed: Float[Tensor, "row read d_model"], prompts: Int[Tensor, " row"]
    ) -> Tensor:
        return self.function(model.to_logits(normed)[:, 0], prompts)


@dataclass(frozen=True, eq=False)
class LogitDifference(AtPosition):
    """Logit of the answer minus that of a wrong answer, at a position: [row].

    Args:
        answer, wrong: [prompt], token ids.
    """

    answer: Int[Tensor, " prompt"]
    wrong: Int[Tensor, " prompt"]

    def __post_init__(self) -> None:
        """Raises TokenError for what are no ids, or not as many of both."""
        super().__post_init__()
        for name in ("answer", "wrong"):
            ids = whole_numbers(getattr(self, name), f"readout: an id of {name}")
            object.__setattr__(self, name, torch.tensor(ids, dtype=torch.long))
        if len(self.answer) != len(self.wrong):
            raise TokenError(f"readout: {len(self.answer)} answers and {len(self.wrong)} wrong ones; give as many.")

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

    def __post_init__(self) -> None:
        """Raises HookError for what is no function."""
        check_function(self.measure, "readout: what is measured at each layer")


def read(readout: Readout, model: Transformer, normed: Tensor, prompts: Tensor) -> Tensor:
    """What a readout reads of some rows. Raises HookError for what is no value of each."""
    return _of_each(readout.read(model, normed, prompts), len(normed), "readout", "row")


def measured(readout: EachLayer, stream: Tensor, before: Tensor) -> Tensor:
    """What a readout measures at some places. Raises HookError for what is no value of each."""
    return _of_each(readout.measure(stream, before), len(stream), "readout of each layer", "place")


def _of_each(values: Any, count: int, what: str, of: str) -> Tensor:
    if not isinstance(values, Tensor) or values.ndim == 0 or len(values) != count:
        found = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise HookError(f"sweep: a {what} must give a tensor with a value for each {of}, of {count}; it gave {found}.")
    return values
