"""What a lens says at every step of the residual stream, as labelled arrays."""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.answers import Tokens
from analyses.intervals import over_prompts
from analyses.lenses.vocabulary import Predicted, divergence, predict, ranks
from analyses.results import Variable, array, make, token_strings
from interp.errors import TokenError
from interp.metrics import pick
from interp.model import Transformer
from interp.tokenizer import PAD
from interp.whole_numbers import Wholes, one_or_several, whole_numbers

LARGEST = 25 * 2**20
"""Bytes of the log-probabilities read at once; as many again are those of the output. The allocator gives blocks below 32 MB out again."""

Decode = Callable[[int, Float[Tensor, "place d_model"]], Float[Tensor, "place d_model"]]
"""From the number of a step and its stream to what is unembedded."""


def read_steps(
    kind: str,
    model: Transformer,
    tokens: Int[Tensor, "prompt position"],
    steps: Mapping[str, Float[Tensor, "prompt position d_model"]],
    layers: Sequence[float],
    decode: Decode,
    *,
    top_k: int | None,
    candidates: Tokens,
    positions: Wholes | None,
    centred: bool,
    parameters: Mapping[str, Any],
) -> xr.Dataset:
    """The Dataset of a lens; see `analyses.logit_lens` for what is in it.

    Args:
        kind: of the result.
        steps: the stream at each step, the last the model's own final one.
        layers: the number of each step.
    """
    top_k = kept_tokens(model, top_k, kind)
    chosen = candidate_ids(model, candidates)
    positions = None if positions is None else whole_numbers(positions, f"{kind}: a position")
    at = chosen_positions(tokens, positions, kind)
    there = at >= 0
    prompt, column = there.nonzero().T
    place = at[prompt, column]
    following = torch.cat([tokens, torch.full_like(tokens[:, :1], PAD)], 1)[prompt, place + 1]
    followed = there.clone()
    followed[prompt, column] = following != PAD
    streams = list(steps.values())
    parts = [
        _read_part(model, streams, decode, prompt[part], place[part], following[part], chosen, top_k)
        for part in _parts(model, len(place))
    ]
    values = {}
    for name in parts[0]:
        read = torch.cat([part[name] for part in parts], dim=1)  # [step, place, ...]
        blank = torch.nan if read.is_floating_point() else PAD
        values[name] = read.new_full((len(tokens), len(steps), at.shape[1], *read.shape[2:]), blank)
        values[name][prompt, :, column] = read.transpose(0, 1)
    if centred:
        for name in ("top_logit", "candidate_logit"):
            values[name] -= values["mean_logit"][..., None]
    numbers = torch.tensor(list(layers), dtype=torch.float64)
    predicted = values["top_id"][:, -1, :, 0] != PAD
    stands = numbers[_stands_from(values["top_id"][..., 0]).cpu()].masked_fill(~predicted.cpu(), torch.nan)
    ids = array(torch.where(there, tokens.gather(1, at.clamp(min=0)), PAD))
    by = ("prompt", "layer", "position")
    logit = "logit less its mean over the vocabulary" if centred else "logit"
    top_id = array(values["top_id"])
    variables: dict[str, Variable] = {
        "stands_from": (("prompt", "position"), stands, "lowest layer from which on the final prediction leads", "1"),
        "top_id": ((*by, "top"), top_id, "most probable tokens", "1"),
        "top_token": ((*by, "top"), token_strings(model, top_id), "most probable tokens", "1"),
        "top_probability": ((*by, "top"), values["top_probability"], "probability", "1"),
        "top_logit": ((*by, "top"), values["top_logit"], logit, "logits"),
        "entropy": (by, values["entropy"], "entropy of the next token", "nats"),
        "kl": (by, values["kl"], "KL(final || layer)", "nats"),
        "final_rank": (by, values["final_rank"], "rank of the final prediction, 0 the most probable", "1"),
        "cross_entropy": (by, values["cross_entropy"], "cross-entropy of the true next token", "nats"),
        "candidate_logit": ((*by, "candidate"), values["candidate_logit"], logit, "logits"),
        "candidate_log_probability": (
            (*by, "candidate"),
            values["candidate_log_probability"],
            "log-probability",
            "nats",
        ),
        "candidate_rank": ((*by, "candidate"), values["candidate_rank"], "rank, 0 the most probable", "1"),
    }
    coords: dict[Hashable, Any] = {
        "token": (("prompt", "position"), token_strings(model, ids)),
        "token_id": (("prompt", "position"), ids),
        "layer": np.array(layers),
        "step": (("layer",), np.array(list(steps), dtype=object)),
        "position": np.arange(tokens.shape[1]) if positions is None else np.array(positions, dtype=int),
        "candidate": token_strings(model, array(chosen)),
    }
    if len(tokens) > 1:
        for name in ("kl", "entropy", "cross_entropy"):
            by_prompt = _mean(values[name], followed if name == "cross_entropy" else there).cpu().double().numpy()
            variables |= over_prompts(f"mean_{name}", by_prompt, ("layer",), f"{name}, mean over positions", "nats")
        coords["bound"] = ["lower", "upper"]
    return make(
        kind,
        variables,
        coords,
        model=model,
        prompts={"prompt": tokens},
        parameters={
            "top_k": top_k,
            "candidates": token_strings(model, array(chosen)).tolist(),
            "positions": positions,
            "centred": centred,
            **parameters,
        },
    )


