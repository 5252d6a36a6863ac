"""The logit lens (nostalgebraist 2020): each layer's residual stream through the final norm and the unembedding."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.results import array, make, token_coords, token_strings
from interp.errors import TokenError
from interp.metrics import entropy, kl_divergence, log_probabilities, pick, rank
from interp.model import Transformer
from interp.prompts import Prompt
from interp.streams import streams
from interp.tokenizer import PAD


@torch.no_grad()
def logit_lens(
    model: Transformer, prompt: Prompt, *, top_k: int = 5, candidates: Sequence[str] = (), bos: bool | None = None
) -> xr.Dataset:
    """What the model would predict if the blocks above a layer were left out.

    Args:
        prompt: a text, several texts, or token ids.
        top_k: how many of the most probable tokens to keep.
        candidates: single tokens whose rank and log-probability to follow.
        bos: see `Transformer.to_tokens`.

    Returns:
        A Dataset. Dims: prompt; layer 0 to n_layers, the stream entering that block, the last being the model's own
        output; position; top; candidate. Variables: `top_id`, `top_token`, `top_probability`; `entropy` (nats); `kl`,
        KL(final || layer) in nats; `cross_entropy` of the true next token (nats, NaN at the last position);
        `candidate_log_probability` (nats) and `candidate_rank` (0 is the top). Padding is NaN, -1 or "".

    Raises:
        TokenError: a prompt that the model cannot take; a candidate of several tokens; `top_k` out of range.
    """
    if not 1 <= top_k <= model.config.d_vocab:
        raise TokenError(f"logit_lens: top_k must be between 1 and {model.config.d_vocab}, got {top_k}.")
    tokens = model.to_tokens(prompt, bos=bos)
    chosen = torch.tensor([model.to_single_token(c) for c in candidates], dtype=torch.long, device=model.device)
    layers = streams(model, tokens)
    final = log_probabilities(model.unembed(layers[-1]))
    rows = [_read(log_probabilities(model.unembed(stream)), final, tokens, chosen, top_k) for stream in layers]
    real = (tokens != PAD)[:, None]
    at = ("prompt", "layer", "position")
    values = {name: torch.stack([row[name] for row in rows], dim=1) for name in rows[0]}
    values = {name: _blank(value, real) for name, value in values.items()}
    top_id = array(values["top_id"])
    return make(
        "logit_lens",
        {
            "top_id": ((*at, "top"), top_id, "most probable tokens", "1"),
            "top_token": ((*at, "top"), token_strings(model, top_id), "most probable tokens", "1"),
            "top_probability": ((*at, "top"), values["top_probability"], "probability", "1"),
            "entropy": (at, values["entropy"], "entropy of the next token", "nats"),
            "kl": (at, values["kl"], "KL(final || layer)", "nats"),
            "cross_entropy": (at, values["cross_entropy"], "cross-entropy of the true next token", "nats"),
            "candidate_log_probability": (
                (*at, "candidate"),
                values["candidate_log_probability"],
                "log-probability",
                "nats",
            ),
            "candidate_rank": ((*at, "candidate"), values["candidate_rank"], "rank, 0 the most probable", "1"),
        },
        {
            **token_coords(model, tokens),
            "layer": np.arange(model.config.n_layers + 1),
            "position": np.arange(tokens.shape[1]),
            "candidate": np.array(list(candidates), dtype=object),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={"top_k": top_k, "candidates": list(candidates), "bos": bos},
    )


def _read(
    log_p: Float[Tensor, "prompt position vocab"],
    final: Float[Tensor, "prompt position vocab"],
    tokens: Tensor,
    chosen: Tensor,
    top_k: int,
) -> dict[str, Tensor]:
    """One layer's distributions, boiled down before the next layer's are made."""
    top = log_p.topk(top_k, dim=-1)
    following = tokens.roll(-1, dims=1).clamp(min=0)
    cross_entropy = -pick(log_p, following)
    cross_entropy[:, -1] = torch.nan
    cross_entropy[:, :-1].masked_fill_(tokens[:, 1:] == PAD, torch.nan)
    ranks = [rank(log_p, chosen[i].expand(tokens.shape)) for i in range(len(chosen))]
    return {
        "top_id": top.indices,
        "top_probability": top.values.exp(),
        "entropy": entropy(log_p),
        "kl": kl_divergence(final, log_p),
        "cross_entropy": cross_entropy,
        "candidate_log_probability": log_p[..., chosen],
        "candidate_rank": torch.stack(ranks, -1) if ranks else tokens.new_empty((*tokens.shape, 0)),
    }


def _blank(values: Tensor, real: Tensor) -> Tensor:
    """Padding is no number: NaN, or PAD in a whole-number array."""
    mask = real.reshape(real.shape + (1,) * (values.ndim - real.ndim)).expand(values.shape)
    return values.masked_fill(~mask, torch.nan if values.is_floating_point() else PAD)
