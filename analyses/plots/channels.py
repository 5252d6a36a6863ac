"""What carries a disturbance on."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.clusters import units_of_result
from analyses.intervals import bootstrap_mean
from analyses.plots.bands import band, whiskers
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name, named
from analyses.plots.theme import LINES, TEMPLATE

OPEN = {"both": "both open", "activations": "activations only", "tokens": "tokens only"}


@draws("cascade_channels")
def plot_channels(result: xr.Dataset) -> go.Figure:
    """Left h at each step with both channels open and with one shut; right the share that each carries. Bands and whiskers are 95 %
    intervals over prompts where there are any.

    Args:
        result: of `analyses.cascade.channels`.
    """
    fig = make_subplots(
        1, 2, column_widths=[0.66, 0.34], subplot_titles=["h: the draws differ", "carried by"], horizontal_spacing=0.12
    )
    times, curves = result["time"].to_numpy(), result["h"].mean(("prompt", "seed"))
    each = result["h"].mean("seed").transpose("cell", "prompt", "time")
    for (cell, said), color in zip(OPEN.items(), LINES, strict=False):
        if np.isfinite(bounds := bootstrap_mean(each.sel(cell=cell).to_numpy(), units_of_result(result))).all():
            fig.add_trace(band(times, bounds, color), row=1, col=1)
        fig.add_scatter(
            x=times, y=curves.sel(cell=cell).to_numpy(), mode="lines", name=said, line={"color": color, "width": 2},
            hovertemplate="step %{x}<br>%{y:.4f}<extra></extra>", row=1, col=1,
        )  # fmt: skip
    mean = result["shapley"].mean("prompt").to_numpy()
    shares = result.get("shapley_interval")
    error = None if shares is None else whiskers(mean, shares.transpose("bound", "channel").to_numpy())
    fig.add_bar(
        x=[named(name) for name in result["channel"].to_numpy()], y=mean, error_y=error, marker={"color": [LINES[1], LINES[2]]},
        showlegend=False, hovertemplate="%{x}<br>%{y:.4f}<extra></extra>", row=1, col=2,
    )  # fmt: skip
    fig.update_xaxes(title="generated token", row=1, col=1)
    fig.update_yaxes(title="probability", rangemode="tozero", row=1, col=1)
    fig.update_yaxes(title="mean h (Shapley)", rangemode="tozero", row=1, col=2)
    prompts = result.sizes["prompt"]
    fig.update_layout(
        template=TEMPLATE,
        title=f"What carries a disturbance on · {model_name(result)}<br><sup>mean over {counted(prompts, 'prompt')} of "
        f"{result.sizes['seed']} draws</sup>",
        width=980,
        height=420,
        margin={"t": 96, "b": 100},
        legend={"y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig
