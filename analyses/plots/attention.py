"""Attention patterns as heatmaps."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.averaged import check_one, is_averaged, prompts_in
from analyses.plots.kinds import draws
from analyses.plots.labels import axis, label, model_name, place
from analyses.plots.markup import as_text
from analyses.plots.theme import FAINT, TEMPLATE, figure
from interp.whole_numbers import takes_whole

SCALE = "Blues"


@as_text
@takes_whole("layer", "head", "prompt")
def plot_head(result: xr.Dataset, *, layer: int, head: int, prompt: int = 0) -> go.Figure:
    """One head's pattern, query by key, with the tokens along both axes.

    Args:
        result: of `analyses.attention_patterns`.
        layer, head, prompt: which pattern.
    """
    one = _patterns(result, prompt).isel(
        layer=place(result.sizes, "layer", layer), head=place(result.sizes, "head", head)
    )
    queries, keys = one["query_token"].to_numpy(), one["key_token"].to_numpy()
    fig = figure(
        f"Attention of head {layer}.{head} · {model_name(result)}", 210 + 30 * len(keys), 190 + 26 * len(queries)
    )
    fig.add_heatmap(
        z=_shown(one),
        customdata=[[[label(str(q)), label(str(k))] for k in keys] for q in queries],
        hovertemplate="from %{customdata[0]} (%{y})<br>to %{customdata[1]} (%{x})<br>attention %{z:.3f}<extra></extra>",
        colorscale=SCALE,
        zmin=0,
        zmax=1,
        hoverongaps=False,
        colorbar={"title": {"text": "attention", "side": "right"}},
    )
    fig.update_xaxes(title="key: attended to", tickangle=-60, **axis(keys))
    fig.update_yaxes(title="query: attends from", autorange="reversed", **axis(queries))
    return fig


@draws("attention_patterns")
def plot_attention(result: xr.Dataset, *, prompt: int = 0, layer: int | None = None) -> go.Figure:
    """All heads side by side, of all layers or of one, one colour scale for all.

    Args:
        result: of `analyses.attention_patterns`.
        prompt: which of its prompts.
        layer: which; None is all of them.
    """
    patterns = _patterns(result, prompt)
    if layer is not None:
        patterns = patterns.isel(layer=[place(result.sizes, "layer", layer)])
    numbers = patterns["layer"].to_numpy().tolist()
    layers, heads = len(numbers), result.sizes["head"]
    fig = make_subplots(
        layers,
        heads,
        horizontal_spacing=min(0.012, 0.3 / heads),
        vertical_spacing=min(0.03, 0.3 / layers),
        shared_xaxes=True,
        shared_yaxes=True,
    )
    for row in range(layers):
        for head in range(heads):
            name = f"{numbers[row]}.{head}"
            fig.add_heatmap(
                z=_shown(patterns.isel(layer=row, head=head)),
                name=name,
                hovertemplate=f"head {name}<br>query %{{y}}, key %{{x}}<br>attention %{{z:.3f}}<extra></extra>",
                coloraxis="coloraxis",
                hoverongaps=False,
                row=row + 1,
                col=head + 1,
            )
    axes = {
        "showticklabels": False,
        "ticks": "",
        "showgrid": False,
        "showline": True,
        "mirror": True,
        "linecolor": FAINT,
    }
    fig.update_xaxes(**axes)
    fig.update_yaxes(autorange="reversed", **axes)
    for head in range(heads):
        fig.update_xaxes(title={"text": f"head {head}", "standoff": 4}, row=layers, col=head + 1)
    for row, number in enumerate(numbers):
        fig.update_yaxes(title={"text": f"layer {number}", "standoff": 4}, row=row + 1, col=1)
    fig.update_layout(
        template=TEMPLATE,
        title=f"Attention of every head · {model_name(result)}"
        + (f"<br><sup>mean over {prompts_in(result)} prompts</sup>" if is_averaged(result) else ""),
        coloraxis={
            "colorscale": SCALE,
            "cmin": 0,
            "cmax": 1,
            "colorbar": {"title": {"text": "attention", "side": "right"}},
        },
        width=min(1100, 140 + 140 * heads),
        height=120 + 125 * layers,
    )
    return fig


def _patterns(result: xr.Dataset, prompt: int) -> xr.Dataset:
    if is_averaged(result):  # whose positions hold no tokens
        check_one(result, prompt or None)
        return result.isel(prompt=0)
    one = result.isel(prompt=place(result.sizes, "prompt", prompt))
    return one.isel(query=one["query_token_id"].to_numpy() >= 0, key=one["key_token_id"].to_numpy() >= 0)


def is_causal(result: xr.Dataset) -> bool:
    """Whether the result's model sees no key after the query."""
    return bool(json.loads(result.attrs["model_config"])["causal"])


def _shown(one: xr.Dataset) -> np.ndarray:
    """The pattern; of a causal model with the keys after each query left blank: they are excluded, not merely unattended."""
    pattern = one["pattern"].to_numpy().astype(float)
    if is_causal(one):
        pattern[np.triu_indices(len(pattern), k=1)] = np.nan
    return pattern
