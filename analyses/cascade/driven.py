"""Driven or self-sustained: does later damage come of the beginning, which goes on striking, or of earlier damage?"""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from analyses.cascade.coupled import Coupled, coords_of, couple
from analyses.cascade.disturbances import Disturbance
from analyses.cascade.feedback import feedback
from analyses.cascade.reproduction import reproduction
from analyses.cascade.rising import positive
from analyses.cascade.survival import forced
from analyses.cascade.temperature import repeats
from analyses.clusters import Labels, by_unit, check_clusters, units_for
from analyses.intervals import over_prompts, ratio_interval, share_interval
from analyses.results import Variable, is_result, make
from interp.errors import InterpError, ResultError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.whole_numbers import takes_whole

WHO = "cascade.driven"
HORIZON = 32

LARGEST_H = 1 - 1e-12
"""h is taken as no more than this, so that the hazard of what is certain stays a number."""

END = 4
"""A text still differs at the end where one of its last fourth is damaged."""

LOOPS = 0.5
"""A text loops where this share of its last half ends four tokens that it has had before."""


@takes_whole("seeds", "steps", "sources", "horizon", "seed", "max_bytes", least={"steps": 1, "max_bytes": 1})
def driven(
    model: Transformer,
    prompts: Prompt,
    disturbance: Disturbance | None = None,
    *,
    seeds: int = 8,
    steps: int = 64,
    sources: int = 8,
    horizon: int = HORIZON,
    temperature: float = 1.0,
    clusters: Labels | None = None,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
    folder: Path | None = None,
) -> xr.Dataset:
    """How much of the damage of coupled texts the disturbed beginning goes on making, and how much changed tokens beget.

    A prompt that was changed stays changed: it goes on striking, as a source in a pile does, and late damage alone does not tell that from
    a disturbance which sustains itself. So both are measured. s_t = -ln(1 - h_t) is the hazard of the beginning alone: h along the clean
    text, given to both contexts. In the closed loop a token is changed with 1 - exp(-s_t - R sum_tau w_tau D_(t-tau)), D the aligned
    damage and w the shares of k(tau), of `reproduction`: R is how many tokens each changed token changes (`analyses.cascade.feedback`).

    Args:
        sources, horizon: of k(tau), see `reproduction`.
        temperature: of sampling; positive.
        clusters: what each prompt was made from, such as its template: prompts of one cluster are one unit of replication. None, or
            None for a prompt, is a cluster of its own; `interp.zoo` tasks' pairs have theirs as `cluster`.

    The other arguments are those of `analyses.cascade.coupled`.

    Returns:
        A Dataset over prompt, seed and time: `damage`, aligned; `h_forced` and `source`, s_t, nats. `kernel` (lag), w. `r` with
        `r_interval`, and `late_r` with `late_r_interval` of the last quarter alone: Student's or the bootstrap-t's, whichever is further
        out, over prompts or clusters; NaN below 6 of them, or where no changed token is followed by others. w is taken as known.
        `driven_share`, what the beginning alone would change of the last half over what is changed there, with its interval, from 0 on;
        above 1 where damage keeps other damage from happening. `survival_share` (prompt), the share of draws that still differ in the last
        quarter, with mean and interval over prompts, or over clusters, each of which then counts once; `survivor_damage`, the damage
        there of those that do. `looping` (prompt, seed), whether more than
        half of the tokens of either text's last half end a stretch of four that it has had before. `cluster` (prompt).

    Raises:
        InterpError: temperature 0, clusters that are not as many as prompts, and as `coupled` and `reproduction`.
    """
    if not positive(temperature):
        raise InterpError(
            f"{WHO}: the temperature must be positive, got {temperature!r}; greedy texts have no probabilities to compare."
        )
    check_clusters(clusters, len(model.to_tokens(prompts, bos=bos)), WHO)
    run = couple(
        model, prompts, disturbance, seeds=seeds, steps=steps, temperature=temperature, seed=seed, bos=bos,
        max_bytes=max_bytes, progress=progress, folder=folder,
    )  # fmt: skip
    influence = reproduction(
        model, run.clean, sources=sources, horizon=horizon, temperature=temperature, seed=seed, max_bytes=max_bytes,
        progress=progress,
    )  # fmt: skip
    return describe_driven(model, run, influence, clusters, max_bytes=max_bytes)


