"""Heads taken out together: does the task need them, and would as many others have done the same?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from analyses.answers import Tokens
from analyses.intervals import over_prompts
from analyses.patching.metrics import METRICS, MetricReadout, Truth
from analyses.patching.pairs import read_answers
from analyses.patching.replacements import means
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError, nearest
from interp.interventions import Intervention, Row, Set
from interp.model import Transformer
from interp.names import block_name
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep

WHO = "ablate_heads"
REPLACEMENTS = ("zero", "mean")

Head = tuple[int, int]
"""Layer and head."""


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
        replacement: `mean`, over all positions of the reference prompts, or `zero`.
        controls: how many random sets of heads.
        reference: prompts over which the mean is taken; None is `prompts`.
        seed: of the random sets.

    Returns:
        A Dataset over `condition`: `intact`, `ablated`, and each `control`, with the `heads` of each. `logit_difference`,
        `preferred` (whether the answer leads the wrong one) and `correct` (whether it leads all tokens) by (condition, prompt). With
        several prompts also their mean, standard error and interval.

    Raises:
        InterpError: no heads, one twice or not of this model; fewer other heads than controls need; an unknown replacement.
        TokenError: as `activation_patching`.
    """
    config = model.config
    every = [(layer, head) for layer in range(config.n_layers) for head in range(config.n_heads)]
    chosen = [(int(layer), int(head)) for layer, head in heads]
    rest = [head for head in every if head not in chosen]
    if not chosen or len(set(chosen)) < len(chosen) or set(chosen) - set(every):
        last = f"{config.n_layers - 1}, {config.n_heads - 1}"
        raise InterpError(
            f"{WHO}: heads {chosen}; name at least one, each once, as (layer, head) from (0, 0) to ({last})."
        )
    if replacement not in REPLACEMENTS:
        raise InterpError(f"{WHO}: unknown replacement {replacement!r}. {nearest(replacement, REPLACEMENTS)}")
    if controls < 0 or (controls and len(rest) < len(chosen)):
        raise InterpError(
            f"{WHO}: {controls} controls of {len(chosen)} heads from the {len(rest)} others cannot be drawn; use controls=0."
        )
    tokens = model.to_tokens(prompts, bos=bos)
    metrics = [METRICS["logit_difference"], METRICS["rank"]]
    answers, wrongs = read_answers(model, answer, wrong, metrics, len(tokens), WHO)
    rng = np.random.default_rng(seed)
    drawn = [sorted(rest[i] for i in rng.choice(len(rest), len(chosen), replace=False)) for _ in range(controls)]
    sets: list[list[Head]] = [[], sorted(chosen), *drawn]
    averages = {}
    if replacement == "mean":
        names = [block_name(layer, "attn.hook_z") for layer in range(config.n_layers)]
        averages = means(model, tokens if reference is None else model.to_tokens(reference, bos=bos), names, False)
    rows = [Row(_interventions(removed, averages), prompt) for removed in sets for prompt in range(len(tokens))]
    readout = MetricReadout(metrics, Truth(answers, wrongs))
    swept = sweep(model, tokens, rows, readout, max_bytes=max_bytes, progress="ablating" if progress else None)
    found = swept.values.cpu().reshape(len(sets), len(tokens), len(metrics))  # [condition, prompt, metric]
    difference, rank = found.double().numpy().transpose(2, 0, 1)
    values = {"logit_difference": difference, "preferred": 1.0 * (difference > 0), "correct": 1.0 * (rank == 0)}
    named = {
        "logit_difference": ("logit difference", "logits"),
        "preferred": ("whether the answer leads the wrong answer", "1"),
        "correct": ("whether the answer leads all tokens", "1"),
    }
    variables: dict[str, Variable] = {}
    for name, (long_name, units) in named.items():
        variables[name] = (("condition", "prompt"), values[name], long_name, units)
        if len(tokens) > 1:
            variables |= over_prompts(name, values[name].T, ("condition",), long_name, units)
    labels = [" ".join(f"{layer}.{head}" for layer, head in removed) for removed in sets]
    coords: dict[Any, Any] = {
        "condition": ["intact", "ablated", *(f"control {number}" for number in range(controls))],
        "heads": (("condition",), np.array(labels, dtype=object)),
        **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
        **token_coords(model, tokens),
    }
    parameters = {"replacement": replacement, "controls": controls, "heads": labels[1], "bos": bos}
    return make(
        "head_ablation", variables, coords, model=model, prompts={"prompt": tokens}, parameters=parameters, seed=seed
    )


def _interventions(removed: Sequence[Head], averages: dict[str, torch.Tensor]) -> list[Intervention]:
    changes = []
    for layer, head in removed:
        name = block_name(layer, "attn.hook_z")
        changes.append(Intervention(name, Set(averages[name][0, head] if averages else 0.0), heads=head))
    return changes
