"""What the numbers say, in sentences. Each sentence states figures of the results and no more."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import xarray as xr

from analyses.plots.labels import visible
from analyses.report.circuit import circuit_sentence
from analyses.report.steps import made_of
from interp.errors import ResultError


def summary(results: Mapping[str, xr.Dataset]) -> list[str]:
    """One sentence or two for each section that a report has; where its result was left out, why."""
    sentences: list[tuple[Callable[..., str], list[str]]] = [
        (lens_sentence, ["lens"]),
        (patching_sentence, ["patching"]),
        (heads_sentence, ["heads", "methods"]),
        (circuit_sentence, ["circuit_edges", "circuit_faithfulness"]),
        (detectors_sentence, ["head_table"]),
        (attribution_sentence, ["attribution"]),
        (stream_sentence, ["stream"]),
        (gain_sentence, ["gain"]),
        (internal_sentence, ["verdict"]),
        (external_sentence, ["external"]),
    ]
    lines = []
    for say, names in sentences:
        line = made_of(results, names, partial(_said, say, results, names))
        lines += [] if line is None else [str(line)]
    return lines


def _said(say: Callable[..., str], results: Mapping[str, xr.Dataset], names: Sequence[str]) -> str:
    return say(*(results[name] for name in names))


def lens_sentence(lens: xr.Dataset) -> str:
    """The prediction, and from where up it stands. Raises ResultError where it is no number."""
    token, probability = str(lens["top_token"][0, -1, -1, 0].item()), float(lens["top_probability"][0, -1, -1, 0])
    if np.isnan(probability):
        raise ResultError("report: the prediction of these results is no number (NaN), so nothing can be said of it.")
    stands = float(lens["stands_from"][0, -1])
    where = (
        f"from the stream entering layer {stands:.0f} on"
        if stands == int(stands)
        else f"from layer {int(stands)}'s attention on"
    )
    where = "only at the output" if stands == float(lens["layer"][-1]) else where
    return f"The model's next token is {quoted(token)} (probability {probability:.3f}); it leads {where}."


def patching_sentence(patching: xr.Dataset) -> str:
    """The baselines, and how far the strongest patch goes."""
    one = patching.isel(prompt=0)
    layer, position = np.unravel_index(int(np.nanargmax(one["effect"].to_numpy())), one["effect"].shape)
    late = one["effect"].to_numpy()[-1]
    last = int(np.nanargmax(late))
    return (
        f"The logit difference is {float(one['clean_baseline']):.2f} in the clean run and "
        f"{float(one['corrupt_baseline']):.2f} in the corrupt run. "
        f"The clean stream entering layer {layer} at position {position} ({quoted(str(one['clean_token'].to_numpy()[position]))}) restores "
        f"{float(one['effect'][layer, position]):.0%} of it; entering the last layer, position {last} "
        f"({quoted(str(one['clean_token'].to_numpy()[last]))}) restores most, {late[last]:.0%}."
    )


def heads_sentence(heads: xr.Dataset, methods: xr.Dataset) -> str:
    """The heads that restore most, and how far the methods agree on their order."""
    effect = heads["effect"][0].to_numpy()
    order = np.argsort(-effect, axis=None)[:3]
    found = [
        f"{layer}.{head} ({effect[layer, head]:.0%})"
        for layer, head in zip(*np.unravel_index(order, effect.shape), strict=True)
    ]
    correlation = methods["rank_correlation"].to_numpy()
    others = correlation[np.triu_indices(len(correlation), k=1)]
    agreement = (
        "cannot be compared"
        if np.isnan(others).all()
        else f"agree with rank correlations from {np.nanmin(others):.2f} to {np.nanmax(others):.2f}"
    )
    return (
        f"Of single heads, {', '.join(found)} restore most. {len(correlation)} methods of patching heads {agreement}."
    )


def detectors_sentence(table: xr.Dataset) -> str:
    """The heads that most do what is known of heads, on repeated random tokens."""
    found = []
    for name, said in (
        ("previous_token", "to the token before"),
        ("induction", "to what followed the token's earlier occurrence"),
    ):
        values = table[name].to_numpy()
        layer, head = np.unravel_index(int(values.argmax()), values.shape)
        found.append(f"{said} {layer}.{head} ({values[layer, head]:.0%})")
    return f"On repeated random tokens these heads attend most: {', '.join(found)}."


def attribution_sentence(attribution: xr.Dataset) -> str:
    """The parts that write most for and against, and the head whose loss is most made up for."""
    one = attribution.isel(prompt=0)
    effect, parts = (
        one["component_effect"].to_numpy(),
        [str(part).replace("_", " ") for part in one["component"].to_numpy()],
    )
    units = str(one["metric"].attrs["units"])
    most, least = int(effect.argmax()), int(effect.argmin())
    repair = one["self_repair"].to_numpy()
    layer, head = np.unravel_index(int(np.abs(repair).argmax()), repair.shape)
    direct, total = (float(one[name][layer, head]) for name in ("head_effect", "total_effect"))
    total_of = f"{attribution['metric'].attrs['long_name']} of {float(one['metric']):.2f} {units}"
    return (
        f"Of the {total_of}, {parts[most]} writes {effect[most]:+.2f} and {parts[least]} {effect[least]:+.2f}. Head {layer}.{head} shows "
        f"the largest gap between what it writes ({direct:+.2f}) and what is lost without it ({total:+.2f})."
    )


def stream_sentence(stream: xr.Dataset) -> str:
    """How the stream's norm grows, and what the first token carries."""
    one = stream.isel(prompt=0)
    mean, first = one["mean_norm"].to_numpy(), one["first_norm"].to_numpy()
    massive = int(one["massive"].sum())
    apart = int(one["set_apart"].sum())
    over = "mean over tokens" if not apart else f"mean over tokens, {apart} set apart"
    rest = (
        f"grows from {mean[0]:.1f} to {mean[-1]:.1f}" if np.isfinite(mean[-1]) else "cannot be told from a single token"
    )
    return (
        f"The norm of the stream {rest} ({over}; the first has at most {first.max():.1f}); "
        f"{massive or 'no'} massive activation{'' if massive == 1 else 's'}."
    )


