"""From ordered to disordered: damage, fluctuations and repetition against the temperature of sampling."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from analyses.cascade.collapse import collapse_advantage
from analyses.cascade.coupled import coords_of, couple
from analyses.cascade.disturbances import Disturbance
from analyses.cascade.rising import rising
from analyses.intervals import bootstrap_mean, resampled, share_interval
from analyses.results import Variable, make
from interp.errors import InterpError
from interp.model import Transformer
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.whole_numbers import takes_whole

WHO = "cascade.temperature_sweep"
TEMPERATURES = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5)
WORDS = 4
"""A token counts as repeated where it and the three before it have stood in the text before."""

EXPONENTS = np.geomspace(0.3, 6, 60)
"""Values of nu that are tried."""


@takes_whole("seeds", "seed", several=["lengths"])
def temperature_sweep(
    model: Transformer,
    prompts: Prompt,
    disturbance: Disturbance | None = None,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    lengths: Sequence[int] = (16, 32, 64, 128),
    seeds: int = 8,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
    folder: Path | None = None,
) -> xr.Dataset:
    """Coupled texts at several temperatures, read at several lengths: is there a critical temperature, or a crossover?

    Susceptibility chi = H Var(mean aligned damage over H steps), the variance within each prompt, over draws, averaged over prompts: what
    may diverge. Prompts that merely differ give a variance between prompts, which times H grows without any transition; it is given apart.
    At a transition the peak of chi grows with H, its temperature drifts as T*(H) = T_c + a H^(-1/nu), and all lengths fall onto one curve,
    chi = H^g f((T - T_c) H^(1/nu)) (finite-size scaling; Nakaishi et al. 2024, arXiv 2406.05335, for GPT-2's entropy and repetition).
    A peak that does not grow is a crossover. The shorter lengths are the beginnings of the same texts.

    Args:
        temperatures: positive and rising, five at least.
        lengths: rising, three at least; the last is how many tokens are generated.
        seeds: draws of the noise for each prompt; of one there is no variance, and no susceptibility.
        folder: where finished temperatures are kept; a run that was stopped goes on from there.

    The other arguments are those of `analyses.cascade.coupled`.

    Returns:
        A Dataset over temperature and horizon (the lengths H): `late_damage` (temperature, horizon, prompt), aligned, of the last half of
        H, with mean and interval; `susceptibility` with its interval over prompts; `susceptibility_between`, H times the variance between
        prompts (less what the draws contribute to it, so that it may fall below 0), with its interval; `entropy_rate` and `repetition`
        (temperature, prompt) of the clean texts over the last half of the longest, with mean and interval. `peak_temperature` (horizon),
        by a parabola through the largest susceptibility and its neighbours, NaN where it stands at an end, with interval; `peak_growth`,
        slope of ln of the largest susceptibility against ln H, with interval; `critical_temperature` T_c, with interval, NaN unless three
        peaks lie inside; `collapse_advantage`, how much better one curve for all lengths foretells the chi of prompts that were not fitted
        than H^g f(T) does, in variances of a prompt's chi, with interval; `said`: `critical temperature` where the peak grows (lower bound
        above 0), lies inside at the two longest lengths, T_c has an interval and the collapse is better (lower bound above 0), `crossover`
        where it does not grow, `no peak in range` where it stands at an end, else `undetermined`.

    Raises:
        InterpError: temperatures or lengths that are too few, not rising or not positive. TokenError: texts beyond the context.
    """
    grid, sizes = rising(temperatures, least=5), list(lengths)
    if grid is None:
        raise InterpError(f"{WHO}: temperatures must be five at least, rising and positive.")
    if len(sizes) < 3 or not (np.diff(sizes) > 0).all() or sizes[0] < 4:
        raise InterpError(f"{WHO}: lengths must be three at least, rising, the first 4 or more.")
    damage, entropy, repeated = [], [], []
    with progress_bar(progress) as bar:
        task = bar.add_task("temperatures", total=len(grid))
        for one in grid:
            run = couple(
                model, prompts, disturbance, seeds=seeds, steps=sizes[-1], temperature=float(one), seed=seed, bos=bos,
                max_bytes=max_bytes, folder=None if folder is None else folder / f"temperature-{one:g}",
            )  # fmt: skip
            damage.append(run.alignment[0])
            entropy.append(run.entropy[..., sizes[-1] // 2 :].mean((1, 2)))
            repeated.append(repeats(run.tokens[0])[..., sizes[-1] // 2 :].mean((1, 2)))
            bar.advance(task)
    whole = np.stack(damage, axis=1)  # [prompt, temperature, seed, time]
    means = np.stack(
        [whole[..., :length].mean(-1) for length in sizes], axis=-1
    )  # [prompt, temperature, seed, horizon]
    late = np.stack([whole[..., length // 2 : length].mean((2, 3)) for length in sizes], axis=-1)
    within = within_prompts(means, sizes)
    statistics = resampled(within, lambda drawn: _statistics(drawn, grid, sizes))
    point = _statistics(within, grid, sizes)
    advantage = collapse_advantage(within, grid, sizes)
    better = bootstrap_mean(advantage)
    cut = len(grid) * len(sizes)
    shape = (len(grid), len(sizes))
    bounds = {
        "susceptibility": statistics[:, :cut].reshape(2, *shape), "peak_temperature": statistics[:, cut : cut + len(sizes)],
        "peak_growth": statistics[:, -2], "critical_temperature": statistics[:, -1],
    }  # fmt: skip
    peaks = point[cut : cut + len(sizes)]
    by = ("temperature", "horizon")
    variables: dict[str, Variable] = {
        "late_damage": ((*by, "prompt"), late.transpose(1, 2, 0), "late damage", "1"),
        "late_damage_mean": (by, late.mean(0), "mean over prompts: late damage", "1"),
        "late_damage_interval": (("bound", *by), share_interval(late), "95 % interval over prompts", "1"),
        "susceptibility": (by, point[:cut].reshape(shape), "susceptibility", "tokens"),
        "susceptibility_interval": (("bound", *by), bounds["susceptibility"], "95 % interval over prompts", "tokens"),
        "susceptibility_between": (by, between_prompts(means, sizes), "the same between prompts", "tokens"),
        "susceptibility_between_interval": (
            ("bound", *by),
            resampled(means, lambda drawn: between_prompts(drawn, sizes)),
            "95 % interval over prompts",
            "tokens",
        ),
        "peak_temperature": (("horizon",), peaks, "temperature of the largest susceptibility", "1"),
        "peak_temperature_interval": (
            ("bound", "horizon"),
            bounds["peak_temperature"],
            "95 % interval over prompts",
            "1",
        ),
        "peak_growth": ((), point[-2], "d ln(largest susceptibility) / d ln(length)", "1"),
        "peak_growth_interval": (("bound",), bounds["peak_growth"], "95 % interval over prompts", "1"),
        "critical_temperature": ((), point[-1], "critical temperature", "1"),
        "critical_temperature_interval": (
            ("bound",),
            bounds["critical_temperature"],
            "95 % interval over prompts",
            "1",
        ),
        "collapse_advantage": (
            (),
            advantage.mean(),
            "advantage of one curve for all lengths, on prompts not fitted",
            "1",
        ),
        "collapse_advantage_interval": (("bound",), better, "95 % interval over prompts", "1"),
        "said": (
            (),
            _said(peaks, bounds["peak_growth"], bounds["critical_temperature"], better),
            "what the peak does",
            "1",
        ),
    }
    described = {
        "entropy_rate": (entropy, "entropy of the next token", "nats"),
        "repetition": (repeated, "share of tokens that repeat", "1"),
    }
    for name, (values, long_name, units) in described.items():
        each = np.stack(values)  # [temperature, prompt]
        variables[name] = (("temperature", "prompt"), each, long_name, units)
        variables[f"{name}_mean"] = (("temperature",), each.mean(1), f"mean over prompts: {long_name}", units)
        interval = share_interval(each.T) if name == "repetition" else bootstrap_mean(each.T)
        variables[f"{name}_interval"] = (("bound", "temperature"), interval, "95 % interval over prompts", units)
    coords = {name: value for name, value in coords_of(model, run).items() if name not in ("seed", "time")}
    return make(
        "cascade_temperature", variables,
        coords | {"temperature": grid, "horizon": sizes, "bound": ["lower", "upper"]},
        model=model, prompts={"clean": run.clean, "disturbed": run.other},
        parameters={name: value for name, value in run.parameters.items() if name != "temperature"} | {"lengths": sizes}, seed=seed,
    )  # fmt: skip


def repeats(tokens: Int[np.ndarray, "*rows time"]) -> Bool[np.ndarray, "*rows time"]:
    """Whether each token ends a stretch of `WORDS` tokens that has ended earlier in the text."""
    found = np.zeros(tokens.shape, dtype=bool)
    for at in np.ndindex(tokens.shape[:-1]):
        seen: set[Any] = set()
        for end in range(WORDS, tokens.shape[-1] + 1):
            stretch = tuple(tokens[at][end - WORDS : end].tolist())
            found[(*at, end - 1)] = stretch in seen
            seen.add(stretch)
    return found


def within_prompts(
    means: Float[np.ndarray, "prompt temperature seed horizon"], sizes: Sequence[int]
) -> Float[np.ndarray, "prompt temperature horizon"]:
    """H times the variance over draws of the mean damage over H steps; NaN of one draw."""
    if means.shape[2] < 2:
        return np.full((*means.shape[:2], means.shape[3]), np.nan)
    chi: np.ndarray = means.var(axis=2, ddof=1) * np.asarray(sizes)
    return chi


def between_prompts(
    means: Float[np.ndarray, "prompt temperature seed horizon"], sizes: Sequence[int]
) -> Float[np.ndarray, "temperature horizon"]:
    """H times the variance between prompts, less what that over draws contributes to it; NaN for one prompt."""
    if len(means) < 2:
        return np.full((means.shape[1], means.shape[3]), np.nan)
    own: np.ndarray = means.mean(2).var(axis=0, ddof=1) * np.asarray(sizes)
    less: np.ndarray = own - within_prompts(means, sizes).mean(0) / means.shape[2]
    return less


def _statistics(
    within: Float[np.ndarray, "prompt temperature horizon"], grid: np.ndarray, sizes: Sequence[int]
) -> Float[np.ndarray, " number"]:
    """Susceptibilities [temperature * horizon], peak temperatures, growth of the peak, critical temperature."""
    chi = within.mean(0)  # [temperature, horizon]
    peaks = np.array([_peak(grid, chi[:, at]) for at in range(len(sizes))])
    top = chi.max(0)
    growth = float(np.polyfit(np.log(sizes), np.log(top), 1)[0]) if (top > 0).all() else np.nan
    return np.concatenate([chi.ravel(), peaks, [growth, critical(peaks, sizes)]])


def _peak(grid: np.ndarray, chi: np.ndarray) -> float:
    at = int(chi.argmax())
    if at in (0, len(grid) - 1):
        return float("nan")
    near = slice(at - 1, at + 2)
    a, b, _ = np.polyfit(grid[near], chi[near], 2)
    return float(-b / (2 * a)) if a < 0 else float(grid[at])


def critical(peaks: Float[np.ndarray, " horizon"], sizes: Sequence[int]) -> float:
    """T_c of T*(H) = T_c + a H^(-1/nu), by least squares; NaN unless there are three peaks. Three are met exactly, by the best nu tried."""
    there = np.isfinite(peaks)
    if there.sum() < 3:
        return float("nan")
    length, peak = np.asarray(sizes, dtype=float)[there], peaks[there]
    best = (np.inf, np.nan)
    for nu in EXPONENTS:
        design = np.stack([np.ones_like(length), length ** (-1 / nu)], axis=1)
        found, *_ = np.linalg.lstsq(design, peak, rcond=None)
        best = min(best, (float(((design @ found - peak) ** 2).sum()), float(found[0])))
    return best[1]


def _said(
    peaks: np.ndarray,
    growth: Float[np.ndarray, " bound"],
    critical: Float[np.ndarray, " bound"],
    collapse: Float[np.ndarray, " bound"],
) -> str:
    if np.isnan(growth).any():
        return "undetermined"
    if np.isnan(peaks[-1]) or np.isnan(peaks[-2]):
        return "no peak in range"
    if growth[0] <= 0:
        return "crossover"
    return "critical temperature" if np.isfinite(critical).all() and collapse[0] > 0 else "undetermined"
