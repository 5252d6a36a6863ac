"""Positions that are looked at apart: where BOS stands, and where the stream is massive."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.geometry import seen
from interp.model import Transformer
from interp.tokenizer import PAD

MASSIVE = 10.0
"""A position is massive where its stream is this many times as long as that of the prompt's other positions, at any layer."""


@dataclass(frozen=True, eq=False)
class SetApart:
    """Positions that are left out of means, and neither disturbed nor counted.

    Args:
        mask: [prompt, position].
        bos: whether they are so because BOS stands at position 0.
        massive: [prompt, position], because of their size.
    """

    mask: Bool[Tensor, "prompt position"]
    bos: Bool[Tensor, " prompt"]
    massive: Bool[Tensor, "prompt position"]

    def about(self) -> dict[str, object]:
        """What was chosen and why, for provenance."""
        return {
            "bos": bool(self.bos.any()),
            "massive": sorted({int(position) for position in self.massive.nonzero()[:, 1]}),
            "times_the_median": MASSIVE,
        }

    def kept(self, prompt: int, length: int) -> Bool[Tensor, " position"]:
        """Which positions of a prompt are not."""
        return ~self.mask[prompt, :length]

    def why(self, prompt: int, position: int) -> str:
        """Why a position is, in words."""
        if bool(self.massive[prompt, position]):
            return f"the stream there is more than {MASSIVE:g} times as long as at the other positions"
        return "the beginning-of-text token stands there"


def begins_with_bos(model: Transformer, tokens: Int[Tensor, "prompt position"]) -> Bool[Tensor, " prompt"]:
    """Whether the token that the model was trained to see first stands at position 0."""
    bos = None if model.tokenizer is None else model.tokenizer.bos
    return torch.zeros_like(tokens[:, 0], dtype=torch.bool) if bos is None else tokens[:, 0] == bos


@torch.no_grad()
def set_apart(
    model: Transformer,
    tokens: Int[Tensor, "prompt position"],
    entering: Sequence[Float[Tensor, "prompt position d_model"]],
) -> SetApart:
    """Position 0 where it holds the token that the model was trained to see first, and positions whose stream is massive (Sun et al. 2024,
    arXiv 2402.17762), told by measured size wherever they are.

    Args:
        tokens: padded at the end.
        entering: the stream at each layer, see `interp.streams`.
    """
    real = tokens != PAD
    begins = begins_with_bos(model, tokens)
    massive = torch.zeros_like(real)
    for stream in entering:
        size = seen(model.config, stream.to(torch.promote_types(stream.dtype, torch.float32))).norm(dim=-1)
        for prompt, length in enumerate(real.sum(1).tolist()):
            own = size[prompt, :length]
            for position in (own > MASSIVE * own.median()).nonzero()[:, 0].tolist() if length > 1 else ():
                others = torch.cat([own[:position], own[position + 1 :]]).median()
                massive[prompt, position] |= bool(own[position] > MASSIVE * others)
    mask = massive.clone()
    mask[:, 0] |= begins
    return SetApart(mask, begins, massive)
