"""The tokens that prompts are asked about."""

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import TokenError
from interp.finite import not_finite
from interp.model import Transformer
from interp.whole_numbers import is_one, one_or_several, whole_number

Tokens = str | SupportsIndex | Sequence[str | SupportsIndex] | np.ndarray | Tensor
"""Text that is one token, or an id; one for all prompts, or one for each, as a list, an array or a tensor."""


def answer_ids(model: Transformer, role: str, given: Tokens, pairs: int, who: str) -> Int[Tensor, " pair"]:
    """The id of each pair's answer. Raises TokenError for several tokens, ids out of range, or not one for each pair."""
    one = isinstance(given, str) or is_one(given)
    tokens = [given] * pairs if one else one_or_several(given, f"{who}: {role}")
    if len(tokens) != pairs:
        raise TokenError(f"{who}: {len(tokens)} values of {role} for {pairs} pairs; give one, or one per pair.")
    ids = [
        model.to_single_token(token) if isinstance(token, str) else whole_number(token, f"{who}: an id of {role}")
        for token in tokens
    ]
    wrong = [i for i in ids if not 0 <= i < model.config.d_vocab]
    if wrong:
        raise TokenError(f"{who}: {role} id {wrong[0]} is out of range: ids are 0 to {model.config.d_vocab - 1}.")
    return torch.tensor(ids, device=model.device)


@torch.no_grad()
def top_predictions(
    model: Transformer, tokens: Int[Tensor, "prompt position"], places: Sequence[int], who: str
) -> list[int]:
    """The most probable token after a position of each prompt. Raises ResultError where the logits there are no numbers."""
    rows = torch.arange(len(tokens), device=tokens.device)
    logits = model(tokens)[rows, torch.tensor(list(places), device=tokens.device)]
    if not bool(torch.isfinite(logits.amax(-1)).all()):
        raise not_finite(model, tokens, f"{who}: the model's prediction")
    predicted: list[int] = logits.argmax(-1).tolist()
    return predicted
