"""Heads taken out together: does the task need them, and would as many others have done the same?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from analyses.answers import Tokens
from analyses.heads_of import heads_of
from analyses.intervals import over_prompts
from analyses.patching.metrics import METRICS, MetricReadout, Truth
from analyses.patching.pairs import read_answers
from analyses.patching.replacements import averages_for, check_used
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError, is_known, nearest
from interp.generation import left_aligned
from interp.model import Transformer
from interp.names import block_name
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Intervention, Row, Set
from interp.sweep.readouts import Position, given_position, positions_of
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "ablate_heads"
REPLACEMENTS = ("zero", "mean", "mean_by_position")

Head = tuple[int, int]
"""Layer and head."""


@takes_whole("controls", "seed", least={"seed": 0})
def ablate_heads(
    model: Transformer,
    prompts: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens,
    heads: Sequence[Head],
    replacement: str = "mean",
    controls: int = 10,
    reference: Prompt | None = None,
    position: Position = -1,
    bos: bool | None = None,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Take some heads out of every prompt at once, and, as controls, as many drawn at random from the other heads.

    Mean ablation assumes that the mean of `z` over the reference holds what the heads say of any prompt and nothing of this one (Wang
    et al. 2022, arXiv 2211.00593, section 2.1); zero ablation also takes the former away and leaves values that the model never saw.
    A small effect does not show that the heads play no part: others may take over (Rushing and Nanda 2024, arXiv 2402.15390).

    Args:
        prompts: one or several; `answer` and `wrong` one for all, or one each.
        heads: (layer, head), each once.
        replacement: `mean`, over all positions of the reference prompts together; `mean_by_position`, each position by itself, which
            keeps what the heads say of any prompt at that place; or `zero`.
        controls: how many random sets of heads.
        reference: prompts over which the mean is taken; None is `prompts`.
        position: where the answer is read, as in `activation_patching`; the default is the last token.
        seed: of the random sets.

    Returns:
        A Dataset over `condition`: `intact`, `ablated`, and each `control`, with the `heads` of each. `logit_difference`,
        `preferred` (whether the answer leads the wrong one) and `correct` (whether it leads all tokens) by (condition, prompt); NaN where
        the logits are no numbers. With several prompts also their mean, standard error and interval, of the last two exact for shares.

    Raises:
        InterpError: no heads, one twice or not of this model; fewer other heads than controls need; an unknown replacement; reference
            prompts that are too short for a mean by position.
        TokenError: as `activation_patching`.
    """
    config = model.config
    every = [(layer, head) for layer in range(config.n_layers) for head in range(config.n_heads)]
    chosen = heads_of(config, heads, WHO)
    rest = [head for head in every if head not in chosen]
    if not is_known(replacement, REPLACEMENTS):
        raise InterpError(f"{WHO}: unknown replacement {replacement!r}. {nearest(replacement, REPLACEMENTS)}")
    if controls < 0 or (controls and len(rest) < len(chosen)):
        raise InterpError(
            f"{WHO}: {controls} controls of {len(chosen)} heads from the {len(rest)} others cannot be drawn; use controls=0."
        )
    read = given_position(position, WHO)
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    lengths = (tokens != PAD).sum(1).tolist()
    places = positions_of(read, lengths, WHO)
    metrics = [METRICS["logit_difference"], METRICS["rank"]]
    answers, wrongs = read_answers(model, answer, wrong, metrics, len(tokens), WHO)
    rng = np.random.default_rng(seed)
    drawn = [sorted(rest[i] for i in rng.choice(len(rest), len(chosen), replace=False)) for _ in range(controls)]
    sets: list[list[Head]] = [[], sorted(chosen), *drawn]
    names = [block_name(layer, "attn.hook_z") for layer in range(config.n_layers)]
    check_used(reference, replacement, WHO)
    others = tokens if reference is None else left_aligned(model.to_tokens(reference, bos=bos))
    averages = averages_for(model, replacement, others, max(lengths), names, WHO)
    rows = [
        Row([without(layer, head, averages, length) for layer, head in removed], prompt)
        for removed in sets
        for prompt, length in enumerate(lengths)
    ]
    readout = MetricReadout(metrics, Truth(answers, wrongs), position=places)
    swept = sweep(model, tokens, rows, readout, max_bytes=max_bytes, progress="ablating" if progress else None)
    found = swept.values.cpu().reshape(len(sets), len(tokens), len(metrics))  # [condition, prompt, metric]
    difference, rank = found.double().numpy().transpose(2, 0, 1)
    values = {
        "logit_difference": difference,
        "preferred": np.where(np.isnan(difference), np.nan, difference > 0),
        "correct": np.where(np.isnan(rank), np.nan, rank == 0),
    }
    named = {
        "logit_difference": ("logit difference", "logits"),
        "preferred": ("whether the answer leads the wrong answer", "1"),
        "correct": ("whether the answer leads all tokens", "1"),
    }
    variables: dict[str, Variable] = {}
    for name, (long_name, units) in named.items():
        variables[name] = (("condition", "prompt"), values[name], long_name, units)
        if len(tokens) > 1:
            share = name != "logit_difference"
            variables |= over_prompts(name, values[name].T, ("condition",), long_name, units, share=share)
    labels = [" ".join(f"{layer}.{head}" for layer, head in removed) for removed in sets]
    coords: dict[Any, Any] = {
        "condition": ["intact", "ablated", *(f"control {number}" for number in range(controls))],
        "heads": (("condition",), np.array(labels, dtype=object)),
        **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
        **token_coords(model, tokens),
    }
    parameters = {"replacement": replacement, "controls": controls, "heads": labels[1], "position": read, "bos": bos}
    used = {"prompt": tokens} | ({} if reference is None else {"reference": others})
    return make("head_ablation", variables, coords, model=model, prompts=used, parameters=parameters, seed=seed)


def without(layer: int, head: int, averages: dict[str, torch.Tensor] | None, length: int) -> Intervention:
    """Take a head out of a prompt of that length: put zero in place of its z, or a mean, [1, ...] or by position [position, ...]."""
    name = block_name(layer, "attn.hook_z")
    return Intervention(name, Set(0.0 if averages is None else averages[name][:length, head]), heads=head)