def kept_tokens(model: Transformer, top_k: int | None, who: str, default: int = 5) -> int:
    """How many of the leading tokens to keep; None is the default, or all of a smaller vocabulary. Raises TokenError for a number of tokens
    that there are not."""
    if top_k is None:
        return min(default, model.config.d_vocab)
    if not 1 <= top_k <= model.config.d_vocab:
        raise TokenError(f"{who}: top_k must be between 1 and {model.config.d_vocab}, got {top_k}.")
    return top_k


def candidate_ids(model: Transformer, candidates: Tokens) -> Int[Tensor, " candidate"]:
    """The ids of tokens given as texts or ids. Raises TokenError for a text of several tokens, or an id out of range."""
    given = [candidates] if isinstance(candidates, str) else one_or_several(candidates, "a candidate")
    return torch.tensor([model.to_single_token(token) for token in given], dtype=torch.long, device=model.device)


def chosen_positions(
    tokens: Int[Tensor, "prompt position"], positions: Sequence[int] | None, who: str
) -> Int[Tensor, "prompt chosen"]:
    """The absolute positions of each prompt that are asked for (None: all); -1 where a shorter prompt has none.

    Raises TokenError for a position that a prompt does not have.
    """
    lengths = (tokens != PAD).sum(1)
    if positions is None:
        grid = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        return torch.where(grid < lengths[:, None], grid, -1)
    shortest = int(lengths.min())
    for position in positions:
        if not -shortest <= position < shortest:
            raise TokenError(f"{who}: position {position} is out of range; the shortest prompt has {shortest} tokens.")
    if not positions:
        raise TokenError(f"{who}: the list of positions is empty. Pass None for all of them.")
    given = torch.tensor(list(positions), device=tokens.device).expand(len(tokens), -1)
    return torch.where(given < 0, given + lengths[:, None], given)


def _parts(model: Transformer, places: int) -> Iterator[slice]:
    """Slices of about equal size whose log-probabilities stay within `LARGEST`."""
    size = math.ceil(places / math.ceil(places / _most(model)))
    for start in range(0, places, size):
        yield slice(start, min(start + size, places))


def _most(model: Transformer) -> int:
    return max(1, LARGEST // (model.config.d_vocab * model.W_E.element_size()))


def _read_part(
    model: Transformer,
    streams: Sequence[Float[Tensor, "prompt position d_model"]],
    decode: Decode,
    rows: Int[Tensor, " place"],
    positions: Int[Tensor, " place"],
    following: Int[Tensor, " place"],
    chosen: Int[Tensor, " candidate"],
    top_k: int,
) -> dict[str, Float[Tensor, "step place ..."] | Int[Tensor, "step place ..."]]:
    """All steps at some places: the output first, which the others are compared with; of few places, several steps at a time."""
    output = predict(model, decode(len(streams) - 1, streams[-1][rows, positions]))
    leading = output.log_p.argmax(-1).masked_fill(output.log_p[:, 0].isnan(), PAD)
    together = max(1, _most(model) // len(leading))
    read = []
    for start in range(0, len(streams) - 1, together):
        numbers = range(start, min(start + together, len(streams) - 1))
        normed = torch.cat([decode(number, streams[number][rows, positions]) for number in numbers])
        read.append(_boil_down(predict(model, normed), output.log_p, leading, following, chosen, top_k))
    read.append(_boil_down(output, output.log_p, leading, following, chosen, top_k))
    return {name: torch.cat([one[name] for one in read]) for name in read[0]}


def _boil_down(
    found: Predicted,
    final: Float[Tensor, "place vocab"],
    leading: Int[Tensor, " place"],
    following: Int[Tensor, " place"],
    chosen: Int[Tensor, " candidate"],
    top_k: int,
) -> dict[str, Tensor]:
    """What is kept of the distributions of some steps at some places, [step, place, ...]."""
    log_p, shift = found.log_p, found.normaliser[:, None]
    by_step = (len(log_p) // len(final), len(final))
    top, at_candidates = log_p.topk(top_k, dim=-1), log_p[:, chosen]
    aim = leading.repeat(by_step[0])
    candidates = [ranks(log_p, token.expand(len(log_p))) for token in chosen]
    after = following.repeat(by_step[0])
    rows = {
        "top_id": top.indices.masked_fill(top.values.isnan(), PAD),
        "top_probability": top.values.exp(),
        "top_logit": top.values + shift,
        "entropy": found.entropy,
        "mean_logit": found.mean_logit,
        "final_rank": ranks(log_p, aim.clamp(min=0)).masked_fill_(aim == PAD, torch.nan),
        "cross_entropy": -pick(log_p, after.clamp(min=0)).masked_fill(after == PAD, torch.nan),
        "candidate_logit": at_candidates + shift,
        "candidate_log_probability": at_candidates,
        "candidate_rank": torch.stack(candidates, -1) if candidates else log_p.new_empty((len(log_p), 0)),
        "kl": divergence(final, log_p.reshape(*by_step, -1)).flatten(),
    }
    return {name: value.reshape(*by_step, *value.shape[1:]) for name, value in rows.items()}


def _mean(
    values: Float[Tensor, "prompt step position"], there: Bool[Tensor, "prompt position"]
) -> Float[Tensor, "prompt step"]:
    """Over some positions of each prompt; NaN where there are none, or where one of them is NaN."""
    total: Tensor = values.masked_fill(~there[:, None], 0.0).sum(-1)
    return total / there.sum(-1)[:, None]


def _stands_from(top: Int[Tensor, "prompt step position"]) -> Int[Tensor, "prompt position"]:
    """The first step of the last unbroken stretch on which the top token is the final one."""
    other = top != top[:, -1:]
    last_other = other.flip(1).to(torch.int8).argmax(1)  # steps from the end to the nearest that differs
    return torch.where(other.any(1), top.shape[1] - last_other, 0)
