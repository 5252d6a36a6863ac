"""Which heads do what is known of heads: scores of attention against masks (Olsson et al. 2022, arXiv 2209.11895)."""

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.attention.patterns import repeated, summarised
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.model import Transformer
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

MASKS = {
    "previous_token": "attention on the token before",
    "duplicate_token": "attention on earlier occurrences of the token",
    "induction": "attention on what followed earlier occurrences of the token",
    "current_token": "attention on the token itself",
    "first_token": "attention on the first token, a sink",
}

SHAPE = {
    "entropy": ("entropy of the attention", "nats"),
    "distance": ("mean distance attended over", "tokens"),
}
"""What else is said of each head: how spread its attention is, and how far it looks."""


@torch.no_grad()
@takes_whole("length", "count", "seed")
def detect_heads(
    model: Transformer,
    prompt: Prompt | None = None,
    *,
    masks: Mapping[str, Bool[Tensor, "query key"]] | None = None,
    length: int | None = None,
    count: int = 10,
    seed: int = 0,
    bos: bool | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """How much of each head's attention does what the five classic kinds of head do.

    A score is the attention that falls on a kind's keys, mean over the queries that have any: 1 is a head that does nothing else. A
    score says where a head looks, not what it writes.

    Args:
        prompt: the user's own text; None is `count` sequences of random tokens, each twice over, on which only copying helps.
        masks: further patterns by name, True where a query's attention counts; each [query, key] and as long as the prompt.
        length: of the repeated string; None is 100, or half the context.
        count, seed: of the random sequences.
        bos: see `Transformer.to_tokens`; for `prompt` only.
        progress: show a progress bar on standard error.

    Returns:
        A Dataset over (prompt, layer, head): `previous_token`, `duplicate_token`, `induction`, `current_token`, `first_token`, and the
        user's own, NaN where no query has such a key; `entropy` (nats) and `distance` (tokens) of the attention. With several prompts or
        sequences also mean, standard error and interval.

    Raises:
        InterpError: a mask of another size, or with a name that is taken; a length that the context or vocabulary does not hold.
        TokenError: a prompt that the model cannot take.
    """
    tokens = (
        _sequences(model, length, count, seed) if prompt is None else left_aligned(model.to_tokens(prompt, bos=bos))
    )
    if masks is not None and not (
        isinstance(masks, Mapping) and all(isinstance(mask, Tensor) for mask in masks.values())
    ):
        raise InterpError(f"detect_heads: masks must be tensors of truth values by name, got {str(masks)[:60]}.")
    own = dict(masks or {})
    for name, mask in own.items():
        if name in (*MASKS, *SHAPE) or tuple(mask.shape) != (tokens.shape[1],) * 2:
            raise InterpError(
                f"detect_heads: mask {name!r} has shape {tuple(mask.shape)}; expected {(tokens.shape[1],) * 2}, and a name that is not "
                f"one of {', '.join((*MASKS, *SHAPE))}."
            )
    with progress_bar(progress) as bar:
        found = [_scores(model, row[row != PAD], own) for row in bar.track(tokens, description="scoring heads")]
    described = {name: (long_name, "1") for name, long_name in MASKS.items()} | SHAPE
    described |= {name: (f"attention where {name} counts it", "1") for name in own}
    variables: dict[str, Variable] = {}
    for name, about in described.items():
        values = torch.stack([scores[name] for scores in found]).cpu().double().numpy()
        variables[name] = (("prompt", "layer", "head"), values, *about)
        if len(tokens) > 1:
            variables |= over_prompts(name, values, ("layer", "head"), *about)
    return make(
        "head_detectors",
        variables,
        {
            "layer": np.arange(model.config.n_layers),
            "head": np.arange(model.config.n_heads),
            **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
            **token_coords(model, tokens),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={"random": prompt is None, "masks": list(own), "length": length, "count": count, "bos": bos},
        seed=seed if prompt is None else None,
    )


def _sequences(model: Transformer, length: int | None, count: int, seed: int) -> Int[Tensor, "count position"]:
    longest = min((model.config.n_ctx - 1) // 2, len(model.ordinary_ids()))
    length = min(100, longest) if length is None else length
    if not 2 <= length <= longest or count < 1:
        raise InterpError(
            f"detect_heads: {count} sequences of {length} different tokens twice over; {model.name} takes lengths 2 to {longest}."
        )
    return repeated(model, length, count, seed)


def _scores(
    model: Transformer, tokens: Int[Tensor, " position"], own: Mapping[str, Tensor]
) -> dict[str, Float[Tensor, "layer head"]]:
    """The scores of one sequence, layer by layer: one layer's patterns are held at a time."""
    wanted = _masks(tokens) | {name: mask[: len(tokens), : len(tokens)].to(tokens.device) for name, mask in own.items()}
    scores: dict[str, list[Tensor]] = {name: [] for name in (*wanted, *SHAPE)}
    real = torch.ones_like(tokens[None], dtype=torch.bool)
    residual = model.embed(tokens[None])
    for layer in range(model.config.n_layers):
        with model.capture(f"blocks.{layer}.attn.hook_pattern") as values:
            residual = model.run_blocks(residual, start_at_layer=layer, stop_at_layer=layer + 1)
        (pattern,) = values.values()
        for name, mask in wanted.items():
            queries = mask.any(1)
            on_mask = (pattern[0] * mask).sum(-1)[:, queries]  # [head, query]
            scores[name].append(on_mask.mean(-1))
        shape = summarised(pattern[:, None], real)
        for name in SHAPE:
            scores[name].append(shape[name][0][0, 0])
    return {name: torch.stack(by_layer) for name, by_layer in scores.items()}


def _masks(tokens: Int[Tensor, " position"]) -> dict[str, Bool[Tensor, "query key"]]:
    at = torch.arange(len(tokens), device=tokens.device)
    query, key = at[:, None], at[None]
    same = tokens[:, None] == tokens[None]
    followed = torch.zeros_like(same)
    followed[:, 1:] = same[:, :-1] & (key[:, 1:] <= query)  # key j where token j - 1 is the query's
    return {
        "previous_token": key == query - 1,
        "duplicate_token": same & (key < query),
        "induction": followed,
        "current_token": key == query,
        "first_token": (key == 0) & (query > 0),
    }
