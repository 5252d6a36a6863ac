"""What carries a disturbance on: the activations that are kept, or the tokens that were drawn."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analyses.cascade.agreement import disagreement
from analyses.cascade.coupled import drawn_pairs, generators_of
from analyses.cascade.disturbances import Disturbance, Nudge, disturbance_of, stacked
from analyses.cascade.rising import positive
from analyses.cascade.rounding import check_rounding
from analyses.intervals import over_prompts
from analyses.kept import Arrays, Kept, request_of
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError, ResultError
from interp.generation import Reading, left_aligned
from interp.hooks import check_unhooked
from interp.metrics import few_rows, scaled
from interp.model import Transformer
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "cascade.channels"
CELLS = ("both", "tokens", "activations", "neither")
"""Which channels are open in each run: the disturbed run as it is; its kept activations reset; its tokens forced; both."""

ROUNDING = {torch.float64: 1e-8}
"""h above which a run with both channels shut is not the clean one; in coarser types 1e-4."""


@takes_whole("seeds", "steps", "seed", "max_bytes", least={"steps": 1, "max_bytes": 1})
def channels(
    model: Transformer,
    prompts: Prompt,
    disturbance: Disturbance | None = None,
    *,
    seeds: int = 8,
    steps: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
    folder: Path | None = None,
) -> xr.Dataset:
    """A 2 x 2 of (keep | reset the cached activations) x (keep | force the tokens) after one disturbance, split by Shapley's value.

    The disturbance acts at one step, where it changes what is drawn. From then on it lives in two places: in the keys and values kept of
    the disturbed tokens, and in the token drawn there, with all that follow from it. Resetting goes on from the clean activations with
    the disturbed run's own tokens; forcing feeds the clean tokens to the disturbed run. With both shut nothing is left, which is
    checked. All runs share the noise of their prompt and seed.

    Args:
        disturbance: `Nudge`, by default of dose 0.5 at layer 0, or another of `analyses.cascade`, which acts at step 0.
        temperature: of sampling; positive.

    The other arguments are those of `analyses.cascade.coupled`.

    Returns:
        A Dataset over cell (which channels are open), prompt, seed and time: `h`, the probability that the next draw differs from the
        clean run's; NaN before the disturbance has acted. `carried` (cell, prompt), its mean over later steps. `shapley` (channel,
        prompt), the mean of what opening a channel adds with the other shut and with it open; the two sum to `carried` of both less that of
        neither, exactly. With several prompts means with standard error and interval.

    Raises:
        InterpError: temperature 0, a disturbance that is not possible or at the last step. ResultError: with both channels shut
            something is left, or more than 2 % of what the disturbance does is rounding.
    """
    disturbance = disturbance_of(disturbance, WHO, default=Nudge(dose=0.5))
    if not positive(temperature) or seeds < 1:
        raise InterpError(
            f"{WHO}: temperature and seeds must be positive, got {temperature!r} and {seeds}; greedy texts have no probabilities to "
            "compare."
        )
    at = disturbance.step
    if at + 1 >= steps:
        raise InterpError(f"{WHO}: the disturbance acts at step {at}, so nothing of {steps} steps comes after it.")
    clean = left_aligned(model.to_tokens(prompts, bos=bos))
    other = left_aligned(disturbance.begin(model, clean, WHO, bos=bos))
    check_rounding(model, clean, other, disturbance, temperature, WHO)
    parameters = {
        "disturbance": disturbance.about(), "seeds": seeds, "steps": steps, "temperature": temperature, "bos": bos,
    }  # fmt: skip
    if folder is not None:
        check_unhooked(model, WHO)
    kept = Kept(folder, request_of(model, [clean, other], parameters, seed))
    per_row = (
        2
        * model.config.n_layers
        * model.config.kv_heads
        * model.config.d_head
        * (max(clean.shape[1], other.shape[1]) + steps)
        * model.W_E.element_size()
    )
    together = max(1, max_bytes // (len(CELLS) * seeds * (per_row + 64 * model.config.d_vocab)))
    parts: list[np.ndarray] = []
    with progress_bar(progress) as bar:
        task = bar.add_task("opening channels", total=len(clean) * steps)
        for start in range(0, len(clean), together):
            rows = range(start, min(start + together, len(clean)))
            compute = partial(_run, model, clean, other, disturbance, at, rows, seeds, steps, temperature, seed)
            parts.append(kept.part(f"channels-{rows.start}-{rows.stop}", compute)["h"])
            bar.update(task, completed=rows.stop * steps)
    h = np.concatenate(parts, axis=1)  # [cell, prompt, seed, time]
    carried = h[..., at + 1 :].mean((2, 3))
    if float(carried[3].max()) > ROUNDING.get(model.dtype, 1e-4):
        raise ResultError(
            f"{WHO}: with both channels shut the draws still differ (h {float(carried[3].max()):.2g}); the model is not causal, or not "
            "deterministic."
        )
    both, tokens, activations, neither = carried
    shapley = np.stack([(activations - neither + both - tokens) / 2, (tokens - neither + both - activations) / 2])
    variables: dict[str, Variable] = {
        "h": (("cell", "prompt", "seed", "time"), h, "probability that the draws differ", "1"),
        "carried": (("cell", "prompt"), carried, "mean of h after the disturbance", "1"),
        "shapley": (("channel", "prompt"), shapley, "what a channel carries", "1"),
    }
    if len(clean) > 1:
        variables |= over_prompts("shapley", shapley.T, ("channel",), "what a channel carries", "1")
        variables |= over_prompts("carried", carried.T, ("cell",), "mean of h after the disturbance", "1")
    coords: dict[Any, Any] = {
        "cell": list(CELLS), "channel": ["activations", "tokens"], "seed": np.arange(seeds), "time": np.arange(steps),
        **({"bound": ["lower", "upper"]} if len(clean) > 1 else {}), **token_coords(model, clean, prefix="prompt_"),
    }  # fmt: skip
    return make(
        "cascade_channels", variables, coords,
        model=model, prompts={"clean": clean, "disturbed": other}, parameters=parameters, seed=seed,
    )  # fmt: skip


@torch.no_grad()
def _run(
    model: Transformer, clean: Tensor, other: Tensor, disturbance: Disturbance, at: int, which: range, seeds: int, steps: int,
    temperature: float, seed: int,
) -> Arrays:  # fmt: skip
    """h of each cell against the clean run. Streams: clean, both, tokens, activations, neither."""
    prompts = torch.arange(which.start, which.stop, device=clean.device).repeat_interleave(seeds)
    n = len(prompts)
    lengths = (clean[prompts] != PAD).sum(1)
    generators = generators_of(which, seeds, seed)
    reading = Reading(model, stacked([begun[prompts] for begun in (clean, other, clean, other, clean)]), steps)
    h = np.full((len(CELLS), n, steps), np.nan)
    rows = torch.cat([torch.arange(n, 2 * n), torch.arange(3 * n, 4 * n)]).to(clean.device)
    with disturbance.attached(model, rows, prompts.repeat(2), lengths.repeat(2)):
        for time in range(steps):
            logits = reading.logits()
            drawn = drawn_pairs(logits, temperature, generators)  # [stream, row]
            if time > at:
                for some in few_rows(n, logits.shape[1]):
                    log_p = scaled(logits.reshape(5, n, -1)[:, some], temperature).log_softmax(-1)
                    h[:, some, time] = disagreement(log_p[:1].expand(4, -1, -1), log_p[1:]).cpu().numpy()
            if time == at:
                drawn[2] = drawn[1]  # the token that the disturbance has led to
            drawn[3], drawn[4] = drawn[0], drawn[0]
            if time + 1 < steps:
                reading.add(drawn.flatten())
    return {"h": h.reshape(len(CELLS), len(which), seeds, steps)}
