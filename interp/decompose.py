"""The residual stream as a sum of what each part of the model wrote into it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.cache import ActivationCache
from interp.errors import ConfigError
from interp.model import Transformer
from interp.names import block_name
from interp.norms import Norm


@dataclass(frozen=True)
class Decomposition:
    """Parts that sum to a stream.

    Args:
        labels: what wrote each part: `embed`, `pos_embed`, `3.attn` or heads `3.0`, `3.1`, ... with `3.attn_bias`, `3.mlp`.
        parts: what they wrote.
    """

    labels: tuple[str, ...]
    parts: Float[Tensor, "component batch position d_model"]


def needed(model: Transformer, *, heads: bool) -> list[str]:
    """The hook points that `decompose` reads from the cache."""
    config = model.config
    names = ["hook_embed", *(["hook_pos_embed"] if config.has_position_embedding else [])]
    for layer in range(config.n_layers):
        names.append(block_name(layer, "attn.hook_result" if heads else "hook_attn_out"))
        if config.mlp != "none":
            names.append(block_name(layer, "hook_mlp_out"))
    return names


def check_sum(model: Transformer, who: str) -> None:
    """Raises ConfigError for a post-norm model."""
    if not model.config.is_sum:
        raise ConfigError(
            f"{who}: a post-norm model rescales its stream after each addition, so it is no sum of parts."
        )


def decompose(
    model: Transformer, cache: ActivationCache, *, layer: int | None = None, heads: bool = False
) -> Decomposition:
    """Split the stream that enters a layer into what the embeddings, attention layers (or heads) and MLPs added to it.

    Args:
        cache: of a run, with the hook points that `needed` names.
        layer: up to which layer; None is all, the stream that leaves the last block.
        heads: each head by itself, and the attention layers' output biases as parts of their own.

    Raises:
        ConfigError: a post-norm model, whose stream is no sum of its parts, or a layer out of range.
        HookError: the cache lacks a value.
    """
    config = model.config
    check_sum(model, "decompose")
    stop = config.n_layers if layer is None else layer
    if not 0 <= stop <= config.n_layers:
        raise ConfigError(f"decompose: layer {stop} is out of range 0 to {config.n_layers}.")
    parts: dict[str, Tensor] = {"embed": cache["hook_embed"]}
    if config.has_position_embedding:
        parts["pos_embed"] = cache["hook_pos_embed"]
    for number in range(stop):
        if heads:
            result = cache[block_name(number, "attn.hook_result")]  # [batch, position, head, d_model]
            parts |= {f"{number}.{head}": result[:, :, head] for head in range(config.n_heads)}
            if config.has_out_bias:
                bias = model.get_parameter(block_name(number, "attn.o.bias"))
                parts[f"{number}.attn_bias"] = bias.expand_as(cache["hook_embed"])
        else:
            parts[f"{number}.attn"] = cache[block_name(number, "hook_attn_out")]
        if config.mlp != "none":
            parts[f"{number}.mlp"] = cache[block_name(number, "hook_mlp_out")]
    return Decomposition(tuple(parts), torch.stack(list(parts.values())))


def frozen_norm(
    norm: Norm, part: Float[Tensor, "*part batch position d_model"], scale: Float[Tensor, "batch position 1"]
) -> Float[Tensor, "*part batch position d_model"]:
    """A norm applied to a part of the stream with the scale of the whole: linear, so that parts sum as the stream does.

    The norm's bias belongs to no part and is left out: the parts sum to the normed stream minus `norm.bias`.

    Assumes that the scale stays what it was; a change of the part large enough to move the scale is not seen.

    Args:
        scale: cached at the norm's `hook_scale` in the run that the part comes from.
    """
    centred = part - part.mean(-1, keepdim=True) if norm.centres else part
    return centred / scale * norm.weight
