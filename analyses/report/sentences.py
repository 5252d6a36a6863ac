"""What the numbers say of a prompt: each sentence is a function of them and says no more. The cascade's are in `cascade_sentences`."""

import json

import numpy as np
import xarray as xr

from analyses.plots.labels import visible
from interp.errors import ResultError

SLIGHT = 0.05
"""Share of the answer below which a patch, and share of the metric below which a difference, is said to do nothing to speak of."""

SEEN = 0.1
"""Share of attention below which no head is said to attend there."""

CLOSE, LOOSE = 0.8, 0.5
"""Rank correlations from which methods agree, and from which they agree in part."""

SAME = 0.02
"""Relative change below which something is said to stay as it is."""


def lens_sentence(lens: xr.Dataset) -> str:
    """The prediction, and from where up it stands. Raises ResultError where it is no number."""
    token, probability = str(lens["top_token"][0, -1, -1, 0].item()), float(lens["top_probability"][0, -1, -1, 0])
    if np.isnan(probability):
        raise ResultError("report: the prediction of these results is no number (NaN), so nothing can be said of it.")
    stands = float(lens["stands_from"][0, -1])
    if np.isnan(stands):
        where = "from where up it leads is not known"
    elif stands == float(lens["layer"][-1]):
        where = "it leads only at the output"
    elif stands == int(stands):
        where = f"it leads from the stream entering layer {stands:.0f} on"
    else:
        where = f"it leads from layer {int(stands)}'s attention on"
    return f"The model's next token is {quoted(token)} (probability {probability:.3f}); {where}."


def patching_sentence(patching: xr.Dataset) -> str:
    """The baselines, and how far the strongest patch goes: of all, and of those that enter the last layer."""
    one = patching.isel(prompt=0)
    effect, tokens = one["effect"].to_numpy(), one["clean_token"].to_numpy()
    metric = str(json.loads(patching.attrs["parameters"])["metric"]).replace("_", " ")
    clean, corrupt = (float(one[f"{run}_baseline"]) for run in ("clean", "corrupt"))
    begin = f"The {metric} is {clean:.2f} in the clean run and {corrupt:.2f} in the corrupt run"
    if not np.isfinite(effect).any():
        return f"{begin}; the effect of no patch is a number."

    def place(position: int) -> str:
        return f"position {position} ({quoted(str(tokens[position]))})"

    layer, position = (int(at) for at in np.unravel_index(int(np.nanargmax(effect)), effect.shape))
    most = float(effect[layer, position])
    if most < SLIGHT:
        return f"{begin}; the clean stream restores next to nothing of it at any single place (at most {most:.0%})."
    found = f"{begin}; the clean stream entering layer {layer} at {place(position)} restores {most:.0%} of it"
    late = effect[-1]
    if layer == len(effect) - 1 or not np.isfinite(late).any():
        return f"{found}, most of all places."
    last = int(np.nanargmax(late))
    if float(late[last]) < SLIGHT:
        return f"{found}, and entering the last layer no single position restores more than {float(late[last]):.0%}."
    return f"{found}, and entering the last layer {place(last)} restores most there, {float(late[last]):.0%}."


def heads_sentence(heads: xr.Dataset, methods: xr.Dataset) -> str:
    """The heads that restore most, and how far the methods agree on their order."""
    effect = heads["effect"][0].to_numpy()
    order = [int(at) for at in np.argsort(-effect, axis=None)[:3] if effect.flat[at] >= SLIGHT]
    found = [f"{name_of(at, effect)} ({effect.flat[at]:.0%})" for at in order]
    if found:
        begin = f"Of single heads, {listed(found)} restore{'s' if len(found) == 1 else ''} most"
    elif np.isfinite(effect).any():
        best = int(np.nanargmax(effect))
        begin = f"No single head restores much (at most {effect.flat[best]:.0%}, {name_of(best, effect)})"
    else:
        begin = "The effect of no single head is a number"
    return f"{begin}; {agreement(methods['rank_correlation'].to_numpy())}."


def agreement(correlation: np.ndarray) -> str:
    """How far methods agree on the order of heads, by their rank correlations [method, method]; those that are not defined are said."""
    count = len(correlation)
    every = correlation[np.triu_indices(count, k=1)]
    pairs = every[np.isfinite(every)]
    if not len(pairs):
        return f"the orders that {count} methods of patching put heads in cannot be compared"
    low, high = float(pairs.min()), float(pairs.max())
    at = f"rank correlation {low:.2f}" if len(pairs) == 1 else f"rank correlations from {low:.2f} to {high:.2f}"
    lacking = f"; {len(every) - len(pairs)} of {len(every)} pairs cannot be compared" if len(pairs) < len(every) else ""
    if low >= CLOSE:
        how = "agree on their order"
    elif low >= LOOSE:
        how = "agree in part on their order"
    elif high >= LOOSE:
        how = "disagree on their order, some of them more than others"
    else:
        how = "disagree on their order"
    return f"{count} methods of patching {how} ({at}{lacking})"


