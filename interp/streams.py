"""The residual stream at every layer."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.config import ModelConfig
from interp.model import Transformer
from interp.names import block_name


@torch.no_grad()
def streams(model: Transformer, tokens: Int[Tensor, "batch position"]) -> list[Float[Tensor, "batch position d_model"]]:
    """The residual stream that enters each block, and after them the one that leaves the last: n_layers + 1 tensors."""
    n_layers = model.config.n_layers
    names = [block_name(layer, "hook_resid_pre") for layer in range(n_layers)]
    return _captured(model, tokens, [*names, block_name(n_layers - 1, "hook_resid_post")])


@torch.no_grad()
def half_steps(
    model: Transformer, tokens: Int[Tensor, "batch position"]
) -> dict[str, Float[Tensor, "batch position d_model"]]:
    """The stream after the embedding (`embed`) and after each half of each block: `0.attn`, `0.mlp`, `1.attn`, ...; after each whole
    block, `0.block`, where attention and MLP stand side by side."""
    names = {"embed": block_name(0, "hook_resid_pre")}
    for layer in range(model.config.n_layers):
        if model.config.has_two_halves:
            names[f"{layer}.attn"] = block_name(layer, "hook_resid_mid")
        names[after_block(model.config, layer)] = block_name(layer, "hook_resid_post")
    return dict(zip(names, _captured(model, tokens, list(names.values())), strict=True))


def after_block(config: ModelConfig, layer: int) -> str:
    """What the stream that leaves a block is called among half steps."""
    return f"{layer}.{'attn' if config.mlp == 'none' else 'block' if config.parallel else 'mlp'}"


def _captured(model: Transformer, tokens: Tensor, names: list[str]) -> list[Tensor]:
    with model.capture(names) as values:
        model.run_blocks(model.embed(tokens), real=model.check_tokens(tokens))
    return [values[name] for name in names]