def describe_driven(
    model: Transformer,
    run: Coupled,
    influence: xr.Dataset,
    clusters: Labels | None = None,
    *,
    along: tuple[np.ndarray, np.ndarray] | None = None,
    max_bytes: int = MAX_BYTES,
) -> xr.Dataset:
    """The result of `driven` from texts and a result of `reproduction` that are there already, of one model and temperature, and if it is
    there from `analyses.cascade.survival.forced`."""
    if not is_result(influence, "cascade_reproduction") or influence.attrs["weight_hash"] != model.weight_hash():
        raise ResultError(f"{WHO}: expected a result of analyses.cascade.reproduction of the same model.")
    k = influence["influence_mean"].to_numpy()
    kernel = k / k.sum() if k.sum() > 0 else np.zeros_like(k)
    h = (along or forced(model, run, max_bytes))[1]
    source = -np.log1p(-np.minimum(h, LARGEST_H))
    damage = run.alignment[0].astype(float)
    units = units_for(clusters, len(damage), WHO)
    each = ("prompt", "seed", "time")
    variables: dict[str, Variable] = {
        "damage": (each, run.alignment[0], "damage after alignment", "1"),
        "h_forced": (each, h, "probability that the draws differ, along the clean text", "1"),
        "source": (each, source, "hazard of the disturbed beginning alone", "nats"),
        "kernel": (("lag",), kernel, "share of a token's influence", "1"),
        "looping": (("prompt", "seed"), looping(run.tokens), "whether a text repeats itself", "1"),
    }
    steps = damage.shape[-1]
    for name, since, said in (("r", 0, ""), ("late_r", steps - steps // END, ", in the last quarter")):
        found = feedback(damage, source, kernel, units, since=since)
        variables[name] = ((), found.ratio, f"changed tokens per changed token{said}", "1")
        variables[f"{name}_interval"] = (("bound",), found.interval(), "95 % interval over prompts", "1")
    share, bounds = driven_share(damage, h, units)
    alive, left = survivors(damage)
    alive_by_unit = by_unit(alive, units)
    variables |= {
        "driven_share": ((), share, "share of late damage that the beginning alone would make", "1"),
        "driven_share_interval": (("bound",), bounds, "95 % interval over prompts", "1"),
        "survival_share": (("prompt",), alive, "share of draws that still differ at the end", "1"),
        "survival_share_mean": ((), alive_by_unit.mean(), "mean over prompts, or clusters, of the same", "1"),
        "survival_share_interval": (("bound",), share_interval(alive_by_unit), "95 % interval over prompts, or clusters", "1"),
        "survivor_damage": ((), left, "damage at the end of those that still differ", "1"),
    }  # fmt: skip
    for name, values in (("damage", damage), ("h_forced", h)):
        variables |= over_prompts(
            name, by_unit(values.mean(1), units), ("time",), variables[name][2], "1", share=name == "damage"
        )
    coords = coords_of(model, run) | {"lag": influence["lag"].to_numpy(), "bound": ["lower", "upper"]}
    return make(
        "cascade_driven", variables, coords | {"cluster": ("prompt", units)},
        model=model, prompts={"clean": run.clean, "disturbed": run.other},
        parameters=run.parameters | {"reproduction": _about(influence), "clustered": len(set(units)) < len(units)}, seed=run.seed,
    )  # fmt: skip


def _about(influence: xr.Dataset) -> dict[str, Any]:
    return {"lags": influence.sizes["lag"], "seed": influence.attrs["seed"]}


def driven_share(
    damage: Float[np.ndarray, "prompt seed time"],
    h: Float[np.ndarray, "prompt seed time"],
    units: Int[np.ndarray, " prompt"],
) -> tuple[float, Float[np.ndarray, " bound"]]:
    """What the beginning alone would change of the last half over what is changed, and its interval over units; NaN without damage.

    Both are sums of what is not negative, so that the interval, which is symmetric, is cut off at 0. There is no such bound above.
    """
    half = damage.shape[-1] // 2
    own, all_of_it = (np.bincount(units, values[..., half:].sum((1, 2))) for values in (h, damage))
    if all_of_it.sum() == 0:
        return float("nan"), np.full(2, np.nan)
    return float(own.sum() / all_of_it.sum()), np.maximum(ratio_interval(own, all_of_it), 0.0)


def survivors(damage: Float[np.ndarray, "prompt seed time"]) -> tuple[Float[np.ndarray, " prompt"], float]:
    """The share of each prompt's draws that have damage in the last quarter, and the damage there of all that do; NaN where none does."""
    end = damage[..., -max(1, damage.shape[-1] // END) :]
    alive = (end > 0).any(-1)
    return alive.mean(1), float(end[alive].mean()) if alive.any() else float("nan")


def looping(tokens: Int[np.ndarray, "stream prompt seed time"]) -> Bool[np.ndarray, "prompt seed"]:
    """Whether one of the two texts repeats itself in its last half."""
    late = repeats(tokens)[..., tokens.shape[-1] // 2 :].mean(-1)
    return np.asarray((late > LOOPS).any(0))
