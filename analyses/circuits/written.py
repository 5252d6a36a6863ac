"""What every source writes into the stream, in some runs or on average."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.circuits.edges import Source
from analyses.patching.replacements import values_of
from interp.decompose import frozen_norm
from interp.generation import left_aligned
from interp.model import Block, Transformer
from interp.names import block_name
from interp.norms import Norm
from interp.tokenizer import PAD


class Written:
    """What sources write in runs of some prompts, which are made when it is first asked for.

    A head writes its share of what attention adds to the stream, without output bias; behind a norm on what attention writes, at the
    scale that the whole has in that run.

    Args:
        at: a position of each prompt.
    """

    def __init__(self, model: Transformer, tokens: Int[Tensor, "prompt position"], at: Sequence[int]) -> None:
        self.model, self._tokens, self._at = model, tokens, at
        self._run: tuple[Mapping[str, Tensor], Tensor] | None = None

    def take(self, values: Mapping[str, Tensor], normed: Float[Tensor, "prompt one d_model"]) -> None:
        """Another run of the same prompts was made anyway: its values at the hook points that are needed, and its final stream."""
        if self._run is None:
            self._run = {name: values[name].detach() for name in needed(self.model)}, normed.detach()

    def _made(self) -> tuple[Mapping[str, Tensor], Tensor]:
        if self._run is None:
            self._run = values_of(self.model, self._tokens, None, needed(self.model), self._at)
        return self._run

    @property
    def _values(self) -> Mapping[str, Tensor]:
        return self._made()[0]

    @property
    def normed(self) -> Float[Tensor, "prompt one d_model"]:
        """The final stream at that position after the final norm."""
        return self._made()[1]

    def by(self, source: Source) -> Float[Tensor, "prompt position d_model"]:
        """One source."""
        if source.layer is None:
            return self._values[block_name(0, "hook_resid_pre")]
        if source.head is None:
            return self._values[block_name(source.layer, "hook_mlp_out")]
        block = cast(Block, self.model.blocks[source.layer])
        result = self.read(source.layer)[:, :, source.head] @ self.output(source.layer)[source.head]
        norm = block.ln1_post
        if not isinstance(norm, Norm):
            return result
        return frozen_norm(norm, result, self._values[block_name(source.layer, "ln1_post.hook_scale")]).to(result.dtype)

    @property
    def is_linear(self) -> bool:
        """Whether what a head writes is a linear function of what it reads: no norm stands between."""
        return "output" not in self.model.config.norms

    def read(self, layer: int) -> Float[Tensor, "prompt position head d_head"]:
        """What the heads of a layer read."""
        return self._values[block_name(layer, "attn.hook_z")]

    def output(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """What their output maps make of that."""
        return cast(Block, self.model.blocks[layer]).attn.W_O


def needed(model: Transformer) -> list[str]:
    """The hook points from which all that is written is known."""
    config = model.config
    points = ["attn.hook_z", *(["ln1_post.hook_scale"] if "output" in config.norms else [])]
    points += [] if config.mlp == "none" else ["hook_mlp_out"]
    every = [block_name(layer, point) for layer in range(config.n_layers) for point in points]
    return [block_name(0, "hook_resid_pre"), *every]


def bytes_per_token(model: Transformer) -> int:
    """What is kept of a run for each of its tokens."""
    config = model.config
    per_layer = config.n_heads * config.d_head + config.d_model
    return (config.n_layers * per_layer + 2 * config.d_model) * model.W_E.element_size()


def averages(
    model: Transformer,
    reference: Int[Tensor, "prompt position"],
    sources: Sequence[Source],
    by_position: bool,
    max_bytes: int,
) -> dict[str, Float[Tensor, "either d_model"]]:
    """The mean of what each source writes over reference prompts: of all positions together [1, d_model], or of each by itself, over the
    prompts that reach there."""
    reference = left_aligned(reference)
    size = max(1, max_bytes // (bytes_per_token(model) * reference.shape[1]))
    sums: dict[str, Tensor] = {}
    for tokens in torch.split(reference, size):
        runs, real = Written(model, tokens, [0] * len(tokens)), (tokens != PAD)[:, :, None]
        for source in sources:
            total = runs.by(source).masked_fill(~real, 0.0).sum(0)
            sums[source.name] = sums.get(source.name, 0.0) + (total if by_position else total.sum(0, keepdim=True))
    count = (reference != PAD).sum(0)[:, None]
    return {name: total / (count if by_position else count.sum()) for name, total in sums.items()}
