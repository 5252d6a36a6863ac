"""The cascade outside: what `interp cascade outside` and the report measure and show."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table

from analyses import cascade
from analyses.cascade.coupled import Coupled, couple, describe_coupled
from analyses.cascade.disturbances import Disturbance, Nudge, Unrelated
from analyses.cascade.driven import describe_driven
from analyses.cascade.external import SHORTEST
from analyses.cascade.survival import describe_survival, forced
from analyses.plots import plot
from analyses.report.inside import check_inside
from analyses.report.section import Shown, shown
from analyses.report.shelf import Shelf, parts_shelf
from analyses.report.steps import Step, add_rows
from interp.errors import InterpError
from interp.generation import Sampling, check_room, left_aligned
from interp.model import Transformer
from interp.sweep import MAX_BYTES

SHOWN = {
    "external": (
        "R, how many tokens each changed token changes apart from what the disturbed beginning goes on striking. Below 1 what is "
        "changed dies away by itself, however much the beginning goes on changing; above 1 it is a pile, if the last quarter of the text "
        "and the changed tokens at three lengths bear that out. Where the interval holds 1, nothing is claimed."
    ),
    "driven": (
        "Tokens that differ where both texts go their own ways, beside those that the disturbed beginning alone would change along "
        "one and the same text. What is between them, changed tokens have changed."
    ),
    "joined": "Each prompt: growth inside the model against what happens outside it. The two verdicts need not agree.",
    "coupled": (
        "The same prompt as it is and disturbed, continued on the same random numbers, so that what differs is due to the "
        "disturbance. Beneath, how far apart the next-token distributions are, and how often the next draws would differ."
    ),
    "survival": (
        "How long the two texts stay the same: exactly, from the probabilities along the clean text, and counted in the coupled "
        "texts."
    ),
    "reproduction": (
        "One token of a text is swapped and the rest kept: how often would each later token have been another? The sum up to a "
        "horizon is the number of tokens that one changed token changes. In the closed loop it is counted from the texts "
        "themselves, where changes coincide: above 1 each changed token begets more than one."
    ),
    "avalanches": (
        "How many tokens a disturbance changes before it comes to rest, against a power law and against Borel's law, which a "
        "branching process of the same ratio gives. A power law alone would prove nothing."
    ),
    "channels": (
        "After one nudge the disturbance lives on in the keys and values that are kept and in the tokens that are drawn. Each "
        "is shut in turn."
    ),
    "temperature": (
        "The same against the temperature of sampling, at several lengths. At a critical temperature the peak of the "
        "susceptibility, the variance over draws of one prompt, grows with length, and the curves of all lengths fall onto one, which is "
        "judged on prompts that were not fitted; where the peak does not grow, it is a crossover."
    ),
}
"""Each figure's result, in the order in which they are shown, and how to read it."""

WHO = "cascade outside"
HORIZON = 32


def check_outside(
    model: Transformer, texts: Sequence[str], disturbance: Disturbance, *, seeds: int, steps: int, temperature: float
) -> None:
    """Raise InterpError, before any work, where the texts cannot be continued or disturbed as is asked."""
    Sampling(temperature)  # checks it
    if seeds < 1 or steps < SHORTEST:
        raise InterpError(f"{WHO}: seeds must be 1 and steps {SHORTEST} at least, got {seeds} and {steps}.")
    tokens = left_aligned(model.to_tokens(texts))
    check_inside(model, texts)  # each prompt's growth inside is set beside it
    check_room(model, tokens, steps)
    check_room(model, left_aligned(disturbance.begin(model, tokens, WHO)), steps)


