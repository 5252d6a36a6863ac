"""The streams of clean runs, which disturbances are measured against."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from analyses.set_apart import SetApart, set_apart
from interp.errors import InterpError
from interp.finite import not_finite
from interp.model import Transformer
from interp.modes import ordinary
from interp.streams import streams
from interp.sweep.tangents import Linearised
from interp.tokenizer import PAD
from interp.whole_numbers import whole_number


@dataclass(frozen=True, eq=False)
class Clean:
    """Runs that nothing disturbs.

    Args:
        tokens: [prompt, position], padded at the end.
        entering: the stream at each layer, see `interp.streams`.
        apart: positions that are neither disturbed nor counted.
    """

    model: Transformer
    tokens: Int[Tensor, "prompt position"]
    entering: Sequence[Float[Tensor, "prompt position d_model"]]
    apart: SetApart

    @classmethod
    def of(cls, model: Transformer, tokens: Int[Tensor, "prompt position"]) -> "Clean":
        """Raises ResultError where a stream is not finite, see `clean_streams`."""
        entering = clean_streams(model, tokens)
        return cls(model, tokens, entering, set_apart(model, tokens, entering))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each prompt."""
        lengths: list[int] = (self.tokens != PAD).sum(1).tolist()
        return lengths

    @property
    def kept(self) -> Tensor:
        """[prompt, position], the tokens that are not set apart."""
        return (self.tokens != PAD) & ~self.apart.mask

    def linearised(self, prompt: int, length: int | None = None) -> Linearised:
        """Derivatives at a prompt, or at its first tokens."""
        stop = self.lengths[prompt] if length is None else length
        return Linearised(self.model, [stream[prompt, :stop] for stream in self.entering])

    def check_some_are_left(self, who: str) -> None:
        """Raises InterpError for a prompt whose tokens are all set apart."""
        for prompt, some in enumerate(self.kept.any(1).tolist()):
            if not some:
                raise InterpError(
                    f"{who}: prompt {prompt} has no position left to disturb. Set apart is position 0, since {self.apart.why(prompt, 0)}. "
                    "Give a longer prompt."
                )

    def position(self, prompt: int, position: int, who: str) -> int:
        """A position that may be disturbed, counted from the start.

        Raises:
            InterpError: one that is not there, or is set apart.
        """
        length, position = self.lengths[prompt], whole_number(position, f"{who}: position", InterpError)
        if not -length <= position < length:
            raise InterpError(f"{who}: position {position} is not one of 0 to {length - 1} (or -{length} to -1).")
        at = position % length
        if bool(self.apart.mask[prompt, at]):
            left = self.kept[prompt].nonzero()[:, 0].tolist()
            instead = f"choose another, for example {left[-1]}" if left else "give a longer prompt"
            raise InterpError(
                f"{who}: position {position} of prompt {prompt} is set apart, since {self.apart.why(prompt, at)}; {instead}."
            )
        return at


def precise(model: Transformer) -> Transformer:
    """The model itself, or a copy in float32 of one in half precision, whose rounding would drown small growth."""
    return copied(model, torch.float32) if model.dtype in (torch.float16, torch.bfloat16) else model


def copied(model: Transformer, dtype: torch.dtype) -> Transformer:
    """A copy in another dtype, of ordinary tensors also in `torch.inference_mode`."""
    with ordinary():
        weights = {
            id(one): nn.Parameter(one.detach().to(dtype, copy=True), requires_grad=one.requires_grad)
            for one in model.parameters()
        }
        return deepcopy(model, weights).to(dtype)  # converted as they are copied: no second copy as they were


def clean_streams(
    model: Transformer, tokens: Int[Tensor, "batch position"]
) -> list[Float[Tensor, "batch position d_model"]]:
    """As `interp.streams.streams`. Raises ResultError where one holds NaN or an infinity at a token: comparisons with NaN are all false, so
    that a disturbance of such a stream would seem to vanish or to stay within every bound."""
    found, real = streams(model, tokens), tokens != PAD
    if not all(bool(torch.isfinite(stream[real]).all()) for stream in found):
        raise not_finite(model, tokens, "cascade: the stream of the clean run")
    return found
