"""Attention patterns: where every head looks from every position, and what it takes from there."""

import numpy as np
import torch
import xarray as xr
from einops import einsum, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.results import make, token_coords
from interp.generation import left_aligned
from interp.model import Attention, Transformer
from interp.prompts import Prompt
from interp.tokenizer import PAD

LAYERED = ("prompt", "layer", "head")


@torch.no_grad()
def attention_patterns(model: Transformer, prompt: Prompt, *, bos: bool | None = None) -> xr.Dataset:
    """Every head's attention pattern and scores (Vaswani et al. 2017, section 3.2.1), and what they weigh.

    A large share of attention may rest on a token from which the head takes almost nothing, so beside the pattern stands the pattern
    weighted by the norm of what is moved (Kobayashi et al. 2020, arXiv 2004.10102).

    Args:
        prompt: a text, several texts, or token ids.
        bos: see `Transformer.to_tokens`.

    Returns:
        A Dataset. By (prompt, layer, head, query, key), padding NaN: `pattern`, the share of a query's attention that a key gets, 0 for
        keys after the query where the model is causal; `score`, before the softmax, NaN for keys that cannot be attended to;
        `value_weighted`, the share times the norm of the key's value after the head's output weights. By (prompt, layer, head), means over
        queries: `entropy` (nats), `distance` (tokens between query and key), `on_first` and `on_itself`, the attention on position 0 and on
        the query's own. The tokens are coordinates along query and key.

    Raises:
        TokenError: a prompt that the model cannot take.
    """
    tokens = left_aligned(model.to_tokens(prompt, bos=bos))
    names = ["blocks.*.attn.hook_pattern", "blocks.*.attn.hook_attn_scores", "blocks.*.attn.hook_v"]
    with model.capture(names) as values:
        model.run_blocks(model.embed(tokens), real=model.check_tokens(tokens))
    layers = range(model.config.n_layers)
    pattern, score = (
        torch.stack([values[f"blocks.{layer}.attn.hook_{name}"] for layer in layers], dim=1)
        for name in ("pattern", "attn_scores")
    )  # [prompt, layer, head, query, key]
    moved = torch.stack(
        [value_norms(model, layer, values[f"blocks.{layer}.attn.hook_v"]) for layer in layers], dim=1
    )  # [prompt, layer, head, key]
    real = tokens != PAD
    there = real[:, None, None, :, None] & real[:, None, None, None, :]
    score = score.masked_fill(~there | score.isneginf(), torch.nan)
    pattern = pattern.masked_fill(~there, torch.nan)
    positions = np.arange(tokens.shape[1])
    each = (*LAYERED, "query", "key")
    summaries = {
        name: (LAYERED, value, long, units) for name, (value, long, units) in summarised(pattern, real).items()
    }
    return make(
        "attention_patterns",
        {
            "pattern": (each, pattern, "attention", "1"),
            "score": (each, score, "attention score, before the softmax", "nats"),
            "value_weighted": (each, pattern * moved[..., None, :], "attention times the norm of what it moves", "1"),
            **summaries,
        },
        {
            **token_coords(model, tokens, "query", "query_"),
            **token_coords(model, tokens, "key", "key_"),
            "layer": np.arange(model.config.n_layers),
            "head": np.arange(model.config.n_heads),
            "query": positions,
            "key": positions,
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={"bos": bos},
    )


def value_norms(
    model: Transformer, layer: int, values: Float[Tensor, "prompt position kv_head d_head"]
) -> Float[Tensor, "prompt head position"]:
    """The norm of each value after its head's output weights: what attending there wholly would write."""
    attention = model.get_submodule(f"blocks.{layer}.attn")
    assert isinstance(attention, Attention)
    each = repeat(values, "b p h e -> b p (h g) e", g=model.config.n_heads // model.config.kv_heads)
    gram = attention.W_O @ attention.W_O.mT  # [head, d_head, d_head]
    squared = einsum(each, gram, each, "b p h e, h e f, b p h f -> b h p")
    return squared.clamp(min=0).sqrt()


def summarised(
    pattern: Float[Tensor, "prompt layer head query key"], real: Bool[Tensor, "prompt position"]
) -> dict[str, tuple[Float[Tensor, "prompt layer head"], str, str]]:
    """What a head's pattern is like, mean over real queries: value, long name and units by name. NaN where a real query's pattern is."""
    there = real[:, None, None, :, None] & real[:, None, None, None]
    attention = pattern.masked_fill(~there, 0.0)
    at = torch.arange(pattern.shape[-1], device=pattern.device)
    distance = (at[:, None] - at).abs().to(attention.dtype)

    def mean(by_query: Float[Tensor, "prompt layer head query"]) -> Float[Tensor, "prompt layer head"]:
        return (by_query * real[:, None, None]).sum(-1) / real.sum(1)[:, None, None]

    return {
        "entropy": (mean(-torch.xlogy(attention, attention).sum(-1)), "entropy of the attention", "nats"),
        "distance": (mean((attention * distance).sum(-1)), "mean distance attended over", "tokens"),
        "on_first": (mean(attention[..., 0]), "attention on the first token", "1"),
        "on_itself": (mean(attention.diagonal(dim1=-2, dim2=-1)), "attention on the query's own token", "1"),
    }


def repeated(model: Transformer, length: int, count: int, seed: int) -> Int[Tensor, "count position"]:
    """Sequences of random different tokens, each twice over, behind the BOS token where the model was trained with one.

    Special tokens are left out, and ids without one. Drawn without repetition, so that a token stands at two places exactly.
    """
    usable = torch.tensor(model.ordinary_ids())
    begin = [] if model.tokenizer is None or model.tokenizer.bos is None else [model.tokenizer.bos]
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        drawn = usable[torch.randperm(len(usable), generator=generator)[:length]]
        rows.append(torch.cat([torch.tensor(begin, dtype=torch.long), drawn, drawn]))
    return torch.stack(rows).to(model.device)
