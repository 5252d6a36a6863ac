"""Scores of every head, layer by head, and which head reads which."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.grid import reach_of
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, subtitled, where_read
from analyses.plots.theme import DIVERGING, FAINT, INK, LINES, SEQUENTIAL, TEMPLATE, WIDEST
from interp.errors import ResultError

COLUMNS = 4

SHARE = "Blues"
SHARES = ("previous_token", "duplicate_token", "induction", "current_token", "first_token")
"""Scores that are shares of a head's attention: on one scale, since one of 0.05 shall not look like one of 0.85."""


@draws("head_table", "head_detectors", "head_importance")
def plot_heads(result: xr.Dataset, *, scores: Sequence[str] | None = None) -> go.Figure:
    """A small heatmap, layer by head, for every score. Shares of attention have one scale, from 0 to 1, importances by several replacements
    another; every other score has its own in other colours, centred on zero where the score can be negative.

    Args:
        result: of `analyses.head_table`, `analyses.detect_heads` or `analyses.head_importance`.
        scores: which; None is all of them.

    Raises:
        ResultError: a score that the result does not have.
    """
    grids = _grids(result)
    if scores is not None:
        if missing := set(scores) - set(grids):
            raise ResultError(f"plot_heads: no score {sorted(missing)}; there are {', '.join(grids)}.")
        grids = {name: grids[name] for name in scores}
    absent = [name for name, values in grids.items() if not np.isfinite(values).any()]
    grids = {name: values for name, values in grids.items() if name not in absent} or grids
    rows = -(-len(grids) // COLUMNS)
    layers = result.sizes["layer"]
    height = 120 + max(1, min(22, 320 // layers)) * layers
    fig = make_subplots(
        rows, COLUMNS, subplot_titles=[name.replace("_", " ") for name in grids], horizontal_spacing=0.09,
        vertical_spacing=min(0.3, 74 / (rows * height)),
    )  # fmt: skip
    for number, (name, values) in enumerate(grids.items()):
        row, column = divmod(number, COLUMNS)
        units = result[name.split(", ")[0]].attrs["units"]
        scale = _scale(name, grids, units)
        axis = fig.get_subplot(row + 1, column + 1)
        across, up = axis.xaxis.domain, axis.yaxis.domain
        fig.add_heatmap(
            z=values, **scale, xgap=1, ygap=1, name=name,
            hovertemplate="head %{y}.%{x}<br>%{z:.3f}" + ("" if units == "1" else f" {units}") + "<extra></extra>", hoverongaps=False,
            colorbar={
                "x": across[1] + 0.002, "y": sum(up) / 2, "len": up[1] - up[0], "thickness": 7, "tickfont": {"size": 10}, "nticks": 4,
            },
            row=row + 1, col=column + 1,
        )  # fmt: skip
        fig.update_xaxes(dtick=1, showgrid=False, row=row + 1, col=column + 1)
        fig.update_yaxes(dtick=1, showgrid=False, row=row + 1, col=column + 1)
        if column == 0:
            fig.update_yaxes(title="layer", row=row + 1, col=1)
        if number >= len(grids) - COLUMNS:
            fig.update_xaxes(title="head", row=row + 1, col=column + 1)
    shares = "shares of attention: one scale, 0 to 1" if any(name in SHARES for name in grids) else ""
    none = f"this model has no {', '.join(absent).replace('_', ' ')}" if absent else ""
    where = where_read(json.loads(result.attrs["parameters"]))
    fig.update_layout(
        template=TEMPLATE,
        title=subtitled(
            f"Heads · {model_name(result)}", f"importance for the answer{where}" if where else "", shares, none
        ),
        width=WIDEST - 40,
        height=110 + rows * height,
        margin={"t": 84},
    )
    fig.update_annotations(font={"size": 12})
    return fig


def _scale(name: str, grids: Mapping[str, np.ndarray], units: str) -> dict[str, Any]:
    """Colours of a score, and how far they reach: alike for what is to be compared by eye."""
    if name in SHARES:
        return {"colorscale": SHARE, "zmin": 0, "zmax": 1}
    of = name.split(", ")[0]  # by whatever replacement
    values = np.stack([grid for other, grid in grids.items() if other.split(", ")[0] == of])
    reach = reach_of(values, units=units)
    if (values[np.isfinite(values)] < -0.02).any():
        return {"colorscale": DIVERGING, "zmin": -reach, "zmax": reach}
    return {"colorscale": SEQUENTIAL, "zmin": 0, "zmax": reach}


def _grids(result: xr.Dataset) -> dict[str, np.ndarray]:
    """Every score [layer, head]: means over prompts, one for each replacement."""
    grids: dict[str, np.ndarray] = {}
    for name, values in result.data_vars.items():
        name = str(name)
        of_prompts = any(
            name.removesuffix(end) in result for end in ("_interval", "_mean", "_standard_error") if name.endswith(end)
        )
        if of_prompts or not np.issubdtype(values.dtype, np.number):
            continue
        if not {"layer", "head"} <= set(values.dims):
            continue
        mean = values.mean("prompt") if "prompt" in values.dims else values
        if "replacement" in mean.dims:
            grids |= {
                f"{name}, {one!s}": mean.sel(replacement=one).to_numpy() for one in mean["replacement"].to_numpy()
            }
        else:
            grids[name] = mean.transpose("layer", "head").to_numpy()
    return grids


@draws("head_composition")
def plot_composition(result: xr.Dataset, *, strongest: int = 20, way: str | None = None) -> go.Figure:
    """Heads as points, layer upon layer, and a line for each of the pairs that compose most above chance: from the head that writes up to
    the one that reads.

    Args:
        result: of `analyses.composition`.
        strongest: how many pairs.
        way: "Q", "K" or "V"; None is all three, each in its colour.

    Raises:
        ResultError: another way.
    """
    ways = [str(one) for one in result["way"].to_numpy()]
    if way is not None and way not in ways:
        raise ResultError(f"plot_composition: way {way!r}; expected one of {', '.join(ways)}.")
    shown = result if way is None else result.sel(way=[way])
    series = shown["excess"].to_series().dropna().sort_values(ascending=False).head(strongest)
    series = series[series > 0]
    fig = go.Figure(layout={"template": TEMPLATE})
    largest = float(series.max()) if len(series) else 1.0
    baseline = float(result["baseline"][0])
    seen: set[str] = set()
    for (how, from_layer, from_head, to_layer, to_head), value in series.items():
        bend = 0.12 * (ways.index(how) - 1)  # so that two ways between the same heads stay apart
        middle = ((from_head + to_head) / 2 + bend, (from_layer + to_layer) / 2)
        said = f"{to_layer}.{to_head} reads {from_layer}.{from_head} by {how}<br>{value + baseline:.3f}, {value:.3f} above chance"
        fig.add_scatter(
            x=[from_head, middle[0], to_head], y=[from_layer, middle[1], to_layer], mode="lines", name=f"{how}-composition",
            legendgroup=how, showlegend=how not in seen, 
            line={"color": LINES[ways.index(how)], "width": 0.8 + 4 * value / largest, "shape": "spline"},
            opacity=0.75, hovertemplate=said + "<extra></extra>",
        )  # fmt: skip
        seen.add(how)
    layers, heads = result.sizes["layer"], result.sizes["head"]
    grid = [(layer, head) for layer in range(layers) for head in range(heads)]
    fig.add_scatter(
        x=[head for _, head in grid], y=[layer for layer, _ in grid], mode="markers+text" if heads <= 12 and layers <= 30 else "markers",
        text=[f"{layer}.{head}" for layer, head in grid], textposition="middle right", textfont={"size": 10, "color": INK},
        marker={"size": 9 if layers <= 30 else 5, "color": FAINT}, showlegend=False, hovertemplate="head %{text}<extra></extra>",
    )  # fmt: skip
    fig.update_xaxes(title="head", dtick=1, showgrid=False, range=[-0.5, heads - 0.2])
    fig.update_yaxes(title="layer", dtick=1, showgrid=False, range=[-0.5, layers - 0.5])
    fig.update_layout(
        title=f"Which head reads which · {model_name(result)}"
        f"<br><sup>the {len(series)} strongest pairs; random heads score {baseline:.3f}</sup>",
        width=min(WIDEST, max(560, 160 + 66 * heads)),
        height=190 + min(62, 1200 // layers) * layers,
        margin={"t": 92, "b": 96},
        legend={"y": -64 / (min(62, 1200 // layers) * layers), "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    return fig
