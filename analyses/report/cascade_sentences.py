"""What the numbers say of the cascade, inside and outside: each sentence is a function of them and says no more."""

import json

import numpy as np
import xarray as xr

from analyses.plots.labels import counted
from analyses.report.sentences import course, listed, way_of

BEFORE = "The same before training, on the same scales."

EVEN = 1.1
"""Largest slope of the way from one activation to another up to which it is hardly told from that of an affine model."""

RESIDUE = 1e-9
"""A difference of shares up to this is what adding floats leaves of none."""


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


def precision_read(precision: xr.Dataset) -> str:
    """How to read the figure of what rounding loses; of each precision, what is lost and from where on the answer is the signal's."""
    signal = precision["regime_share"].sel(regime="signal-dominated").mean("prompt")
    doses = precision["dose"].to_numpy()

    def found(name: str) -> str:
        lost = float(precision["lost_median"].sel(precision=name))
        holds = signal.sel(precision=name).to_numpy() >= 0.5
        last = np.flatnonzero(~holds)  # the doses at which it does not hold; from the one after the last on it does
        begin = 0 if not len(last) else int(last[-1]) + 1
        gone = (
            f"half or more are lost up to a dose of {lost:.0e}"
            if lost
            else "not even half are lost at the smallest dose"
        )
        if begin == len(doses):
            return f"in {name} {gone}, and at the largest dose less than half are the signal's"
        from_where = "at every dose" if begin == 0 else f"from a dose of {doses[begin]:.0e} on"
        return f"in {name} {gone}, and {from_where} half or more are the signal's"

    return (
        "A disturbance is lost to rounding where not one bit of the logits changes. A larger one may still be chaotic: the next token's "
        "draw then differs mostly by how roundings fall, and not by what the same weights give in float64, which is the signal. Here "
        f"{'; '.join(found(str(name)) for name in precision['precision'].to_numpy())}."
    )


def regions_read(regions: xr.Dataset) -> str:
    """How to read the figure of the way from one activation to another, and of mixtures; where the way is steepest."""
    begin = (
        "The stream at the last position goes over from one prompt's to another's. The output of an affine model would go along evenly, "
        "with slope 1; a flat region that ends in a jump has a larger one. Right, how two directions add up: 1/p is ½ where the output "
        "answers to them as a quadratic form does, and 0 where each has a threshold of its own. Here "
    )
    slope, inverse = regions["slope"].mean("prompt").to_numpy(), regions["inverse_exponent"].mean("prompt").to_numpy()
    if not np.isfinite(slope).any():
        return f"{begin}both prompts have the same stream there, so that there is no way to go."
    at, layer = int(np.nanargmax(slope)), regions["layer"].to_numpy()
    picked = ", of the layer picked as steepest" if np.isfinite(slope).sum() > 1 else ""
    bounds = regions.get("slope_interval")
    low, high = (np.nan, np.nan) if bounds is None else bounds.to_numpy()[:, at]
    steepest = f"{slope[at]:.2f}{'' if np.isnan([low, high]).any() else f' ({low:.2f} to {high:.2f}{picked})'}"
    if slope[at] <= EVEN:
        way = f"the way is nearly even at every layer that was looked at: its largest slope is {steepest}"
    else:
        way = f"the way is steepest entering layer {layer[at]}, with slope {steepest}"
    if not np.isfinite(inverse).any():
        return f"{begin}{way}; 1/p is not known."
    least, most = np.nanmin(inverse), np.nanmax(inverse)
    return f"{begin}{way}; 1/p is {least:.2f}{'' if least == most else f' to {most:.2f}'}."


def rasters_read(rasters: xr.Dataset) -> str:
    """How to read the figure of rasters, and whether branching is told from that of chance."""
    share = json.loads(rasters.attrs["parameters"])["rate"]
    found = []
    for raster, where in (("depth", "from layer to layer"), ("text", "from step to step of the text")):
        if raster in rasters["raster"]:
            found.append(f"{where} {_beyond_chance(rasters.sel({'raster': raster, 'null': 'permuted'}))}")
    return (
        f"Left, the {share:.0%} of places that one small disturbance moves most, for their size. Right, the branching ratio: of what is "
        "disturbed in one layer (or at one step), the share that is so in the next too, less the same where the places of each column are "
        "put in any order (permuted) or moved on together (shifted), so that how much is disturbed in each column cannot make it. Right of "
        f"0 the same tokens, or draws, stay disturbed. Here, against permuted ones, {'; '.join(found)}."
    )


