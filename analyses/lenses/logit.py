"""The logit lens (nostalgebraist 2020): the residual stream at each half step through the final norm and the unembedding."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.intervals import over_prompts
from analyses.results import Variable, array, make, token_coords, token_strings
from interp.errors import TokenError
from interp.metrics import entropy, kl_divergence, log_probabilities, pick, rank
from interp.model import Transformer
from interp.prompts import Prompt
from interp.streams import half_steps
from interp.tokenizer import PAD

LARGEST = 288 * 2**20
"""Bytes of logits, and of what is made of them, at once."""


@torch.no_grad()
def logit_lens(
    model: Transformer, prompt: Prompt, *, top_k: int = 5, candidates: Sequence[str] = (), bos: bool | None = None
) -> xr.Dataset:
    """What the model would predict if everything above a half step of the residual stream were left out.

    The stream after the embedding, after each attention and after each MLP goes through the final norm and the unembedding. The
    vocabulary is streamed over: logits of a few thousand places at most are held at once.

    Args:
        prompt: a text, several texts, or token ids.
        top_k: how many of the most probable tokens to keep.
        candidates: single tokens whose rank and log-probability to follow.
        bos: see `Transformer.to_tokens`.

    Returns:
        A Dataset. Dims: prompt; layer; position; top; candidate. Layer l is the stream entering block l, l + 0.5 that after its
        attention, and the last the model's own output; `step` names each. Variables: `top_id`, `top_token`, `top_probability`; `entropy`
        (nats); `kl`, KL(final || layer) in nats; `cross_entropy` of the true next token (nats, NaN at the last position);
        `candidate_log_probability` (nats) and `candidate_rank` (0 is the top). Padding is NaN, -1 or "". `stands_from` (prompt, position):
        the lowest layer from which on the model's prediction leads. With several prompts `mean_kl`, `mean_entropy` and `mean_cross_entropy`
        over positions, (layer), with standard error and interval over prompts.

    Raises:
        TokenError: a prompt that the model cannot take; a candidate of several tokens; `top_k` out of range.
    """
    if not 1 <= top_k <= model.config.d_vocab:
        raise TokenError(f"logit_lens: top_k must be between 1 and {model.config.d_vocab}, got {top_k}.")
    tokens = model.to_tokens(prompt, bos=bos)
    chosen = torch.tensor([model.to_single_token(c) for c in candidates], dtype=torch.long, device=model.device)
    steps = half_steps(model, tokens)
    numbers = [0.0, *((1 + at) / (len(steps) - 1) * model.config.n_layers for at in range(len(steps) - 1))]
    flat = [stream.flatten(0, 1) for stream in steps.values()]  # [place, d_model], all prompts' positions in a row
    following = tokens.roll(-1, dims=1).clamp(min=0).flatten()
    pieces = []
    for part in _parts(model, len(following)):
        final = log_probabilities(model.unembed(flat[-1][None, part])[0])
        rows = [
            _read(log_probabilities(model.unembed(stream[None, part])[0]), final, following[part], chosen, top_k)
            for stream in flat
        ]
        pieces.append({name: torch.stack([row[name] for row in rows]) for name in rows[0]})  # [step, place, ...]
    shape = (len(flat), *tokens.shape)
    whole = {name: torch.cat([piece[name] for piece in pieces], 1) for name in pieces[0]}
    values = {name: value.reshape(*shape, *value.shape[2:]).transpose(0, 1) for name, value in whole.items()}
    values["cross_entropy"] = values["cross_entropy"].masked_fill(_ends(tokens)[:, None], torch.nan)
    real = (tokens != PAD)[:, None]
    at = ("prompt", "layer", "position")
    values = {name: _blank(value, real) for name, value in values.items()}
    top_id = array(values["top_id"])
    stands = torch.tensor(numbers, dtype=torch.float64)[_stands_from(values["top_id"][..., 0]).cpu()]
    means: dict[str, Variable] = {}
    if len(tokens) > 1:
        for name in ("kl", "entropy", "cross_entropy"):
            by_prompt = values[name].nanmean(-1).cpu().double().numpy()
            means |= over_prompts(f"mean_{name}", by_prompt, ("layer",), f"{name}, mean over positions", "nats")
    return make(
        "logit_lens",
        {
            "stands_from": (
                ("prompt", "position"),
                stands.masked_fill(~real[:, 0].cpu(), torch.nan),
                "lowest layer from which on the final prediction leads",
                "1",
            ),
            **means,
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
            "layer": np.array(numbers),
            "step": (("layer",), np.array(list(steps), dtype=object)),
            **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
            "position": np.arange(tokens.shape[1]),
            "candidate": np.array(list(candidates), dtype=object),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={"top_k": top_k, "candidates": list(candidates), "bos": bos},
    )


def _parts(model: Transformer, places: int) -> Iterator[slice]:
    """Slices of about equal size whose logits, and the handful of temporaries as large, stay within `LARGEST`.

    Equal, since large blocks go back to the system while an odd smaller one would be kept and split by the allocator.
    """
    most = max(1, LARGEST // (6 * model.config.d_vocab * 4))
    size = math.ceil(places / math.ceil(places / most))
    for start in range(0, places, size):
        yield slice(start, min(start + size, places))


def _read(
    log_p: Float[Tensor, "place vocab"],
    final: Float[Tensor, "place vocab"],
    following: Int[Tensor, " place"],
    chosen: Int[Tensor, " candidate"],
    top_k: int,
) -> dict[str, Tensor]:
    """One step's distributions at some places, boiled down before the next are made."""
    top = log_p.topk(top_k, dim=-1)
    ranks = [rank(log_p, token.expand(len(log_p))) for token in chosen]
    return {
        "top_id": top.indices,
        "top_probability": top.values.exp(),
        "entropy": entropy(log_p),
        "kl": kl_divergence(final, log_p),
        "cross_entropy": -pick(log_p, following),
        "candidate_log_probability": log_p[..., chosen],
        "candidate_rank": torch.stack(ranks, -1) if ranks else following.new_empty((len(log_p), 0)),
    }


def _ends(tokens: Int[Tensor, "prompt position"]) -> Bool[Tensor, "prompt position"]:
    """Where no token follows."""
    ends = tokens.roll(-1, dims=1) == PAD
    ends[:, -1] = True
    return ends


def _stands_from(top: Int[Tensor, "prompt step position"]) -> Int[Tensor, "prompt position"]:
    """The first step of the last unbroken stretch on which the top token is the final one."""
    other = top != top[:, -1:]
    last_other = other.flip(1).to(torch.int8).argmax(1)  # steps from the end to the nearest that differs
    return torch.where(other.any(1), top.shape[1] - last_other, 0)


def _blank(values: Tensor, real: Tensor) -> Tensor:
    """Padding is no number: NaN, or PAD in a whole-number array."""
    mask = real.reshape(real.shape + (1,) * (values.ndim - real.ndim)).expand(values.shape)
    return values.masked_fill(~mask, torch.nan if values.is_floating_point() else PAD)