def outside_steps(
    model: Transformer,
    texts: Sequence[str],
    disturbance: Disturbance,
    results: dict[str, xr.Dataset],
    *,
    seeds: int,
    steps: int,
    temperature: float,
    seed: int = 0,
    folder: Path | None = None,
) -> list[Step]:
    """How to get every result of `SHOWN`, in an order in which each finds those it is made of; None where it cannot be.

    Args:
        results: where the earlier steps' results will be.
        folder: where finished parts are kept.
    """
    request: dict[str, Any] = {"seeds": seeds, "steps": steps, "temperature": temperature, "seed": seed}

    def parts(name: str) -> Path | None:
        return None if folder is None else folder / name

    @cache
    def run() -> Coupled:
        return couple(model, texts, disturbance, folder=parts("coupled"), **request)

    def reproduction() -> xr.Dataset | None:
        if greedy:
            return None
        results["coupled"]  # an error where it was left out: it is not run in vain a second time
        return cascade.reproduction(model, texts, temperature=temperature, horizon=horizon, loop=run(), seed=seed)

    @cache
    def along() -> tuple[np.ndarray, np.ndarray]:
        return forced(model, run(), MAX_BYTES)

    def driven() -> xr.Dataset | None:
        if greedy:
            return None
        results["coupled"]
        return describe_driven(model, run(), results["reproduction"], along=along())

    def survival() -> xr.Dataset:
        results["coupled"]
        several = len(run().clean) > 1
        unrelated = couple(model, texts, Unrelated(), folder=parts("unrelated"), **request) if several else None
        return describe_survival(model, run(), unrelated, along=along())

    def joined() -> xr.Dataset | None:
        if greedy:
            return None
        gain = cascade.gain(model, texts, seed=seed)
        inside = cascade.internal_verdict(gain)
        return cascade.joined_verdict(inside, results["external"], gain=gain, coupled=results["coupled"])

    greedy = temperature == 0
    lengths = [steps // 4, steps // 2, steps]
    nudge = disturbance if isinstance(disturbance, Nudge) else Nudge(dose=0.5)
    horizon = min(HORIZON, steps // 2)
    return [
        ("coupled", lambda: describe_coupled(model, run())),
        ("reproduction", reproduction),
        ("driven", driven),
        ("external", lambda: None if greedy else cascade.external_verdict(results["driven"])),
        ("joined", joined),
        ("survival", survival),
        ("avalanches", lambda: cascade.avalanches(results["coupled"], reproduction=results.get("reproduction"))),
        ("channels", lambda: None if greedy else cascade.channels(model, texts, nudge, folder=parts("channels"), **request)),
        (
            "temperature",
            partial(
                cascade.temperature_sweep, model, texts, disturbance, lengths=lengths, seeds=seeds, seed=seed, folder=parts("temperature")
            ),
        ),
    ]  # fmt: skip


def outside_asked(model: Transformer, texts: Sequence[str], disturbance: Disturbance, **request: Any) -> dict[str, Any]:
    """All that shapes the numbers besides the model, as JSON values; `request` is what `outside_steps` takes."""
    tokens = left_aligned(model.to_tokens(texts))
    return {
        "what": WHO,
        "tokens": tokens.tolist(),
        "disturbed": left_aligned(disturbance.begin(model, tokens, WHO)).tolist(),
        "disturbance": disturbance.about(),
        **request,
    }


def outside_shelf(
    folder: Path | None, model: Transformer, texts: Sequence[str], disturbance: Disturbance, **request: Any
) -> Shelf:
    """Where the finished parts of `interp cascade outside` are kept; the arguments are those of `outside_steps`."""
    return parts_shelf(folder, model, outside_asked(model, texts, disturbance, **request))


def figures(results: Mapping[str, xr.Dataset]) -> list[Shown]:
    """Each figure of `SHOWN` that there is a result for, and how to read it; in the place of what was left out, why."""
    return [one for name, read in SHOWN.items() for one in shown(results, name, read, plot)]


def rows(results: Mapping[str, xr.Dataset]) -> Table:
    """The verdicts and the figures that they rest on; in the place of what was left out, why."""
    table = Table("", "value", title="cascade outside", title_justify="left")

    def verdict() -> str:
        one, seeds = results["external"], results["coupled"].sizes["seed"]
        why = f" ({one['reason'].item()})" if one["reason"].item() else ""
        return f"{one['verdict'].item()}, {int(one['prompts'])} prompts of {seeds} draws{why}"

    def begets() -> str:
        one = results["external"]
        return f"{_with(one, 'r', '.2f')}; in the last quarter {_with(one, 'late_r', '.2f')}"

    def from_outside() -> str:
        one = results["external"]
        return f"{_with(one, 'driven_share', '.0%')} of what is changed in the last half"

    def at_the_end() -> str:
        one = results["external"]
        bounds, left = one["survival_share_interval"].to_numpy(), float(one["survivor_damage"])
        of_them = "" if np.isnan(left) else f"; of their tokens {left:.0%} are changed"
        return f"{float(one['survival_share_mean']):.0%}{_bounds(bounds, '.0%')} of the draws{of_them}"

    def inside() -> str:
        one = results["joined"]
        return f"{one['inside'].item()}; rank correlation with h {_with(one, 'rank_correlation', '+.2f')}"

    def late() -> str:
        one = results["external"]
        values, bounds = one["late_damage_mean"].to_numpy(), one["late_damage_interval"].to_numpy()
        return ", ".join(f"{value:.3f}{_bounds(bounds[:, at], '.3f')}" for at, value in enumerate(values))

    def parted() -> str:
        first = results["coupled"]["first_divergence"]
        apart = first.notnull()
        return (
            f"{float(apart.mean()):.0%}, the typical one at step {float(first.median()):.0f}" if apart.any() else "none"
        )

    def again() -> str | None:
        one = results["survival"]
        together, chance = float(one["came_together"]), float(one["came_together_unrelated"])
        if not np.isfinite(together):
            return None
        return f"{together:.0%}" + ("" if np.isnan(chance) else f"; unrelated texts {chance:.0%}")

    def changed() -> str:
        one = results["reproduction"]
        r, bounds = float(one["reproduction"][-1]), one["reproduction_interval"].to_numpy()[:, -1]
        return f"{r:.2f}{_bounds(bounds, '.2f')}; in the closed loop {_with(one, 'r_loop', '.2f')}"

    def ratio() -> str:
        one = results["avalanches"]
        known = np.isfinite(float(one["branching_ratio"]))
        return _with(one, "branching_ratio", ".2f") if known else "not known: not all came to rest, and k(τ) is lacking"

    def shares() -> str:
        return ", ".join(f"{float(value):.3f}" for value in results["channels"]["shapley"].mean("prompt"))

    def against() -> str:
        one = results["temperature"]
        least = float(one["late_damage_mean"][:, -1].idxmin("temperature"))
        return f"{one['said'].item()}; least damage at T = {least:g}"

    lengths, lags = "several numbers of", "several"
    if "external" in results:
        lengths = ", ".join(str(int(n)) for n in results["external"]["horizon"])
    if "reproduction" in results:
        lags = str(results["reproduction"].sizes["lag"])
    add_rows(
        table,
        results,
        [
            ("verdict", ["external", "coupled"], verdict),
            ("the cascade inside", ["joined"], inside),
            ("R: a changed token changes", ["external"], begets),
            ("driven by the beginning alone", ["external"], from_outside),
            ("still differ at the end", ["external"], at_the_end),
            (f"late damage at {lengths} tokens", ["external"], late),
            ("texts that part", ["coupled"], parted),
            ("of these come together again", ["survival"], again),
            (f"R up to {lags} tokens", ["reproduction"], changed),
            (
                "influence falls with the lag to the power",
                ["reproduction"],
                lambda: _with(results["reproduction"], "exponent", ".2f"),
            ),
            (
                "branching ratio of avalanches",
                ["avalanches"],
                ratio,
            ),
            ("carried by activations, by tokens", ["channels"], shares),
            ("against temperature", ["temperature"], against),
        ],
    )
    return table


def _with(result: xr.Dataset, name: str, form: str) -> str:
    return f"{float(result[name]):{form}}{_bounds(result[f'{name}_interval'].to_numpy(), form)}"


def _bounds(bounds: np.ndarray, form: str) -> str:
    return "" if np.isnan(bounds).any() else f" ({bounds[0]:{form}} to {bounds[1]:{form}})"
