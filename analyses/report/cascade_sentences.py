"""What the numbers say of the cascade, inside and outside: each sentence is a function of them and says no more."""

import json

import numpy as np
import xarray as xr

from analyses.plots.labels import counted
from analyses.report.sentences import course, way_of

BEFORE = "The same before training, on the same scales."


def gain_sentence(gain: xr.Dataset) -> str:
    """Growth to the output, absolute and relative; of several prompts the typical one."""
    absolute, relative = (float(np.exp(gain[name][:, -1].mean())) for name in ("log_gain", "log_relative_gain"))
    begin = f"A disturbance injected at layer {int(gain['layer'][0])}"
    if not np.isfinite([absolute, relative]).all():
        return f"{begin}: how large it is at the output is not known."
    on_site = course(relative, "")
    size = (
        f"{on_site} on site by a factor of {relative:.2f}"
        if on_site
        else f"keeps its size on site, to {relative:.2f} of it"
    )
    return f"{begin} is {absolute:.2f} times as large at the output (typical G); relative to the stream it sits in, it {size} (typical Γ)."


def control_sentence(gain: xr.Dataset) -> str:
    """What the run without a dose showed: a result of a gain is made only where that and causality hold."""
    rounding = float(gain["rounding"].max())
    config = json.loads(gain.attrs["model_config"])
    shown = (
        "moved nothing"
        if rounding == 0
        else f"differed by {rounding:.1e} of the disturbance at most, which is rounding"
    )
    earlier = "; no position before the injection was reached" if config["causal"] else ""
    return f"The same run with a dose of zero {shown}{earlier}."


def internal_sentence(verdict: xr.Dataset) -> str:
    """The slopes above the first block, as trained and less those of the random twin, and what they give."""
    above = verdict["slope_mean"].sel(start="one block above")

    def slopes(subject: str) -> str:
        own = {str(reach): float(above.sel(subject=subject, reach=reach)) for reach in above["reach"].to_numpy()}
        return " and ".join(
            f"{value:+.3f} {'over ' * (reach == 'all positions')}{reach}" for reach, value in own.items()
        )

    label, why = _labelled(verdict, "verdict", "reason")
    if not np.isfinite(above.sel(subject="trained")).all():
        return f"Of the growth of ln Γ above the first block nothing can be said: {label}{why}."
    beside = "" if "difference" not in verdict else f" (less the same before training, {slopes('difference')})"
    return (
        f"Above the first block ln Γ changes by {slopes('trained')} per layer{beside}, of which ±{float(verdict['margin']):.3f} counts as "
        f"none, in {counted(int(verdict['prompts']), 'prompt')}: {label}{why}."
    )


def external_sentence(verdict: xr.Dataset) -> str:
    """What becomes of a disturbance outside, and on what that rests."""
    about = json.loads(verdict.attrs["parameters"])
    alive, r, bounds = float(verdict["survival_share_mean"]), float(verdict["r"]), verdict["r_interval"].to_numpy()
    interval = "" if np.isnan(bounds).any() else f" ({bounds[0]:.2f} to {bounds[1]:.2f})"
    begets = (
        "how many others a changed token changes is not known"
        if np.isnan(r)
        else f"each changed token changes {r:.2f} others{interval}"
    )
    label, why = _labelled(verdict, "verdict", "reason")
    return (
        f"As the model reads its own words, at temperature {about['temperature']:g}, {alive:.0%} of the texts still differ at the end of "
        f"{about['steps']} tokens, and {begets} ({counted(int(verdict['prompts']), 'prompt')} of {counted(int(about['seeds']), 'draw')}): "
        f"{label}{why}."
    )


def verdict_read(verdict: xr.Dataset) -> str:
    """How to read the figure of the internal verdict; of the architecture before training what was found of it."""
    beside = ""
    if "null_verdict" in verdict:
        label, _ = _labelled(verdict, "null_verdict", "null_reason")
        beside = (
            f"Beside it the same architecture before training ({label}): what training has made is the difference. "
        )
    return (
        "What is left of a disturbance relative to the stream, against depth: left of the shaded margin it dies away like a piano "
        f"string, right of it it grows as in a pile above critical size. {beside}The first block is left out of the slopes (open: with "
        "it), since it lifts small embeddings whatever it has learned. A label needs both, on site and over all positions; intervals "
        "are over prompts, and without one nothing is claimed."
    )


def repair_read(repair: xr.Dataset) -> str:
    """How to read the figure of a head that is taken out, and what becomes of it."""
    layer, head = json.loads(repair.attrs["parameters"])["head"]
    direct, total = (float(repair[name].mean()) for name in ("direct", "total"))
    return (
        "One head is taken out: what that costs if nothing else changes, what the final norm and each later part change about it, and what "
        f"it costs in all. Here {way_of(f'{layer}.{head}', direct, total, max(abs(direct), abs(total)))}."
    )


def before_training(own: xr.Dataset, null: xr.Dataset) -> str:
    """What is said of a figure of the random-init twin beside the model's own: where it is of another head, that."""
    heads = [json.loads(one.attrs["parameters"]).get("head") for one in (own, null)]
    if heads[0] == heads[1]:
        return BEFORE
    first, other = ("{}.{}".format(*head) for head in heads)
    return f"Before training, of another head: there {other} writes most for the answer, and not {first}. On the same scales."


def _labelled(verdict: xr.Dataset, label: str, reason: str) -> tuple[str, str]:
    """A label, and in brackets why there is none."""
    why = str(verdict[reason].item())
    return str(verdict[label].item()), f" ({why})" if why else ""
