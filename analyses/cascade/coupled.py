"""Two generations on the same noise, from a clean and a disturbed beginning."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.cascade.agreement import disagreement, divergence, total_variation
from analyses.cascade.alignment import align
from analyses.cascade.disturbances import Disturbance, disturbance_of, stacked
from analyses.cascade.rounding import check_rounding
from analyses.intervals import RESAMPLES, over_prompts
from analyses.kept import Arrays, Kept, request_of
from analyses.results import Variable, make, token_coords, token_strings
from interp.errors import InterpError
from interp.generation import Reading, Sampling, check_room, gumbel, left_aligned
from interp.hooks import check_unhooked
from interp.metrics import few_rows, scaled
from interp.model import Transformer
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "cascade.coupled"

FURTHER, LEAST_FURTHER = 8, 8
"""The disturbed text is continued by one in so many of the steps beyond the clean one, at least so far, where the context has room."""

LARGEST_PART = 256
"""Pairs of texts that are continued together at most, so that little is lost where a run is stopped."""


@dataclass(frozen=True, eq=False)
class Coupled:
    """Pairs of texts continued on the same noise: what the results of the cascade outside are made of.

    Args:
        clean, other: [prompt, position], the beginnings.
        disturbance: what makes them differ.
        tokens: [stream, prompt, seed, time], what was generated; stream 0 is the clean one.
        further: [prompt, seed, more], how the disturbed text goes on after that, to which it is aligned too.
        h, kl, tv: [prompt, seed, time], between the streams' next-token distributions, each in its own context.
        entropy: [prompt, seed, time], of the clean distribution, nats.
        margin: [prompt, seed, time], the clean logit of the most probable token less that of the next.
        rounding: h after the prompts when nothing but rounding differs.
        parameters: what shaped the numbers, for provenance.
        seed: of the noise.
    """

    clean: Int[Tensor, "prompt position"]
    other: Int[Tensor, "prompt other_position"]
    disturbance: Disturbance
    tokens: Int[np.ndarray, "stream prompt seed time"]
    further: Int[np.ndarray, "prompt seed more"]
    h: Float[np.ndarray, "prompt seed time"]
    kl: Float[np.ndarray, "prompt seed time"]
    tv: Float[np.ndarray, "prompt seed time"]
    entropy: Float[np.ndarray, "prompt seed time"]
    margin: Float[np.ndarray, "prompt seed time"]
    rounding: float
    parameters: dict[str, Any]
    seed: int

    @property
    def damage(self) -> Int[np.ndarray, "prompt seed time"]:
        """1 where the two texts have different tokens."""
        damage: np.ndarray = (self.tokens[0] != self.tokens[1]).astype(np.int64)
        return damage

    @cached_property
    def alignment(self) -> tuple[Int[np.ndarray, "prompt seed time"], Int[np.ndarray, "prompt seed"]]:
        """Damage once the texts are aligned, and the edits that takes; see `analyses.cascade.alignment`."""
        whole = np.concatenate([self.tokens[1], self.further], axis=-1)
        shape = self.tokens.shape[1:]
        damage, edits = align(self.tokens[0].reshape(-1, shape[-1]), whole.reshape(-1, whole.shape[-1]))
        return damage.reshape(shape).astype(np.int64), edits.reshape(shape[:2])


@takes_whole("seeds", "steps", "seed", "max_bytes", least={"steps": 1, "max_bytes": 1})
def coupled(
    model: Transformer,
    prompts: Prompt,
    disturbance: Disturbance | None = None,
    *,
    seeds: int = 8,
    steps: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    bos: bool | None = None,
    use_cache: bool = True,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
    folder: Path | None = None,
) -> xr.Dataset:
    """Continue each prompt twice, as it is and disturbed, both by y_t = argmax(logit / T + g_t) on the same Gumbel noise g_t.

    Where the two contexts give the same distribution the draws are equal; where they nearly do, nearly always (Daliri, Musco and Suresh
    2024, arXiv 2408.07978). So differences come from the disturbance, not from chance. End-of-text is a token like others: the texts go
    on through it, and every run has all steps.

    Args:
        prompts: a text, several, or token ids. The prompt is the unit of replication; seeds are nested in it.
        disturbance: `Swap`, `Nudge`, `Replace` or `Unrelated` of `analyses.cascade`; None swaps the last token for the most probable other.
        seeds: draws of the noise for each prompt. At temperature 0 there is none, and one text for each prompt.
        steps: tokens to generate.
        temperature: of sampling; 0 is greedy. KL, TV and entropy are those of the distributions drawn from; for greedy, of those at
            temperature 1, while h says whether the most probable tokens differ.
        seed: row r, counted over prompts and seeds, draws with seed + r, as `generate` does.
        use_cache: keep keys and values; False reads each text anew for each token, for comparison.
        max_bytes: bound on the memory of what runs together; one prompt with its seeds always does.
        folder: where finished parts are kept; a run that was stopped goes on from there.

    Returns:
        A Dataset over prompt, seed and time. Texts: `token`, `token_id` of the clean, `other_token`, `other_token_id` of the disturbed.
        `damage`, 1 where they differ; `aligned_damage`, 1 where a clean token has no equal partner once the texts are aligned with free
        ends (the disturbed one is continued further for that), so that n tokens put in are n damaged ones where they stand and none later;
        `edit_distance` (prompt, seed), the edits of that, tokens; `first_divergence` (prompt, seed), NaN where there is none; `h`, the
        probability that the step's draws differ; `kl`, nats, and `tv`, of the clean against the disturbed distribution; `entropy` of the
        clean, nats; `margin`, the gap of its two largest logits; `rounding`, h after the prompts when nothing but rounding differs.
        `damage`, `aligned_damage`, `h`, `kl` and `tv` have means over prompts with standard errors and intervals at each time, of the
        damage as wide as few damaged prompts leave open.

    Raises:
        InterpError: a disturbance that is not possible, or no seeds. TokenError: prompts and steps beyond the context.
        ResultError: logits that are no numbers; it names the first hook point that is none. Or rounding is more than 2 % of what the
            disturbance does after the prompt, as in `gain`, or makes more than one draw in a thousand differ.
    """
    run = couple(
        model, prompts, disturbance, seeds=seeds, steps=steps, temperature=temperature, seed=seed, bos=bos,
        use_cache=use_cache, max_bytes=max_bytes, progress=progress, folder=folder,
    )  # fmt: skip
    return describe_coupled(model, run)


def describe_coupled(model: Transformer, run: Coupled) -> xr.Dataset:
    """The result of `coupled` from texts that are there already."""
    shape = run.tokens.shape[1:]
    damage, (aligned, distance) = run.damage, run.alignment
    first = np.where(damage.any(-1), damage.argmax(-1), np.nan)
    each = ("prompt", "seed", "time")
    described: dict[str, tuple[np.ndarray, str, str]] = {
        "damage": (damage, "damage: the tokens differ", "1"),
        "aligned_damage": (aligned, "damage after alignment", "1"),
        "h": (run.h, "probability that the draws differ", "1"),
        "kl": (run.kl, "KL(clean || disturbed)", "nats"),
        "tv": (run.tv, "total variation", "1"),
    }
    variables: dict[str, Variable] = {}
    for name, (values, long_name, units) in described.items():
        variables[name] = (each, values, long_name, units)
        if shape[0] > 1:
            counted = name in ("damage", "aligned_damage")
            variables |= over_prompts(name, values.mean(1), ("time",), long_name, units, share=counted)
    variables |= {
        "entropy": (each, run.entropy, "entropy of the clean distribution", "nats"),
        "margin": (each, run.margin, "gap of the two largest clean logits", "logits"),
        "rounding": ((), run.rounding, "probability that draws differ by rounding alone", "1"),
        "edit_distance": (("prompt", "seed"), distance, "edits between the texts", "tokens"),
        "first_divergence": (("prompt", "seed"), first, "step at which the texts first differ", "tokens"),
        "token_id": (each, run.tokens[0], "clean token", "1"),
        "other_token_id": (each, run.tokens[1], "disturbed token", "1"),
        "token": (each, token_strings(model, run.tokens[0]), "clean token", "1"),
        "other_token": (each, token_strings(model, run.tokens[1]), "disturbed token", "1"),
    }
    return make(
        "cascade_coupled", variables, coords_of(model, run),
        model=model, prompts={"clean": run.clean, "disturbed": run.other},
        parameters=run.parameters | {"resamples": RESAMPLES}, seed=run.seed,
    )  # fmt: skip


def coords_of(model: Transformer, run: Coupled) -> dict[Any, Any]:
    """Coordinates of what is measured at each step, and the prompts' tokens."""
    return {
        "seed": np.arange(run.tokens.shape[2]),
        "time": np.arange(run.tokens.shape[3]),
        **({"bound": ["lower", "upper"]} if run.tokens.shape[1] > 1 else {}),
        **token_coords(model, run.clean, prefix="prompt_"),
    }