def detectors_sentence(table: xr.Dataset) -> str:
    """The heads that most do what is known of heads, on repeated random tokens; where none does it, that."""
    found = []
    for name, where in (
        ("previous_token", "to the token before"),
        ("induction", "to what followed the token's earlier occurrence"),
    ):
        values = table[name].to_numpy()
        if not np.isfinite(values).any():
            found.append(f"{where} not known")
            continue
        best = int(np.nanargmax(values))
        head = f"{name_of(best, values)} ({values.flat[best]:.0%})"
        found.append(f"{where} {head}" if values.flat[best] >= SEEN else f"{where} none much (at most {head})")
    return f"On repeated random tokens these heads attend most: {', '.join(found)}."


def attribution_sentence(attribution: xr.Dataset) -> str:
    """The parts that write most for and against, and the head whose total effect is farthest from what it writes."""
    one = attribution.isel(prompt=0)
    effect = one["component_effect"].to_numpy()
    parts = [str(part).replace("_", " ") for part in one["component"].to_numpy()]
    metric, units = float(one["metric"]), str(one["metric"].attrs["units"])
    begin = f"Of the {attribution['metric'].attrs['long_name']} of {metric:.2f} {units}"
    if not np.isfinite(effect).all():
        return f"{begin}, what the parts write is not known."
    most, least = int(effect.argmax()), int(effect.argmin())
    if effect[most] <= 0:
        written = f"no part writes towards it, and {parts[least]} {effect[least]:+.2f} against it"
    elif effect[least] >= 0:
        written = f"{parts[most]} writes {effect[most]:+.2f}, and no part against it"
    else:
        written = f"{parts[most]} writes {effect[most]:+.2f} and {parts[least]} {effect[least]:+.2f}"
    direct, total = one["replaced_effect"].to_numpy(), one["total_effect"].to_numpy()
    gap = np.abs(total - direct)
    if not np.isfinite(gap).any():
        return f"{begin}, {written}."
    head = int(np.nanargmax(gap))
    size = max(abs(metric), float(np.abs(effect).max()))
    found = gap_between(name_of(head, gap), float(direct.flat[head]), float(total.flat[head]), size)
    return f"{begin}, {written}; {found}."


def gap_between(head: str, direct: float, total: float, size: float) -> str:
    """What it means that the metric falls by more or less without a head than without what it writes.

    Args:
        direct: the fall where what it writes is taken from the sum alone; total: where the head is taken out of the run.
        size: of the metric, of which a gap must be a share to be spoken of.
    """
    effects = f"it costs {direct:+.2f} to take it from the sum alone, and {total:+.2f} to take it out of the run"
    return f"{way_of(head, direct, total, size)} ({effects})"


def way_of(head: str, direct: float, total: float, size: float) -> str:
    """Whether later parts make up for a head, or it works through them; arguments as for `gap_between`."""
    if abs(total - direct) < SLIGHT * size:
        return (
            f"later parts neither make up for head {head} nor does it work through them, nor any other more than that"
        )
    if abs(direct) >= SLIGHT * size and direct * total < 0 and abs(total) >= SLIGHT * size:
        return f"later parts turn round what head {head} does"
    if abs(total) > abs(direct):
        return f"head {head} works through later parts"
    return f"later parts make up for head {head}"


def stream_sentence(stream: xr.Dataset) -> str:
    """How the stream's norm goes, and what the first token carries."""
    one = stream.isel(prompt=0)
    mean, first = one["mean_norm"].to_numpy(), one["first_norm"].to_numpy()
    massive, apart = int(one["massive"].sum()), int(one["set_apart"].sum())
    over = "mean over tokens" if not apart else f"mean over tokens, {apart} set apart"
    rest = (
        f"{course(float(mean[-1] / mean[0]), 'goes')} from {mean[0]:.1f} to {mean[-1]:.1f}"
        if np.isfinite(mean[[0, -1]]).all()
        else "cannot be told from a single token"
    )
    return (
        f"The norm of the stream {rest} ({over}; the first has at most {first.max():.1f}); "
        f"{massive or 'no'} massive activation{'' if massive == 1 else 's'}."
    )


def course(ratio: float, still: str) -> str:
    """`grows`, `shrinks`, or what is said where it does neither."""
    return "grows" if ratio > 1 + SAME else "shrinks" if ratio < 1 - SAME else still


def name_of(at: int, values: np.ndarray) -> str:
    """LAYER.HEAD of a place in an array [layer, head]."""
    layer, head = np.unravel_index(int(at), values.shape)
    return f"{layer}.{head}"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def quoted(token: str) -> str:
    """A token in quotation marks, white space visible."""
    return f"“{visible(token)}”"
