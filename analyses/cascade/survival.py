"""How long two texts stay the same, and whether they come together again."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from analyses.cascade.agreement import disagreement, stays
from analyses.cascade.coupled import Coupled, coords_of, couple
from analyses.cascade.disturbances import Disturbance, Unrelated
from analyses.intervals import bootstrap_mean, share_interval
from analyses.results import Variable, make
from interp.finite import not_finite
from interp.generation import left_aligned
from interp.metrics import few_rows, scaled
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

AGREED, NEAR = 8, 0.01
"""Equal tokens in a row, and the KL in nats below which each of their distributions must be, that count as having come together again."""


@takes_whole("seeds", "steps", "seed", "max_bytes", least={"steps": 1, "max_bytes": 1})
def survival(
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
    """S(t), the probability that coupled texts are still the same after step t; and whether texts that parted come together again.

    By teacher forcing: the disturbed context is given the clean text, and with a_s the probability that the second stream draws the
    token that the first has drawn at s, S(t) = E[prod_{s<=t} a_s] over clean texts. That is exact on average, since a_s is the chance
    of agreement given the clean token. The product of 1 - h_s over clean texts is not: it counts tokens on which the streams would have
    parted as if they had not. Beside it, Kaplan and Meier's estimate from the coupled texts themselves, where those that
    never part are censored.

    Arguments and errors are those of `analyses.cascade.coupled`.

    Returns:
        A Dataset over time: `survival` (prompt, time) by teacher forcing, `survival_mean`, `survival_interval` (bound, time);
        `kaplan_meier` (time) of all coupled texts and `kaplan_meier_interval`, over prompts, as wide as few that parted leave open.
        `stays` (prompt, seed, time), a_s, and `h_forced`, h along the clean text. `came_together`, the share of texts that parted
        and then agreed for 8 tokens in a row with a KL below 0.01 nats at each; `came_together_unrelated`, the same of texts that begin
        with different prompts; `came_together_excess`, (own - unrelated) / (1 - unrelated): 0 is chance, 1 always. NaN where nothing
        parted or there is one prompt only.
    """
    request: dict[str, Any] = {
        "seeds": seeds, "steps": steps, "temperature": temperature, "seed": seed, "bos": bos, "max_bytes": max_bytes, "progress": progress,
    }  # fmt: skip
    run = couple(model, prompts, disturbance, folder=folder, **request)
    unrelated = None
    if len(run.clean) > 1:
        beside = None if folder is None else folder / "unrelated"
        unrelated = couple(model, run.clean, Unrelated(), folder=beside, **request)
    return describe_survival(model, run, unrelated, max_bytes=max_bytes)


def describe_survival(
    model: Transformer,
    run: Coupled,
    unrelated: Coupled | None,
    *,
    along: tuple[np.ndarray, np.ndarray] | None = None,
    max_bytes: int = MAX_BYTES,
) -> xr.Dataset:
    """The result of `survival` from texts that are there already, and if it is there from `forced`; `unrelated` is the same of an
    `Unrelated` beginning."""
    kept, parted = along or forced(model, run, max_bytes)
    own = np.cumprod(kept, axis=-1).mean(1)  # [prompt, time]
    steps = run.tokens.shape[-1]
    damage = run.damage.astype(bool)
    ever = damage.any(-1)
    death = np.where(ever, damage.argmax(-1), steps - 1)
    data = stats.CensoredData(uncensored=death[ever], right=death[~ever])
    curve = np.asarray(stats.ecdf(data).sf.evaluate(np.arange(steps)))
    alive = (~np.logical_or.accumulate(damage, axis=-1)).mean(1)
    together = _together(run)
    chance = np.nan if unrelated is None else _together(unrelated)
    excess = np.nan if unrelated is None or chance == 1 else (together - chance) / (1 - chance)
    each = ("prompt", "seed", "time")
    variables: dict[str, Variable] = {
        "survival": (("prompt", "time"), own, "probability that the texts are still the same", "1"),
        "survival_mean": (("time",), own.mean(0), "mean over prompts of the same", "1"),
        "kaplan_meier": (("time",), curve, "share of coupled texts still the same (Kaplan-Meier)", "1"),
        "stays": (each, kept, "probability that the clean token is drawn in the disturbed context", "1"),
        "h_forced": (each, parted, "probability that the draws differ, along the clean text", "1"),
        "came_together": ((), together, "share of parted texts that came together again", "1"),
        "came_together_unrelated": ((), chance, "the same of texts that begin with different prompts", "1"),
        "came_together_excess": ((), excess, "coming together above chance", "1"),
    }
    if len(own) > 1:
        for name, bounds in (("survival", bootstrap_mean(own)), ("kaplan_meier", share_interval(alive))):
            variables[f"{name}_interval"] = (("bound", "time"), bounds, "95 % interval over prompts", "1")
    return make(
        "cascade_survival", variables, coords_of(model, run),
        model=model, prompts={"clean": run.clean, "disturbed": run.other},
        parameters=run.parameters | {"agreed": AGREED, "near": NEAR}, seed=run.seed,
    )  # fmt: skip


@torch.no_grad()
def forced(
    model: Transformer, run: Coupled, max_bytes: int
) -> tuple[Float[np.ndarray, "prompt seed time"], Float[np.ndarray, "prompt seed time"]]:
    """Along each clean text: the probability that the disturbed context draws its next token too, and h."""
    texts = torch.from_numpy(run.tokens[0]).to(run.clean.device)
    prompts, seeds, steps = texts.shape
    temperature = run.parameters["temperature"]
    which = torch.arange(prompts, device=texts.device).repeat_interleave(seeds)
    together = max(1, max_bytes // (4 * 8 * steps * model.config.d_vocab))
    kept, parted = np.empty((2, prompts * seeds, steps))
    for start in range(0, prompts * seeds, together):
        rows = slice(start, start + together)
        own, text = which[rows], texts.flatten(0, 1)[rows]
        logits = _along(model, run, run.clean[own], text, own, disturbed=False)
        others = _along(model, run, run.other[own], text, own, disturbed=True)
        if temperature == 0:
            same = (others.argmax(-1) == text).double()
            kept[rows], parted[rows] = same.cpu(), 1 - same.cpu()
            continue
        flat = [each.flatten(0, 1) for each in (logits, others, text)]
        for some in few_rows(len(flat[0]), logits.shape[-1]):
            log_p, log_q = (scaled(each[some], temperature).log_softmax(-1) for each in flat[:2])
            place = slice(start * steps + some.start, start * steps + some.stop)
            kept.reshape(-1)[place] = stays(log_p, log_q, flat[2][some]).cpu()
            parted.reshape(-1)[place] = disagreement(log_p, log_q).cpu()
    return kept.reshape(prompts, seeds, steps), parted.reshape(prompts, seeds, steps)


def _along(
    model: Transformer, run: Coupled, begun: Tensor, text: Tensor, prompts: Tensor, *, disturbed: bool
) -> Float[Tensor, "row time vocab"]:
    """Logits of the token at each step of a text that follows a beginning."""
    lengths = (begun != PAD).sum(1)
    whole = left_aligned(torch.cat([begun, text], dim=1))
    whole = whole[:, : int((whole != PAD).sum(1).max())]
    rows = torch.arange(len(whole), device=whole.device)
    with run.disturbance.attached(model, rows, prompts, lengths) if disturbed else nullcontext():
        stream = model.run_blocks(model.embed(whole), real=model.check_tokens(whole))
    places = lengths[:, None] - 1 + torch.arange(text.shape[1], device=whole.device)
    logits = model.unembed(stream[rows[:, None], places])
    if not bool(torch.isfinite(logits.amax(-1)).all()):
        raise not_finite(model, whole, "cascade.survival: a logit along the clean text")
    return logits


def _together(run: Coupled) -> float:
    """Share of the texts that parted and later agreed for `AGREED` tokens with little divergence at each."""
    parted = run.damage.astype(bool)
    ever = parted.any(-1)
    if not ever.any():
        return float("nan")
    after = np.logical_or.accumulate(parted, axis=-1)
    calm = after & ~parted & (run.kl < NEAR)
    return float(np.asarray(runs_of(calm, AGREED).any(-1))[ever].mean())


def runs_of(flags: Bool[np.ndarray, "*rows time"], length: int) -> Bool[np.ndarray, "*rows start"]:
    """Whether a run of that many flags begins at each step; no step where there are fewer steps."""
    if flags.shape[-1] < length:
        return np.zeros((*flags.shape[:-1], 0), dtype=bool)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(flags, length, axis=-1).all(-1))
