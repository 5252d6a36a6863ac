"""The internal verdict: the slope with its interval against the margin."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, named
from analyses.plots.theme import FAINT, INK, LINES, figure


@draws("internal_verdict")
def plot_verdict(result: xr.Dataset) -> go.Figure:
    """Each prompt's slope of ln Gamma a dot, the mean with its 95 % interval; shaded, the margin within which a slope counts as none.

    Args:
        result: of `analyses.cascade.internal_verdict`.
    """
    margin, slopes = float(result["margin"]), result["slope"].to_numpy()
    said = named(result["verdict"].item())
    fig = figure(
        f"Inside: {said} · {model_name(result)}<br><sup>{len(slopes)} prompts; left dies away, right grows</sup>",
        720,
        280,
    )
    fig.add_vrect(x0=-margin, x1=margin, fillcolor=FAINT, opacity=0.2, line_width=0)
    fig.add_vline(x=0, line={"color": FAINT, "width": 1, "dash": "dot"})
    fig.add_scatter(
        x=slopes, y=[1.0] * len(slopes), mode="markers", marker={"size": 7, "color": LINES[0], "opacity": 0.4}, showlegend=False,
        hovertemplate="%{x:.4f} nats per layer<extra></extra>",
    )  # fmt: skip
    low, high = result["slope_interval"].to_numpy()
    mean = float(result["slope_mean"])
    error = None
    if np.isfinite([low, high]).all():
        error = {"array": [high - mean], "arrayminus": [mean - low], "color": INK, "thickness": 1.8, "width": 6}
    fig.add_scatter(
        x=[mean], y=[1.0], error_x=error, mode="markers", marker={"size": 11, "color": INK, "symbol": "diamond"}, showlegend=False,
        hovertemplate="mean %{x:.4f} nats per layer<extra></extra>",
    )  # fmt: skip
    rows = ["as trained"]
    if "null_slope" in result:
        fig.add_scatter(
            x=[float(result["null_slope"])], y=[0.0], mode="markers", marker={"size": 11, "color": FAINT, "symbol": "diamond"},
            showlegend=False, hovertemplate="mean %{x:.4f} nats per layer<extra></extra>",
        )  # fmt: skip
        rows = ["at random init", "as trained"]
    fig.update_yaxes(
        tickvals=[1 - len(rows) + 1 + at for at in range(len(rows))], ticktext=rows, range=[-0.6, 1.6], showgrid=False
    )
    fig.update_xaxes(title="slope of ln Γ (nats per layer)")
    fig.update_layout(margin={"t": 90})
    return fig
