"""The residual stream at every layer."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.model import Transformer
from interp.names import block_name

MAX_BYTES = 256 * 2**20
"""Default bound on the memory of the widest activation of a chunk of rows."""


@torch.no_grad()
def streams(model: Transformer, tokens: Int[Tensor, "batch position"]) -> list[Float[Tensor, "batch position d_model"]]:
    """The residual stream that enters each block, and after them the one that leaves the last: n_layers + 1 tensors."""
    return streams_from(model, model.embed(tokens), 0, model.check_tokens(tokens))


@torch.no_grad()
def streams_from(
    model: Transformer,
    residual: Float[Tensor, "batch position d_model"],
    layer: int,
    real: Bool[Tensor, "batch position"] | None = None,
) -> list[Float[Tensor, "batch position d_model"]]:
    """As `streams`, from a stream that enters `layer`, which is the first of the list."""
    n_layers = model.config.n_layers
    names = [block_name(above, "hook_resid_pre") for above in range(layer, n_layers)]
    with model.capture([*names, block_name(n_layers - 1, "hook_resid_post")]) as values:
        model.run_blocks(residual, start_at_layer=layer, real=real)
    return list(values.values())


@torch.no_grad()
def half_steps(
    model: Transformer, tokens: Int[Tensor, "batch position"]
) -> dict[str, Float[Tensor, "batch position d_model"]]:
    """The stream after the embedding (`embed`) and after each half of each block: `0.attn`, `0.mlp`, `1.attn`, ..."""
    names = {"embed": block_name(0, "hook_resid_pre")}
    for layer in range(model.config.n_layers):
        if model.config.mlp != "none":
            names[f"{layer}.attn"] = block_name(layer, "hook_resid_mid")
        last = "attn" if model.config.mlp == "none" else "mlp"
        names[f"{layer}.{last}"] = block_name(layer, "hook_resid_post")
    with model.capture(list(names.values())) as values:
        model.run_blocks(model.embed(tokens), real=model.check_tokens(tokens))
    return {label: values[name] for label, name in names.items()}


def chunks(model: Transformer, rows: int, positions: int, max_bytes: int = MAX_BYTES) -> Iterator[slice]:
    """Consecutive slices of rows whose widest activation stays within `max_bytes` (always at least one row)."""
    width = max(model.config.d_mlp, 3 * model.config.n_heads * model.config.d_head)
    size = max(1, max_bytes // (positions * width * model.W_E.element_size()))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
