"""The residual stream itself: how long it is, how it grows, which way it turns, and what attention and MLP add to its length."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from analyses.set_apart import set_apart
from interp.generation import left_aligned
from interp.model import Transformer
from interp.prompts import Prompt
from interp.streams import half_steps
from interp.tokenizer import PAD

MASSIVE, TIMES_MEDIAN = 100.0, 1000.0
"""An activation is massive where its size is above the first and above this many times the median size of the stream there, over all
tokens of the prompt (Sun et al. 2024, arXiv 2402.17762, section 2)."""


@torch.no_grad()
def residual_stream(model: Transformer, prompt: Prompt, *, bos: bool | None = None) -> xr.Dataset:
    """Follow the residual stream from the embedding through every half block.

    BOS, and in some models the first token whatever it is, carries a norm many times that of the others (Xiao et al. 2023, arXiv
    2309.17453), so means over positions leave out those that are set apart (`analyses.set_apart`); where none is left there is no such
    mean (NaN). The first token's norm is given beside it.

    Args:
        prompt: one or several.

    Returns:
        A Dataset over `step`: `embed`, then `L.attn` and `L.mlp`, the stream after each half of block L (`L.block` where they stand side by
        side). By (prompt, step, position): `norm`, Euclidean, not centred; `growth`, ln of the norm over that of the step before; `cosine`
        with the stream of the step before; `written_norm`, of what the step added; `norm_change`, the norm less that of the step before;
        `largest`, the largest activation in size; `massive`, whether it is massive as Sun et al. 2024 define it. `set_apart` (prompt,
        position). By (prompt, step): `mean_norm` over positions that are not set apart, and `first_norm`. `step_cosine` (prompt, step,
        other_step), the mean over the same positions. At `embed` there is no step before (NaN). With several prompts `mean_norm` also has
        its mean, standard error and interval.

    Raises:
        TokenError: a prompt that the model cannot take.
    """
    tokens = left_aligned(model.to_tokens(prompt, bos=bos))
    steps = half_steps(model, tokens)
    halved = model.config.has_two_halves
    single = torch.promote_types(model.dtype, torch.float32)
    labels, streams = list(steps), torch.stack(list(steps.values())).to(single)  # [step, prompt, position, d_model]
    real = tokens != PAD
    apart = set_apart(model, tokens, [steps[label] for label in labels if not (halved and label.endswith(".attn"))])
    norm = streams.norm(dim=-1)
    before, written = streams[:-1], streams.diff(dim=0)
    cosine = torch.cosine_similarity(streams[1:], before, dim=-1)
    size = streams.abs()
    largest = size.amax(-1)
    median = size.masked_fill(~real[..., None], torch.nan).flatten(2).nanmedian(-1).values[..., None]
    massive = (largest > MASSIVE) & (largest > TIMES_MEDIAN * median)
    by_position = {
        "norm": (norm, "norm of the stream", "1"),
        "growth": (_after(norm.log().diff(dim=0)), "ln of the norm over that of the step before", "nats"),
        "cosine": (_after(cosine), "cosine with the stream of the step before", "1"),
        "written_norm": (_after(written.norm(dim=-1)), "norm of what the step added", "1"),
        "norm_change": (_after(norm.diff(dim=0)), "norm less that of the step before", "1"),
        "largest": (largest, "largest activation in size", "1"),
        "massive": (
            massive.to(norm.dtype).masked_fill(norm.isnan(), torch.nan),
            "whether an activation is massive",
            "1",
        ),
    }
    variables: dict[str, Variable] = {
        name: (("prompt", "step", "position"), _blank(value, real).movedim(0, 1), long_name, units)
        for name, (value, long_name, units) in by_position.items()
    }
    rest = real & ~apart.mask
    mean_norm = _mean(norm, rest).mT  # [prompt, step]
    directions = torch.nn.functional.normalize(streams, dim=-1)
    between = _mean(torch.einsum("spld,tpld->stpl", directions, directions), rest).movedim(-1, 0)
    variables |= {
        "mean_norm": (("prompt", "step"), mean_norm, "mean norm over positions that are not set apart", "1"),
        "set_apart": (
            ("prompt", "position"),
            apart.mask.to(norm.dtype).masked_fill(~real, torch.nan),
            "whether means leave the position out",
            "1",
        ),
        "first_norm": (("prompt", "step"), norm[:, :, 0].mT, "norm at the first position", "1"),
        "step_cosine": (
            ("prompt", "step", "other_step"),
            between,
            "mean cosine over positions that are not set apart",
            "1",
        ),
    }
    coords: dict[Any, Any] = {"step": labels, "other_step": labels, "position": np.arange(tokens.shape[1])}
    if len(tokens) > 1:
        variables |= over_prompts(
            "mean_norm", mean_norm.cpu().numpy(), ("step",), "mean norm over positions that are not set apart", "1"
        )
        coords["bound"] = ["lower", "upper"]
    return make(
        "residual_stream",
        variables,
        coords | token_coords(model, tokens),
        model=model,
        prompts={"prompt": tokens},
        parameters={"bos": bos, "set_apart": apart.about()},
    )


def _after(value: Float[Tensor, "less prompt position"]) -> Float[Tensor, "step prompt position"]:
    """With NaN for the first step, which has none before it."""
    return torch.cat([torch.full_like(value[:1], torch.nan), value])


def _mean(value: Float[Tensor, "*step prompt position"], there: Tensor) -> Float[Tensor, "*step prompt"]:
    """Over some positions of each prompt; NaN where there are none, or where one of them is NaN."""
    total: Tensor = value.masked_fill(~there, 0.0).sum(-1)
    return total / there.sum(-1)


def _blank(value: Float[Tensor, "step prompt position"], real: Tensor) -> Float[Tensor, "step prompt position"]:
    return value.masked_fill(~real, torch.nan)