def _beyond_chance(one: xr.Dataset) -> str:
    """The difference of a raster's branching to the null's, and whether its interval holds 0."""
    values = one["difference"].to_numpy()
    values = values[np.isfinite(values)]
    if not len(values):
        told_apart = "branching" in one and bool(np.isfinite(one["branching"]).any())
        why = "in any order it would be the same" if told_apart else "nothing is disturbed or everything is"
        return f"it is not known, since {why}"
    mean, bounds = float(values.mean()), one.get("difference_interval")
    if bounds is None or not np.isfinite(bounds).all():
        return f"it is {mean:+.3f}, without an interval"
    low, high = bounds.to_numpy()
    side = "more than chance" if low > RESIDUE else "less than chance" if high < -RESIDUE else "not told from chance"
    return f"it is {mean:+.3f} ({low:+.3f} to {high:+.3f}), {side}"


def commitment_read(commitment: xr.Dataset) -> str:
    """How to read the figure of the branch, and what the places of each role restore at the first and at the last layer."""
    margin = commitment.sel(measure="margin")
    layers = margin["layer"].to_numpy()

    def restored(at: int) -> str:
        own = margin["restored"].isel(layer=at).mean("prompt")
        shares = {str(role): float(own.sel(role=role)) for role in own["role"].to_numpy()}
        told = [f"{NAMED[role]} {_percent(share)}" for role, share in shares.items() if np.isfinite(share)]
        told.append(f"a random place {_percent(float(margin['random'].isel(layer=at).mean('prompt')))}")
        return f"entering layer {layers[at]} {listed(told)}"

    ends = [0] if len(layers) == 1 else [0, len(layers) - 1]
    return (
        "At the first token in which the two texts differ, the stream of the clean run is put into the disturbed one, a single place at a "
        "time: 1 gives back all of what speaks for the clean text's token over the other's, 0 nothing. Going up the layers, it "
        f"is seen where what decides between the two sits. Of that, {', and '.join(restored(at) for at in ends)} restore."
    )


def _percent(share: float) -> str:
    """A share, without a sign where it is none."""
    return f"{round(share, 2) + 0.0:.0%}"


NAMED = {
    "changed": "changed tokens", "rest of the prompt": "the rest of the prompt", "generated": "tokens that were generated",
    "last": "the last token",
}  # fmt: skip
"""What the roles of places are called in a sentence, see `analyses.cascade.commitment`."""


def wavefront_read(wavefront: xr.Dataset) -> str:
    """How to read the picture of one disturbance."""
    beside = "Beneath, the same before training, on a text of its own. " if wavefront.sizes["weights"] > 1 else ""
    return (
        "One prompt and the same disturbed, continued on the same random numbers. Dark is where the two streams are alike, bright where "
        "they have nothing to do with each other. Left of the line the disturbance goes up the layers and on to later tokens by "
        f"attention; right of it also by tokens that came out otherwise, which are bold. {beside}One draw is shown; the rest of this page "
        "is about many."
    )


def picture_sentence(wavefront: xr.Dataset) -> str:
    """How many tokens one disturbance changed, and how far apart the streams are at the output."""
    drawn = wavefront["generated"].to_numpy() == 1
    differ = (wavefront["token_id"] != wavefront["other_token_id"]).to_numpy()[:, drawn]
    output = wavefront["distance"].to_numpy()[:, -1][:, drawn].mean(-1)
    trained = f"{int(differ[0].sum())} of {counted(int(drawn.sum()), 'token')}"
    twin = f" (before training {int(differ[1].sum())}; {output[1]:.2f})" if len(differ) > 1 else ""
    return (
        f"One disturbance changes {trained} that the model goes on to write, where the streams at the output are {output[0]:.2f} apart on "
        f"average, of 1.41 for unrelated ones{twin}."
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