@takes_whole("seeds", "steps", "seed", "max_bytes", least={"steps": 1, "max_bytes": 1})
def couple(
    model: Transformer,
    prompts: Prompt,
    disturbance: Disturbance | None,
    *,
    seeds: int = 8,
    steps: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    bos: bool | None = None,
    use_cache: bool = True,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
    folder: Path | None = None,
) -> Coupled:
    """Make the texts of `coupled`, whose arguments and errors these are."""
    disturbance = disturbance_of(disturbance, WHO)
    Sampling(temperature)  # checks it
    if seeds < 1:
        raise InterpError(f"{WHO}: seeds must be at least 1, got {seeds}.")
    seeds = seeds if temperature > 0 else 1
    clean = left_aligned(model.to_tokens(prompts, bos=bos))
    other = left_aligned(disturbance.begin(model, clean, WHO, bos=bos))
    if disturbance.step >= steps:
        raise InterpError(f"{WHO}: a nudge at step {disturbance.step} comes after all {steps} steps.")
    longest = max(clean.shape[1], other.shape[1])
    check_room(model, stacked([clean, other]), steps)
    rounding = check_rounding(model, clean, other, disturbance, temperature, WHO)
    parameters = {
        "disturbance": disturbance.about(), "seeds": seeds, "steps": steps, "temperature": temperature, "bos": bos,
    }  # fmt: skip
    if folder is not None:
        check_unhooked(model, WHO)
    more = max(0, min(max(steps // FURTHER, LEAST_FURTHER), model.config.n_ctx - longest - steps))
    kept = Kept(folder, request_of(model, [clean, other], parameters | {"use_cache": use_cache, "further": more}, seed))
    pairs = min(LARGEST_PART, max_bytes // _bytes_per_pair(model, longest + steps + more))
    together = max(1, pairs // seeds)
    parts = []
    with progress_bar(progress) as bar:
        task = bar.add_task("continuing texts", total=len(clean) * steps)
        for start in range(0, len(clean), together):
            rows = range(start, min(start + together, len(clean)))
            compute = partial(
                _continue, model, clean, other, disturbance, rows, seeds, steps, more, temperature, seed, use_cache,
                partial(bar.advance, task),
            )  # fmt: skip
            part = kept.part(f"texts-{rows.start}-{rows.stop}", compute)
            parts.append(part)
            bar.update(task, completed=rows.stop * steps)
    joined = {name: np.concatenate([part[name] for part in parts], axis=-3) for name in parts[0]}
    return Coupled(clean, other, disturbance, **joined, rounding=rounding, parameters=parameters, seed=seed)


def _bytes_per_pair(model: Transformer, length: int) -> int:
    config = model.config
    kept = 2 * config.n_layers * config.kv_heads * config.d_head * min(length, config.n_ctx) * model.W_E.element_size()
    return 2 * (kept + 8 * 8 * config.d_vocab)


@torch.no_grad()
def _continue(
    model: Transformer, clean: Tensor, other: Tensor, disturbance: Disturbance, which: range, seeds: int, steps: int,
    more: int, temperature: float, seed: int, use_cache: bool, advance: Any,
) -> Arrays:  # fmt: skip
    """The pairs of some prompts, [prompt, seed, time]; the disturbed texts go on by `more` tokens."""
    prompts = torch.arange(which.start, which.stop, device=clean.device).repeat_interleave(seeds)
    lengths = (clean[prompts] != PAD).sum(1)
    n = len(prompts)
    rows = stacked([clean[prompts], other[prompts]])
    generators = generators_of(which, seeds, seed)
    reading = Reading(model, rows, steps + more, use_cache)
    texts, further = np.empty((2, n, steps), dtype=np.int64), np.empty((n, more), dtype=np.int64)
    measured = {name: np.empty((n, steps)) for name in ("h", "kl", "tv", "entropy", "margin")}
    with disturbance.attached(model, torch.arange(n, 2 * n, device=rows.device), prompts, lengths):
        for time in range(steps):
            logits = reading.logits()
            drawn = drawn_pairs(logits, temperature, generators)  # [stream, row]
            texts[:, :, time] = drawn.cpu().numpy()
            found = compared(logits, drawn, temperature)
            for name, values in found.items():
                measured[name][:, time] = values.cpu().numpy()
            advance(len(which))
            if time + 1 < steps + more:
                reading.add(drawn.flatten())
        for time in range(more):
            drawn = drawn_pairs(reading.logits(), temperature, generators)
            further[:, time] = drawn[1].cpu().numpy()
            if time + 1 < more:
                reading.add(drawn.flatten())
    by_prompt = {name: values.reshape(len(which), seeds, steps) for name, values in measured.items()}
    return {
        "tokens": texts.reshape(2, len(which), seeds, steps), "further": further.reshape(len(which), seeds, more), **by_prompt,
    }  # fmt: skip


def generators_of(which: range, seeds: int, seed: int) -> list[torch.Generator]:
    """The noise of each row of some prompts: row r, counted over all prompts and seeds, has seed + r."""
    return [torch.Generator().manual_seed(seed + row) for row in range(which.start * seeds, which.stop * seeds)]


def drawn_pairs(
    logits: Float[Tensor, "rows vocab"], temperature: float, generators: Sequence[torch.Generator]
) -> Int[Tensor, "stream row"]:
    """The next token of each row of several streams, laid one after the other, which share the noise of their row."""
    streams = logits.reshape(-1, len(generators), logits.shape[1])
    if temperature == 0:
        return streams.argmax(-1)
    parts = [
        (scaled(streams[:, rows], temperature) + gumbel(generators[rows], logits.shape[1]).to(logits.device)).argmax(-1)
        for rows in few_rows(len(generators), logits.shape[1])
    ]
    return torch.cat(parts, dim=1)


def compared(
    logits: Float[Tensor, "rows vocab"], drawn: Int[Tensor, "two row"], temperature: float
) -> dict[str, Float[Tensor, " row"]]:
    """`h`, `kl`, `tv`, `entropy` and `margin` of two streams."""
    n = len(logits) // 2
    streams = logits.reshape(2, n, -1)
    parts = [
        _compared(streams[:, rows].flatten(0, 1), drawn[:, rows], temperature) for rows in few_rows(n, logits.shape[1])
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _compared(
    logits: Float[Tensor, "rows vocab"], drawn: Int[Tensor, "two row"], temperature: float
) -> dict[str, Float[Tensor, " row"]]:
    log_p, log_q = scaled(logits, temperature or 1.0).log_softmax(-1).chunk(2)
    top = logits[: len(log_p)].topk(min(2, logits.shape[1]), dim=-1).values
    return {
        "h": disagreement(log_p, log_q) if temperature else (drawn[0] != drawn[1]).double(),
        "kl": divergence(log_p, log_q),
        "tv": total_variation(log_p, log_q),
        "entropy": torch.special.entr(log_p.exp()).sum(-1),
        "margin": (top[:, 0] - top[:, -1]).double(),
    }
