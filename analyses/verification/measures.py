"""What is measured of a model to be compared with a reference."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analyses.attribution import direct_logit_attribution
from analyses.patching import activation_patching
from interp.errors import InterpError
from interp.metrics import log_probabilities, rank
from interp.model import Transformer
from interp.processing import fold_value_biases

HEADS = ("direct_attribution", "patching", "induction", "previous_token", "duplicate_token")
"""Figures that each head has."""

SEED = 0
"""Of the random tokens on which attention is scored; the published figures do not say theirs."""

Grid = Float[np.ndarray, "layer head"]


def ioi(model: Transformer, prompts: Sequence[Sequence[str]], *, bos: bool) -> Float[np.ndarray, " prompt"]:
    """Logit differences between each prompt's answer and its wrong answer.

    Args:
        prompts: (prompt, answer, wrong answer), in pairs for each of which the other's answer is the wrong one.
        bos: whether each begins with the beginning-of-text token.
    """
    texts, answers, wrongs = zip(*prompts, strict=True)
    found = direct_logit_attribution(
        model, list(texts), answer=list(answers), wrong=list(wrongs), top_neurons=0, bos=bos
    )
    return np.asarray(found["metric"], dtype=float)


def of_heads(
    model: Transformer, prompts: Sequence[Sequence[str]], random_tokens: Mapping[str, int], *, bos: bool
) -> dict[str, Grid]:
    """Every figure of `HEADS`, for all heads.

    `direct_attribution` is of the mean logit difference, value biases counted with the layer's bias and not with the head. `patching`
    puts the head's output at all positions into the run of the other prompt of the pair: the share of the mean difference that it
    restores. The others are mean attention along a diagonal, on random tokens repeated once, without BOS.
    """
    texts, answers, wrongs = (list(column) for column in zip(*prompts, strict=True))
    folded = fold_value_biases(model) if model.config.has_qkv_bias else model
    direct = direct_logit_attribution(folded, texts, answer=answers, wrong=wrongs, top_neurons=0, bos=bos)[
        "head_effect"
    ]
    others = [texts[number ^ 1] for number in range(len(texts))]
    patched = activation_patching(
        model, texts, others, answer=answers, wrong=wrongs, site="z", smallest_gap=0.0, bos=bos
    )
    clean, corrupt = (patched[name].mean().to_numpy() for name in ("clean_baseline", "corrupt_baseline"))
    with np.errstate(divide="ignore", invalid="ignore"):  # a model to which both are one agrees with nothing
        restored = (patched["value"].mean("prompt").to_numpy() - corrupt) / (clean - corrupt)
    return {
        "direct_attribution": direct.mean("prompt").to_numpy(),
        "patching": restored,
        **diagonals(model, random_tokens),
    }


@torch.no_grad()
def diagonals(model: Transformer, random_tokens: Mapping[str, int]) -> dict[str, Grid]:
    """Mean attention one token back, and to where the token stood before, and to what followed it there."""
    length, rows = random_tokens["length"], random_tokens["sequences"]
    lowest, highest = random_tokens["lowest"], random_tokens["highest"]
    if 2 * length > model.config.n_ctx or highest >= model.config.d_vocab:
        raise InterpError(
            f"verify: the reference scores attention on {2 * length} tokens with ids to {highest}; {model.name} takes "
            f"{model.config.n_ctx} tokens and ids to {model.config.d_vocab - 1}."
        )
    drawn = torch.randint(lowest, highest + 1, (rows, length), generator=torch.Generator().manual_seed(SEED))
    tokens = drawn.repeat(1, 2).to(model.W_E.device)
    with model.capture("blocks.*.attn.hook_pattern") as patterns:
        model(tokens)
    lags = {"induction": length - 1, "previous_token": 1, "duplicate_token": length}
    return {
        name: torch.stack([p.diagonal(-lag, -2, -1).mean((0, -1)) for p in patterns.values()]).cpu().double().numpy()
        for name, lag in lags.items()
    }


@torch.no_grad()
def next_token(model: Transformer, prompt: str, answer: str, *, bos: bool) -> dict[str, Any]:
    """Rank (0 is the top) and probability of a token after a prompt; NaN where the logits are no numbers."""
    log_p = log_probabilities(model(model.to_tokens(prompt, bos=bos))[0, -1])
    token = model.to_single_token(answer)
    return {
        "rank": float(rank(log_p, torch.tensor(token, device=log_p.device))),
        "probability": float(log_p[token].exp()),
    }
