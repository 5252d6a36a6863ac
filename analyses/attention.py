"""Attention patterns: where every head looks from every position."""

import numpy as np
import torch
import xarray as xr

from analyses.results import make, token_coords
from interp.model import Transformer
from interp.prompts import Prompt
from interp.tokenizer import PAD


@torch.no_grad()
def attention_patterns(model: Transformer, prompt: Prompt, *, bos: bool | None = None) -> xr.Dataset:
    """Every head's attention pattern (Vaswani et al. 2017, section 3.2.1).

    Args:
        prompt: a text, several texts, or token ids.
        bos: see `Transformer.to_tokens`.

    Returns:
        A Dataset with `pattern` (prompt, layer, head, query, key): the share of a query's attention that a key gets.
        Each row sums to 1 over keys, and is 0 for keys after the query; padding is NaN. The tokens are coordinates along
        query and key.

    Raises:
        TokenError: a prompt that the model cannot take.
    """
    tokens = model.to_tokens(prompt, bos=bos)
    with model.capture("blocks.*.attn.hook_pattern") as patterns:
        model.run_blocks(model.embed(tokens), real=model.check_tokens(tokens))
    pattern = torch.stack(list(patterns.values()), dim=1)  # [prompt, layer, head, query, key]
    padding = tokens == PAD
    pattern = pattern.masked_fill(padding[:, None, None, :, None] | padding[:, None, None, None, :], torch.nan)
    positions = np.arange(tokens.shape[1])
    return make(
        "attention_patterns",
        {"pattern": (("prompt", "layer", "head", "query", "key"), pattern, "attention", "1")},
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
