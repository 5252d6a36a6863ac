"""Rasters of what a disturbance makes active, and their branching against nulls."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import whisker
from analyses.plots.kinds import draws
from analyses.plots.labels import axis, counted, model_name, place
from analyses.plots.theme import FAINT, LINES, SEQUENTIAL, TEMPLATE

SAID = {"depth": "layers", "text": "text"}


@draws("cascade_rasters")
def plot_rasters(result: xr.Dataset, *, null: xr.Dataset | None = None, prompt: int = 0) -> go.Figure:
    """Left the share of directions in which each layer and token is among the most disturbed; right the branching ratio less that of the
    nulls, which keep how much is active in each column: each prompt a dot, the mean with its 95 % interval.

    Args:
        result: of `analyses.cascade.rasters`.
        null: the same of `random_twin`.
        prompt: whose raster.
    """
    one = result.isel(prompt=place(result.sizes, "prompt", prompt))
    tokens = [str(token) for token in one["token"].to_numpy() if token]
    layers = result["layer"].to_numpy()
    fig = make_subplots(
        1, 2, column_widths=[0.5, 0.5], horizontal_spacing=0.3, subplot_titles=[f"prompt {prompt}", "branching less the null's"]
    )  # fmt: skip
    fig.add_heatmap(
        z=one["active"].to_numpy()[:, : len(tokens)], y=layers, colorscale=SEQUENTIAL, zmin=0, zmax=1, xgap=1, ygap=1, hoverongaps=False,
        customdata=one["relative"].to_numpy()[:, : len(tokens)], row=1, col=1,
        hovertemplate="layer %{y}, position %{x}<br>active in %{z:.0%}<br>|δ|/|x| over the dose %{customdata:.3g}<extra></extra>",
        colorbar={"title": {"text": "active", "side": "top"}, "x": 0.355, "thickness": 12, "tickformat": ".0%"},
    )  # fmt: skip
    fig.update_xaxes(title="position", tickangle=-60, **axis(tokens), row=1, col=1)
    fig.update_yaxes(title="stream entering layer", dtick=max(1, len(layers) // 7), showgrid=False, row=1, col=1)
    ticks: list[str] = []
    subjects = [(result, "as trained", LINES[0]), *([(null, "at random init", FAINT)] if null is not None else [])]
    rows = [
        (raster, kind, *subject)
        for raster in result["raster"].to_numpy()
        for kind in result["null"].to_numpy()
        for subject in subjects
        if raster in subject[0]["raster"]
    ]
    for row, (raster, kind, which, said, color) in enumerate(reversed(rows)):
        ticks.append(f"{SAID[str(raster)]}, {kind}" + (f"<br>{said}" if null is not None else ""))
        own = which.sel({"raster": raster, "null": kind})
        values = own["difference"].to_numpy()
        values = values[np.isfinite(values)]
        if not len(values):
            fig.add_annotation(
                x=0,
                y=row,
                text="not known: any order is the same",
                xanchor="left",
                xshift=8,
                showarrow=False,
                row=1,
                col=2,
            )
            continue
        fig.add_scatter(
            x=values, y=[row] * len(values), mode="markers", marker={"size": 6, "color": color, "opacity": 0.35}, showlegend=False,
            hovertemplate="%{x:+.3f}<extra></extra>", row=1, col=2,
        )  # fmt: skip
        mean, bounds = float(values.mean()), own.get("difference_interval")
        error = None if bounds is None else whisker(mean, bounds, color)
        fig.add_scatter(
            x=[mean], y=[row], error_x=error, mode="markers", marker={"size": 10, "color": color, "symbol": "diamond"}, showlegend=False,
            hovertemplate="mean %{x:+.3f}<extra></extra>", row=1, col=2,
        )  # fmt: skip
    fig.add_vline(x=0, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=2)
    fig.update_xaxes(title="b less b of the null", row=1, col=2)
    fig.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=ticks, range=[-0.6, len(rows) - 0.4], showgrid=False, row=1, col=2
    )
    about = json.loads(result.attrs["parameters"])
    b = ", ".join(
        f"{SAID[str(raster)]} {float(result['branching'].sel(raster=raster).mean()):.3f}"
        for raster in result["raster"].to_numpy()
    )
    fig.update_layout(
        template=TEMPLATE,
        title=f"Rasters · {model_name(result)}<br><sup>branching ratio b: {b}; {about['rate']:.0%} of the cells active, "
        f"{counted(result.sizes['prompt'], 'prompt')}</sup>",
        width=1040,
        height=max(430, 230 + 46 * len(rows)),
        margin={"t": 96, "b": 110},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig
