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
from interp.sweep.readouts import Position, given_position

REPLACEMENTS = ("zero", "mean", "mean_by_position", "resample")


def head_importance(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    metric: str | None = None,
    position: Position = -1,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Take each head out of the clean run in four ways: put zero in place of its `z`, its mean over all positions of the corrupt prompts
    together, its mean over them at each position by itself, or its value in the corrupt run.

    Zero also takes away what a head says of any prompt, the mean keeps that, the mean by position also what it says of any prompt at that
    place, and resampling changes only what the pair differs in; a head that matters by one and not by another is telling (Chan et al. 2022,
    "Causal scrubbing"; Zhang and Nanda 2023). The mean by position over one pair is its corrupt run.

    Args:
        clean, corrupt, answer, wrong, metric, position, smallest_gap: as for `activation_patching`, through which this goes.

    Returns:
        A Dataset over (replacement, prompt, layer, head): `importance`, the share of the gap between the clean and the corrupt run that is
        lost without the head; 1 is all of it. `left_out` (prompt), whether a pair has no gap. With several pairs also mean, standard error
        and interval.

    Raises:
        As `activation_patching`.
    """
    asked: dict[str, Any] = {} if metric is None else {"metric": metric}
    results = [
        activation_patching(
            model, clean, corrupt, answer=answer, wrong=wrong, site="z", direction="noising", replacement=replacement, position=position,
            smallest_gap=smallest_gap, bos=bos, max_bytes=max_bytes, progress=progress, **asked,
        )
        for replacement in REPLACEMENTS
    ]  # fmt: skip
    lost = np.stack([1 - result["effect"].to_numpy() for result in results])  # [replacement, prompt, layer, head]
    first = results[0]
    long_name = "share of the gap lost without the head"
    variables: dict[str, Variable] = {"importance": (("replacement", "prompt", "layer", "head"), lost, long_name, "1")}
    out = first["left_out"]
    variables["left_out"] = (("prompt",), out.to_numpy(), out.attrs["long_name"], "1")
    if lost.shape[1] > 1:
        by, kept = ("replacement", "layer", "head"), ~out.to_numpy()
        variables |= over_prompts("importance", lost.swapaxes(0, 1), by, long_name, "1", kept=kept)
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
        parameters={"metric": metric, "position": given_position(position, "head_importance"), "bos": bos},
    )
