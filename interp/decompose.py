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
from interp.whole_numbers import takes_whole


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
        if heads and "output" in config.norms:
            names.append(block_name(layer, "ln1_post.hook_scale"))
        if config.mlp != "none":
            names.append(block_name(layer, "hook_mlp_out"))
    return names


def check_sum(model: Transformer, who: str) -> None:
    """Raises ConfigError for a post-norm model."""
    if not model.config.is_sum:
        raise ConfigError(
            f"{who}: a post-norm model rescales its stream after each addition, so it is no sum of parts."
        )


@takes_whole("layer")
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
            written, bias = written_by_heads(model, cache, number)
            parts |= {f"{number}.{head}": written[:, :, head] for head in range(config.n_heads)}
            if bias is not None:
                parts[f"{number}.attn_bias"] = bias.expand_as(cache["hook_embed"])
        else:
            parts[f"{number}.attn"] = cache[block_name(number, "hook_attn_out")]
        if config.mlp != "none":
            parts[f"{number}.mlp"] = cache[block_name(number, "hook_mlp_out")]
    return Decomposition(tuple(parts), torch.stack(list(parts.values())))


def written_by_heads(
    model: Transformer, cache: ActivationCache, layer: int
) -> tuple[Float[Tensor, "batch position head d_model"], Float[Tensor, "#batch #position d_model"] | None]:
    """What each head of a layer adds to the stream, and what none of them but their biases add; None where there is no bias.

    Where a norm stands on what attention writes, each head has its share of it, at the scale of the whole (`frozen_norm`).
    """
    result = cache[block_name(layer, "attn.hook_result")]
    bias = model.get_parameter(block_name(layer, "attn.o.bias")) if model.config.has_out_bias else None
    if "output" not in model.config.norms:
        return result, None if bias is None else bias[None, None]
    norm, scale = model.get_submodule(block_name(layer, "ln1_post")), cache[block_name(layer, "ln1_post.hook_scale")]
    assert isinstance(norm, Norm)
    each = frozen_norm(norm, result, scale[:, :, None])
    shared = None if bias is None else frozen_norm(norm, bias[None, None], scale)
    if norm.bias is not None:
        shared = norm.bias[None, None] if shared is None else shared + norm.bias
    return each, shared


def reader_of(
    norm: torch.nn.Module, reader: Float[Tensor, "*rows d_model"], scale: Tensor | None
) -> Float[Tensor, "*rows d_model"]:
    """The vector whose product with what enters a norm is the reader's with what `frozen_norm` gives out; itself where there is none.

    Args:
        scale: [..., 1], of the norm in that run.
    """
    if not isinstance(norm, Norm) or scale is None:
        return reader
    weighted = reader * norm.weight
    centred: Tensor = (weighted - weighted.mean(-1, keepdim=True) if norm.centres else weighted) / scale
    return centred


def frozen_norm(
    norm: Norm, part: Float[Tensor, "*part d_model"], scale: Float[Tensor, "*place 1"]
) -> Float[Tensor, "*whole d_model"]:
    """A norm applied to a part of the stream with the scale of the whole: linear, so that parts sum as the stream does.

    The norm's bias belongs to no part and is left out: the parts sum to the normed stream minus `norm.bias`.

    Assumes that the scale stays what it was; a change of the part large enough to move the scale is not seen.

    Args:
        scale: cached at the norm's `hook_scale` in the run that the part comes from.
    """
    centred = part - part.mean(-1, keepdim=True) if norm.centres else part
    return centred / scale * norm.weight
