"""Who makes up for a head that is taken out (McGrath et al. 2023, arXiv 2307.15771; Rushing and Nanda 2024, arXiv 2402.15390)."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.answers import Tokens, answer_ids
from analyses.heads_of import heads_of
from analyses.intervals import over_prompts
from analyses.results import Variable, array, make, token_coords
from interp.decompose import check_sum, decompose, needed
from interp.errors import InterpError, ResultError
from interp.finite import not_finite
from interp.generation import left_aligned
from interp.model import Transformer
from interp.names import block_name
from interp.norms import Norm
from interp.prompts import Prompt
from interp.sweep.readouts import Position, given_position, positions_of
from interp.tokenizer import PAD

WHO = "cascade.self_repair"
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
"""What the terms may lack of the repair, logits."""


@torch.no_grad()
def self_repair(
    model: Transformer,
    prompts: Prompt,
    head: tuple[int, int],
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    position: Position = -1,
    bos: bool | None = None,
) -> xr.Dataset:
    """Take one head out (its `z` is set to zero) and split what the logit does not lose into the parts that make up for it.

    Repair is the direct effect of the head less its total effect. With the final norm's scale s, and its inverse g, in both runs, the logit
    is the sum of g times each part's product with the answer's direction, so by midpoints the repair is exactly the norm's term, from the
    change of g, and one term for every later part, from the change of what it writes. Where a model caps its logits softly, those before
    the cap are followed, which alone are a sum (`before_cap` among the parameters).

    Args:
        head: layer and head.
        answer: one token, for all prompts or for each; its logit is followed, or the difference to that of `wrong`.
        position: where that logit is read, see `activation_patching`; the default is the last token.

    Returns:
        A Dataset by prompt: `direct`, `total`, `repair`, `norm_term`, and `term` (component) for every part of the model, 0 below the head;
        logits. `residual`, what the terms lack. With several prompts means with intervals.

    Raises:
        ConfigError: a post-norm model. InterpError: a head that is not there, or a dtype too coarse. TokenError: an answer that is not one
            token, or not one for each prompt. ResultError: terms that do not sum.
    """
    check_sum(model, WHO)
    if model.dtype not in TOLERANCE:
        raise InterpError(f"{WHO}: {model.dtype} is too coarse for terms that sum; load in float32 or float64.")
    ((layer, number),) = heads_of(model.config, [head], WHO)
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    read = given_position(position, WHO)
    places = torch.tensor(positions_of(read, (tokens != PAD).sum(1).tolist(), WHO), device=tokens.device)
    answers = answer_ids(model, "answer", answer, len(tokens), WHO)
    wrongs = None if wrong is None else answer_ids(model, "wrong", wrong, len(tokens), WHO)
    direction = model.W_U.mT[answers] - (0 if wrongs is None else model.W_U.mT[wrongs])  # [prompt, d_model]
    clean = _parts(model, tokens, places, direction, None)
    without = _parts(model, tokens, places, direction, (layer, number))
    labels = clean[0]
    (parts, scale), (fewer, other) = clean[1:], without[1:]  # [component, prompt], [prompt]
    own = labels.index(f"{layer}.{number}")
    direct = scale * parts[own]
    total = scale * parts.sum(0) - other * fewer.sum(0)
    term = (scale + other) / 2 * (fewer - parts)
    term[own] = 0
    # The head itself leaves with the mean of both scales; what that differs from its direct effect belongs to the norm.
    norm_term = (other - scale) * (parts + fewer).sum(0) / 2 + (scale - (scale + other) / 2) * parts[own]
    repair = direct - total
    residual = (repair - norm_term - term.sum(0)).abs()
    if not bool(torch.isfinite(residual).all()):
        raise not_finite(model, tokens, f"{WHO}: the logit")
    if not float(residual.max()) < TOLERANCE[model.dtype]:
        raise ResultError(
            f"{WHO}: the terms lack {float(residual.max()):.2g} logits of the repair. Load the model in float64."
        )
    named: dict[str, tuple[Tensor, str]] = {
        "direct": (direct, "direct effect of the head"),
        "total": (total, "total effect of taking it out"),
        "repair": (repair, "direct less total effect"),
        "norm_term": (norm_term, "repair by the final norm"),
    }
    variables: dict[str, Variable] = {}
    for name, (value, long_name) in named.items():
        numbers = array(value)
        variables[name] = (("prompt",), numbers, long_name, "logits")
        if len(tokens) > 1:
            variables |= over_prompts(name, numbers, (), long_name, "logits")
    variables["term"] = (("prompt", "component"), term.mT, "repair by each part", "logits")
    if len(tokens) > 1:
        variables |= over_prompts("term", array(term.mT), ("component",), "repair by each part", "logits")
    variables["residual"] = (("prompt",), residual, "what the terms lack", "logits")
    coords: dict[Any, Any] = {"component": np.array(labels, dtype=object), **token_coords(model, tokens)}
    if len(tokens) > 1:
        coords["bound"] = ["lower", "upper"]
    coords["answer_id"] = (("prompt",), array(answers))
    if wrongs is not None:
        coords["wrong_id"] = (("prompt",), array(wrongs))
    parameters = {
        "head": [layer, number],
        "position": read,
        "bos": bos,
        "before_cap": model.config.logit_cap is not None,
    }
    return make("self_repair", variables, coords, model=model, prompts={"prompt": tokens}, parameters=parameters)


def _parts(
    model: Transformer,
    tokens: Tensor,
    places: Tensor,
    direction: Float[Tensor, "prompt d_model"],
    without: tuple[int, int] | None,
) -> tuple[list[str], Float[Tensor, "component prompt"], Float[Tensor, " prompt"]]:
    """Each part's product with the direction at one position of each prompt, before the norm's scale, and the inverse of that scale."""
    norm = model.ln_final if isinstance(model.ln_final, Norm) else None
    names = [*needed(model, heads=True), *(["ln_final.hook_scale"] if norm is not None else [])]

    def take_out(value: Tensor, hook: object) -> None:
        assert without is not None
        value[:, :, without[1]] = 0

    if without is None:
        _, cache = model.run_with_cache(tokens, names)
    else:
        with model.hooks({block_name(without[0], "attn.hook_z"): take_out}):
            _, cache = model.run_with_cache(tokens, names)
    split = decompose(model, cache, heads=True)
    rows = torch.arange(len(tokens), device=tokens.device)
    there = split.parts[:, rows, places]  # [component, prompt, d_model]
    if norm is None:
        return list(split.labels), (there * direction).sum(-1), there.new_ones(len(tokens))
    there = there - there.mean(-1, keepdim=True) if norm.centres else there
    inverse = 1 / cache["ln_final.hook_scale"][rows, places, 0]
    return list(split.labels), (there * (norm.weight * direction)).sum(-1), inverse
