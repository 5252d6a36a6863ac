"""The lens on what a single part of the model writes: attention layers, MLPs, heads (Elhage et al. 2021, "direct path" to the logits)."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.answers import Tokens
from analyses.lenses.reading import candidate_ids, chosen_positions, kept_tokens
from analyses.results import Variable, array, make, token_strings
from interp.decompose import check_sum, decompose, frozen_norm, needed
from interp.factored import at_least_float32
from interp.generation import left_aligned
from interp.model import Transformer
from interp.norms import Norm
from interp.prompts import Prompt
from interp.tokenizer import PAD
from interp.whole_numbers import Wholes, takes_whole, whole_numbers

LARGEST = 64 * 2**20
"""Bytes of logits at once."""


@torch.no_grad()
@takes_whole("top_k")
def component_lens(
    model: Transformer,
    prompt: Prompt,
    *,
    heads: bool = False,
    top_k: int | None = None,
    candidates: Tokens = (),
    positions: Wholes | None = None,
    centred: bool = True,
    bos: bool | None = None,
) -> xr.Dataset:
    """Which tokens each part of the model writes for and against, at each position.

    What a part wrote goes through the final norm with the scale of the whole stream, then the unembedding: linear, so that over all parts,
    with the norm's and the unembedding's bias, the logits are summed to. It is the direct effect alone; what later layers make of a
    part is not seen.

    Args:
        prompt: a text, several texts, or token ids.
        heads: each head by itself, in place of whole attention layers.
        top_k: how many tokens to keep at either end; None is 5, or all of a smaller vocabulary.
        candidates: single tokens, or ids, whose logit to split.
        positions: which to read, counted from the end of each prompt where negative; None is all.
        centred: less the mean over the vocabulary, which changes no probability; else raw.
        bos: see `Transformer.to_tokens`.

    Returns:
        A Dataset over prompt, component (`embed`, `pos_embed`, `L.attn` or heads `L.H` and `L.attn_bias`, `L.mlp`) and position:
        `top_id`, `top_token` and `top_logit` (top), what is written for most; `bottom_id`, `bottom_token` and `bottom_logit`, against;
        `candidate_logit` (candidate). By prompt and position, `candidate_rest`, what the biases add to each candidate.

    Raises:
        ConfigError: a post-norm model, whose stream is no sum of parts.
        TokenError: a prompt that the model cannot take; a candidate of several tokens; `top_k` or a position out of range.
    """
    check_sum(model, "component_lens")
    top_k = kept_tokens(model, top_k, "component_lens")
    chosen = candidate_ids(model, candidates)
    tokens = left_aligned(model.to_tokens(prompt, bos=bos))
    positions = None if positions is None else whole_numbers(positions, "component_lens: a position")
    at = chosen_positions(tokens, positions, "component_lens")
    row, column = (at >= 0).nonzero().T
    place = at[row, column]
    parts, labels, bias = _parts(model, tokens, heads, row, place)
    found = [_read(model, part, chosen, top_k, centred) for part in torch.split(parts, _most(model), dim=1)]
    values: dict[str, Tensor] = {}
    for name in found[0]:
        read = torch.cat([one[name] for one in found], dim=1)  # [component, place, ...]
        blank = torch.nan if read.is_floating_point() else PAD
        values[name] = read.new_full((len(tokens), len(labels), at.shape[1], *read.shape[2:]), blank)
        values[name][row, :, column] = read.transpose(0, 1)
    rest = (
        _contribution(model, bias[None], centred)[0, chosen]
        if bias is not None
        else values["top_logit"].new_zeros(len(chosen))
    )
    if model.b_U is not None:
        rest = rest + model.b_U[chosen] - (model.b_U.mean() if centred else 0)
    ids = array(torch.where(at >= 0, tokens.gather(1, at.clamp(min=0)), PAD))
    by = ("prompt", "component", "position")
    variables: dict[str, Variable] = {}
    for end, meaning in (("top", "tokens written for most"), ("bottom", "tokens written against most")):
        end_ids = array(values[f"{end}_id"])
        variables[f"{end}_id"] = ((*by, "top"), end_ids, meaning, "1")
        variables[f"{end}_token"] = ((*by, "top"), token_strings(model, end_ids), meaning, "1")
        variables[f"{end}_logit"] = ((*by, "top"), values[f"{end}_logit"], "written into the logit", "logits")
    variables["candidate_logit"] = ((*by, "candidate"), values["candidate_logit"], "written into the logit", "logits")
    variables["candidate_rest"] = (("candidate",), rest, "what the biases add", "logits")
    coords: dict[Hashable, Any] = {
        "token": (("prompt", "position"), token_strings(model, ids)),
        "token_id": (("prompt", "position"), ids),
        "component": np.array(labels, dtype=object),
        "position": np.arange(tokens.shape[1]) if positions is None else np.array(positions, dtype=int),
        "candidate": token_strings(model, array(chosen)),
    }
    parameters = {
        "heads": heads,
        "top_k": top_k,
        "candidates": token_strings(model, array(chosen)).tolist(),
        "centred": centred,
        "bos": bos,
    }
    parameters["positions"] = positions
    return make("component_lens", variables, coords, model=model, prompts={"prompt": tokens}, parameters=parameters)


def _parts(
    model: Transformer, tokens: Tensor, heads: bool, row: Tensor, place: Tensor
) -> tuple[Float[Tensor, "component place d_model"], tuple[str, ...], Float[Tensor, " d_model"] | None]:
    """What each part writes, normed by the scale of the whole, at the chosen places; and the norm's bias, which belongs to none."""
    names = needed(model, heads=heads)
    norm = model.ln_final if isinstance(model.ln_final, Norm) else None
    _, cache = model.run_with_cache(tokens, [*names, "ln_final.hook_scale"] if norm is not None else names)
    split = decompose(model, cache, heads=heads)
    there = split.parts[:, row, place]
    if norm is None:
        return there, split.labels, None
    scale = cache["ln_final.hook_scale"][row, place]
    return frozen_norm(norm, there[:, None], scale[None])[:, 0], split.labels, norm.bias


def _contribution(
    model: Transformer, part: Float[Tensor, "*rows d_model"], centred: bool
) -> Float[Tensor, "*rows vocab"]:
    logits = at_least_float32(part) @ at_least_float32(model.W_U)
    return logits - logits.mean(-1, keepdim=True) if centred else logits


def _read(
    model: Transformer, part: Float[Tensor, "component place d_model"], chosen: Tensor, top_k: int, centred: bool
) -> dict[str, Tensor]:
    """Boiled down one component at a time."""
    read: dict[str, list[Tensor]] = {}
    for one in part:
        logits = _contribution(model, one, centred)
        top, bottom = logits.topk(top_k, dim=-1), logits.topk(top_k, dim=-1, largest=False)
        for name, value in (
            ("top_id", top.indices.masked_fill(top.values.isnan(), PAD)),
            ("top_logit", top.values),
            ("bottom_id", bottom.indices.masked_fill(bottom.values.isnan(), PAD)),
            ("bottom_logit", bottom.values),
            ("candidate_logit", logits[:, chosen]),
        ):
            read.setdefault(name, []).append(value)
    return {name: torch.stack(values) for name, values in read.items()}


def _most(model: Transformer) -> int:
    return max(1, LARGEST // (4 * model.config.d_vocab))
