"""Attention patterns as heatmaps."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.averaged import check_one, is_averaged, prompts_in
from analyses.plots.kinds import draws
from analyses.plots.labels import axis, label, model_name, place, subtitled, which
from analyses.plots.markup import as_text
from analyses.plots.theme import FAINT, TEMPLATE, figure
from interp.whole_numbers import takes_whole

SCALE = "Blues"

PATTERN = 900
"""Pixels of one head's pattern at most."""

MOST, ACROSS = 64, 12
"""Heads with a panel each, and of a layer; more are drawn as one picture, which takes a browser seconds in place of minutes."""

TILE = 24
"""Cells of a head along either side of that picture: where there are more tokens, each is the largest of several."""


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
        subtitled(f"Attention of head {layer}.{head} · {model_name(result)}", which(result, prompt)),
        min(PATTERN, 210 + 30 * len(keys)),
        min(PATTERN, 190 + 26 * len(queries)),
    )
    fig.add_heatmap(
        z=_shown(one),
        customdata=[[[label(str(q)), label(str(k))] for k in keys] for q in queries],
        hovertemplate="from %{customdata[0]} (%{y})<br>to %{customdata[1]} (%{x})<br>attention %{z:.3f}<extra></extra>",
        colorscale=SCALE,
        zmin=0,
        zmax=1,
        hoverongaps=False,
        colorbar={"title": {"text": "attention", "side": "top"}},
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
    title = f"Attention of every head · {model_name(result)}"
    if layers * heads > MOST or heads > ACROSS:
        return _picture(patterns, numbers, title, which(result, prompt))
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
        title=subtitled(
            title, f"mean over {prompts_in(result)} prompts" if is_averaged(result) else which(result, prompt)
        ),
        coloraxis={
            "colorscale": SCALE,
            "cmin": 0,
            "cmax": 1,
            "colorbar": {"title": {"text": "attention", "side": "top"}},
        },
        width=min(1100, 140 + 140 * heads),
        height=120 + 125 * layers,
    )
    return fig


def _picture(patterns: xr.Dataset, numbers: list[int], title: str, of: str) -> go.Figure:
    """All heads in one heatmap, layer by head, a tile each with a gap about it."""
    layers, heads = len(numbers), patterns.sizes["head"]
    tiles = [[_tile(_shown(patterns.isel(layer=row, head=head))) for head in range(heads)] for row in range(layers)]
    side = len(tiles[0][0])
    z = np.block([[np.pad(tile, (0, 1), constant_values=np.nan) for tile in row] for row in tiles])[:-1, :-1]
    step = -(-patterns.sizes["key"] // side)
    places = [(np.arange(cells) - (side - 1) / 2) / (side + 1) for cells in z.shape]  # a head's middle has its number
    across = min(140, 940 // heads)
    fig = figure(
        subtitled(title, of, f"each cell the largest of {step} by {step} tokens" if step > 1 else ""),
        max(520, 160 + across * heads),
        150 + min(across, max(4, 1250 // layers)) * layers,
    )
    fig.add_heatmap(
        z=np.round(z, 3).astype(np.float32), x=places[1], y=numbers[0] + places[0], colorscale=SCALE, zmin=0, zmax=1, hoverongaps=False,
        hovertemplate="layer %{y:.0f}, head %{x:.0f}<br>attention %{z:.3f}<extra></extra>",
        colorbar={"title": {"text": "attention", "side": "top"}},
    )  # fmt: skip
    ticks = {"showgrid": False, "ticks": ""}
    fig.update_xaxes(
        title="head", tickvals=list(range(heads)), ticktext=[str(head) for head in range(heads)], tickangle=0, **ticks
    )
    fig.update_yaxes(
        title="layer", tickvals=numbers, ticktext=[str(one) for one in numbers], autorange="reversed", **ticks
    )
    return fig


def _tile(pattern: np.ndarray) -> np.ndarray:
    """A pattern in few cells, each the largest of those in its place."""
    count = len(pattern)
    step = -(-count // TILE)
    side = -(-count // step)
    whole = np.pad(np.where(np.isnan(pattern), -1.0, pattern), (0, side * step - count), constant_values=-1.0)
    largest = whole.reshape(side, step, side, step).max((1, 3))
    return np.where(largest < 0, np.nan, largest)


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
