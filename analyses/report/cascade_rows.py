"""The cascade in rows, for the terminal: verdicts, and the figures that they rest on."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import xarray as xr
from rich.table import Table

from analyses.cascade.verdict import REACHES
from analyses.plots.labels import prompts_in
from analyses.plots.together import NULL
from analyses.report.steps import add_rows, made_of


def inside_rows(results: Mapping[str, xr.Dataset]) -> Table:
    """The verdict and the figures that it rests on; in the place of what was left out, why."""
    null = f"gain{NULL}"
    table = Table("", "value", title="cascade inside", title_justify="left")

    def verdict(name: str, reason: str) -> str:
        one = results["verdict"]
        why = str(one[reason].item())
        return (
            f"{one[name].item()}, {prompts_in(int(one['prompts']), int(one['clusters']))}{f' ({why})' if why else ''}"
        )

    def slope(subject: str, reach: str) -> str:
        one = results["verdict"].sel(subject=subject, reach=reach, start="one block above")
        low, high = one["slope_interval"].to_numpy()
        interval = "" if np.isnan(low) else f" ({low:+.3f} to {high:+.3f})"
        return f"{float(one['slope_mean']):+.3f}{interval}; margin ±{float(one['margin']):.3f}"

    def grown(name: str) -> str:
        own, other = (float(np.exp(results[which][name][:, -1].mean())) for which in ("gain", null))
        return f"{own:.2f}; at random init {other:.2f}"

    def gone() -> str:
        own, other = (float(results[name]["off_site"][:, -1].mean()) for name in ("cone", f"cone{NULL}"))
        return f"{own:.0%}; at random init {other:.0%}"

    def heads() -> str:
        entry = results["ledger"]["head_entry"].mean("prompt").to_series()
        return ", ".join(f"{layer}.{head} ({value:+.2f})" for (layer, head), value in entry.nlargest(3).items())

    def law(name: str) -> str:
        aic = results[name]["growth_aic"].to_numpy()
        if np.isnan(aic).any():
            return "too few layers to tell"
        return f"{results[name]['law'].to_numpy()[int(aic.argmin())]}, by {abs(aic[0] - aic[1]):.1f} of AIC"

    def rounding() -> str:
        return f"{float(results['gain']['rounding'].max()):.1e} of the disturbance at most"

    def expected() -> str:
        return f"{float(np.exp(results['theory']['log_gain'][:, -1].mean())):.2f}"

    def lost() -> str:
        one = results["precision"]
        return "; ".join(
            f"{name} {_dose(float(one['lost_median'].sel(precision=name)))}{_range(one, 'lost_median', name)}"
            for name in one["precision"].to_numpy()
        )

    def steepest(name: str) -> str:
        one = results[name]
        slope = one["slope"].mean("prompt").to_numpy()
        if not np.isfinite(slope).any():
            return "the activations are the same"
        at = int(np.nanargmax(slope))
        bounds = one["slope_interval"].to_numpy()[:, at] if "slope_interval" in one else np.full(2, np.nan)
        return f"{slope[at]:.2f}{_bounds(bounds, '.2f')} entering layer {one['layer'].to_numpy()[at]}"

    regions = f"regions{NULL}"
    add_rows(
        table,
        results,
        [
            ("verdict", ["verdict"], lambda: verdict("verdict", "reason")),
            ("the same at random init", ["verdict"], lambda: verdict("null_verdict", "null_reason")),
            ("as trained less at random init", ["verdict"], lambda: verdict("difference", "difference_reason")),
            *(
                (f"slope of ln Γ above the first block, {reach}{said}", ["verdict"], partial(slope, subject, reach))
                for subject, said in (("trained", ""), ("twin", ", random init"), ("difference", ", difference"))
                for reach in REACHES
            ),
            ("G at the output (typical)", ["gain", null], lambda: grown("log_gain")),
            ("Γ at the output (typical)", ["gain", null], lambda: grown("log_relative_gain")),
            ("share that has left its position", ["cone", f"cone{NULL}"], gone),
            ("heads that add most, nats", ["ledger"], heads),
            ("growth goes with depth as", ["gain"], lambda: law("gain")),
            ("the same at random init", [null], lambda: law(null)),
            (
                "G by mean field at random init",
                [],
                lambda: str(made_of(results, ["theory"], expected) or "not worked out for this shape or layer"),
            ),
            ("steepest way between two activations (1: even)", ["regions"], lambda: steepest("regions")),
            ("the same at random init", [regions], lambda: steepest(regions)),
            ("lost to rounding up to a dose of", ["precision"], lost),
            ("zero-dose control, computed again", ["gain"], rounding),
        ],
    )
    return table


def outside_rows(results: Mapping[str, xr.Dataset]) -> Table:
    """The verdicts and the figures that they rest on; in the place of what was left out, why."""
    table = Table("", "value", title="cascade outside", title_justify="left")

    def verdict() -> str:
        one, seeds = results["external"], results["coupled"].sizes["seed"]
        why = f" ({one['reason'].item()})" if one["reason"].item() else ""
        return f"{one['verdict'].item()}, {prompts_in(int(one['prompts']), int(one['clusters']))} of {seeds} draws{why}"

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

    def pictured() -> str:
        one = results["wavefront"]
        drawn = one["generated"].to_numpy() == 1
        differ = (one["token_id"] != one["other_token_id"]).to_numpy()[:, drawn].sum(1)
        beside = f"; at random init {differ[1]}" if len(differ) > 1 else ""
        return f"{differ[0]} of {int(drawn.sum())}{beside}"

    def restores(name: str) -> str:
        one = results[name].sel(measure="margin")
        bounds = one["best_interval"].to_numpy() if "best_interval" in one else np.full(2, np.nan)
        return f"{float(one['best'].mean()):.0%}{_bounds(bounds, '.0%')} of the margin, {int(one['branches'])} branches"

    def stays(name: str) -> str:
        one = results[name].sel({"null": "permuted"})
        told = []
        for raster in one["raster"].to_numpy():
            own = one.sel(raster=raster)
            if not np.isfinite(own["difference"]).any():
                told.append(f"{raster} not known")
                continue
            bounds = own["difference_interval"].to_numpy() if "difference_interval" in own else np.full(2, np.nan)
            told.append(f"{raster} {float(own['difference'].mean()):+.3f}{_bounds(bounds, '+.3f')}")
        return ", ".join(told)

    commitment, rasters = f"commitment{NULL}", f"rasters{NULL}"
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
            ("tokens that one disturbance changes", ["wavefront"], pictured),
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
            ("most that one place restores", ["commitment"], lambda: restores("commitment")),
            ("the same at random init", [commitment], lambda: restores(commitment)),
            ("stays disturbed beyond chance", ["rasters"], lambda: stays("rasters")),
            ("the same at random init", [rasters], lambda: stays(rasters)),
            ("carried by activations, by tokens", ["channels"], shares),
            ("against temperature", ["temperature"], against),
        ],
    )
    return table


def _with(result: xr.Dataset, name: str, form: str) -> str:
    return f"{float(result[name]):{form}}{_bounds(result[f'{name}_interval'].to_numpy(), form)}"


def _bounds(bounds: np.ndarray, form: str) -> str:
    return "" if np.isnan(bounds).any() else f" ({bounds[0]:{form}} to {bounds[1]:{form}})"


def _dose(lost: float) -> str:
    return "none" if lost == 0 else f"{lost:.0e}"


def _range(precision: xr.Dataset, name: str, which: str) -> str:
    """The interval of what a precision loses, where there is one that is not a point."""
    if f"{name}_interval" not in precision:
        return ""
    low, high = precision[f"{name}_interval"].sel(precision=which).to_numpy()
    return "" if low == high else f" ({_dose(low)} to {_dose(high)})"
