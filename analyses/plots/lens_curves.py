"""Lenses as curves against depth: whole prompts, and chosen tokens at one position."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.averaged import is_averaged, prompts_in
from analyses.plots.bands import band, interval
from analyses.plots.labels import label, model_name, named, place, subtitled, which
from analyses.plots.markup import as_text
from analyses.plots.theme import DASHES, FAINT, LINES, TEMPLATE, look
from interp.errors import ResultError

CURVES = (("kl", "KL to the final distribution"), ("cross_entropy", "cross-entropy of the true next token"))


@as_text
def plot_lens_curves(results: Mapping[str, xr.Dataset]) -> go.Figure:
    """Mean KL and cross-entropy against depth, one curve for each lens or set of prompts; bands are 95 % intervals over prompts.

    Args:
        results: of `analyses.logit_lens` or `analyses.tuned_lens`, by the name that each shall have.

    Raises:
        ResultError: no results, or more than can be told apart.
    """
    most = len(LINES) * len(DASHES)
    if not 0 < len(results) <= most:
        raise ResultError(f"plot_lens_curves draws 1 to {most} results, got {len(results)}.")
    fig = make_subplots(1, 2, subplot_titles=[title for _, title in CURVES], horizontal_spacing=0.1)
    for number, (name, result) in enumerate(results.items()):
        (line, marker), layers = look(number), result["layer"].to_numpy()
        color = line["color"]
        for column, (variable, _) in enumerate(CURVES, start=1):
            stated = (
                result[f"mean_{variable}_mean"]
                if is_averaged(result)
                else result[variable].mean("position").mean("prompt")
            )
            mean = stated.to_numpy()
            if (bounds := interval(result, f"mean_{variable}_interval")) is not None:
                fig.add_trace(band(layers, bounds, color), row=1, col=column)
            fig.add_scatter(
                x=layers, y=mean, mode="lines+markers", name=named(name), legendgroup=name, showlegend=column == 1,
                line=line | {"width": 2}, marker=marker, hovertemplate="layer %{x}<br>%{y:.3f} nats<extra></extra>", row=1, col=column,
            )  # fmt: skip
    fig.update_xaxes(title="stream entering layer")
    fig.update_yaxes(title="nats", rangemode="tozero")
    counts = {prompts_in(result) for result in results.values()}
    over = f"mean over the tokens of {counts.pop()} prompts" if len(counts) == 1 else "mean over tokens and prompts"
    fig.update_layout(
        template=TEMPLATE,
        title=f"Lenses against depth · {model_name(next(iter(results.values())))}<br><sup>{over}; bands: 95 % interval over prompts</sup>",
        width=920,
        height=420,
        margin={"t": 96, "b": 96},
        legend={"y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    fig.update_annotations(font={"size": 13})
    return fig


@as_text
def plot_trajectories(result: xr.Dataset, *, prompt: int = 0, position: int = -1) -> go.Figure:
    """Probability and rank of the chosen tokens at one position against depth.

    Args:
        result: of `analyses.logit_lens` or `analyses.tuned_lens`, with candidates.
        prompt, position: which; a negative position counts from the prompt's end.

    Raises:
        ResultError: a result without candidates, or a prompt or position that is not there.
    """
    if result.sizes["candidate"] == 0:
        raise ResultError("plot_trajectories: the result follows no tokens; run the lens with candidates=[...].")
    one = result.isel(prompt=place(result.sizes, "prompt", prompt))
    one = one.isel(position=one["token_id"].to_numpy() >= 0)
    at = place(one.sizes, "position", position % one.sizes["position"] if position < 0 else position)
    one = one.isel(position=at)
    fig = make_subplots(1, 2, subplot_titles=["probability", "rank among all tokens"], horizontal_spacing=0.1)
    layers, steps = one["layer"].to_numpy(), [f"stream after {step}" for step in one["step"].to_numpy()]
    for number, token in enumerate(one["candidate"].to_numpy()):
        (line, marker), name = look(number), label(str(token))
        values = (
            np.exp(one["candidate_log_probability"][:, number].to_numpy()),
            one["candidate_rank"][:, number].to_numpy() + 1,
        )
        for column, (y, said) in enumerate(zip(values, ("probability %{y:.3f}", "rank %{y}"), strict=True), start=1):
            fig.add_scatter(
                x=layers, y=y, mode="lines+markers", name=name, legendgroup=name, showlegend=column == 1, text=steps,
                line=line | {"width": 2}, marker=marker, hovertemplate="%{text}<br>" + said + "<extra></extra>", row=1, col=column,
            )  # fmt: skip
    fig.add_vline(x=float(one["stands_from"]), line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=1)
    fig.update_xaxes(title="stream entering layer")
    fig.update_yaxes(title="probability", range=[-0.02, 1.02], row=1, col=1)
    fig.update_yaxes(title="rank (1 leads)", type="log", autorange="reversed", dtick=1, row=1, col=2)
    token = label(str(one["token"].item()))
    fig.update_layout(
        template=TEMPLATE,
        title=subtitled(
            f"What forms after “{token}” · {model_name(result)}",
            which(result, prompt),
            "dotted: the layer from which the final prediction leads",
        ),
        width=920,
        height=420,
        margin={"t": 96, "b": 96},
        legend={"y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    fig.update_annotations(font={"size": 13})
    return fig
