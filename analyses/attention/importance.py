"""What a task loses without each head."""

from typing import Any

import numpy as np
import xarray as xr

from analyses.answers import Tokens
from analyses.intervals import over_prompts
from analyses.patching import activation_patching
from analyses.results import Variable, make
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES

REPLACEMENTS = ("zero", "mean", "resample")


def head_importance(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    metric: str | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Take each head out of the clean run in three ways: put zero in place of its `z`, its mean over the corrupt prompts, or its value
    in the corrupt run.

    Zero also takes away what a head says of any prompt, the mean keeps that, and resampling changes only what the pair differs in; a
    head that matters by one and not by another is telling (Chan et al. 2022, "Causal scrubbing"; Zhang and Nanda 2023).

    Args:
        clean, corrupt, answer, wrong, metric: as for `activation_patching`, through which this goes.

    Returns:
        A Dataset over (replacement, prompt, layer, head): `importance`, the share of the gap between the clean and the corrupt run that is
        lost without the head; 1 is all of it. With several pairs also mean, standard error and interval.

    Raises:
        As `activation_patching`.
    """
    asked: dict[str, Any] = {} if metric is None else {"metric": metric}
    results = [
        activation_patching(
            model, clean, corrupt, answer=answer, wrong=wrong, site="z", direction="noising", replacement=replacement, bos=bos,
            max_bytes=max_bytes, progress=progress, **asked,
        )
        for replacement in REPLACEMENTS
    ]  # fmt: skip
    lost = np.stack([1 - result["effect"].to_numpy() for result in results])  # [replacement, prompt, layer, head]
    first = results[0]
    long_name = "share of the gap lost without the head"
    variables: dict[str, Variable] = {"importance": (("replacement", "prompt", "layer", "head"), lost, long_name, "1")}
    if lost.shape[1] > 1:
        variables |= over_prompts("importance", lost.swapaxes(0, 1), ("replacement", "layer", "head"), long_name, "1")
    tokens = {"clean": model.to_tokens(clean, bos=bos), "corrupt": model.to_tokens(corrupt, bos=bos)}
    return make(
        "head_importance",
        variables,
        {
            "replacement": list(REPLACEMENTS),
            "layer": first["layer"].to_numpy(),
            "head": first["head"].to_numpy(),
            **({"bound": ["lower", "upper"]} if lost.shape[1] > 1 else {}),
        },
        model=model,
        prompts=tokens,
        parameters={"metric": metric, "bos": bos},
    )