def gain_sentence(gain: xr.Dataset) -> str:
    """Growth to the output, absolute and relative."""
    absolute, relative = (float(np.exp(gain[name][0, -1])) for name in ("log_gain", "log_relative_gain"))
    verb = "grows" if relative > 1 else "shrinks"
    return (
        f"A disturbance injected at layer {int(gain['layer'][0])} is {absolute:.2f} times as large at the output (typical G); "
        f"relative to the stream it sits in, it {verb} on site by a factor of {relative:.2f} (typical Γ)."
    )


def internal_sentence(verdict: xr.Dataset) -> str:
    """The slopes above the first block, as trained and less those of the random twin, and what they give."""
    above = verdict["slope_mean"].sel(start="one block above")

    def slopes(subject: str) -> str:
        own = {str(reach): float(above.sel(subject=subject, reach=reach)) for reach in above["reach"].to_numpy()}
        return " and ".join(
            f"{value:+.3f} {'over ' * (reach == 'all positions')}{reach}" for reach, value in own.items()
        )

    prompts = int(verdict["prompts"])
    beside = "" if "difference" not in verdict else f", {slopes('difference')} more than before training"
    return (
        f"Above the first block ln Γ changes by {slopes('trained')} per layer{beside} ({prompts} prompt{'s' if prompts > 1 else ''}; "
        f"within ±{float(verdict['margin']):.3f} counts as none): {verdict['verdict'].item()}."
    )


def external_sentence(verdict: xr.Dataset) -> str:
    """What becomes of a disturbance outside, and on what that rests."""
    about = json.loads(verdict.attrs["parameters"])
    prompts = int(verdict["prompts"])
    over = f"{prompts} prompt{'s' if prompts > 1 else ''} of {about['seeds']} draws"
    alive, r, bounds = float(verdict["survival_share_mean"]), float(verdict["r"]), verdict["r_interval"].to_numpy()
    begets = "not known how many others" if np.isnan(r) else f"{r:.2f} others"
    interval = "" if np.isnan(bounds).any() else f" ({bounds[0]:.2f} to {bounds[1]:.2f})"
    return (
        f"As the model reads its own words, at temperature {about['temperature']:g}, {alive:.0%} of the texts still differ at the end of "
        f"{about['steps']} tokens, and each changed token changes {begets}{interval} ({over}): {verdict['verdict'].item()}."
    )


def chosen_head(attention: xr.Dataset, answer_id: int | None = None) -> tuple[int, int]:
    """The head whose last position attends most to the answer's token in the prompt; where it is not there, most to any
    one earlier position but the first."""
    from_last = attention["pattern"][0, :, :, -1, :].to_numpy()
    keys = attention["key_token_id"][0].to_numpy()
    if answer_id is not None and (keys == answer_id).any():
        score = from_last[..., keys == answer_id].sum(-1)
    elif len(keys) > 2:
        score = from_last[..., 1:-1].max(-1)
    else:
        score = from_last.max(-1)
    layer, head = np.unravel_index(int(score.argmax()), score.shape)
    return int(layer), int(head)


def parse_head(text: str, attention: xr.Dataset) -> tuple[int, int]:
    """Layer and head of "3.1". Raises ResultError where it is no such pair or the model has no such head."""
    return head_of(text, attention.sizes["layer"], attention.sizes["head"])


def head_of(text: str, layers: int, heads: int) -> tuple[int, int]:
    """The same for a model of so many layers and heads."""
    layer, dot, head = text.partition(".")
    if (
        dot
        and (layer + head).isascii()
        and layer.isdecimal()
        and head.isdecimal()
        and int(layer) < layers
        and int(head) < heads
    ):
        return int(layer), int(head)
    raise ResultError(f"head {text!r} is not one of this model: give LAYER.HEAD, from 0.0 to {layers - 1}.{heads - 1}.")


def quoted(token: str) -> str:
    """A token in quotation marks, white space visible."""
    return f"“{visible(token)}”"
