"""Kinds of directions against random ones."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name, named
from analyses.plots.theme import FAINT, INK, LINES, figure


@draws("cascade_directions")
def plot_forest(result: xr.Dataset) -> go.Figure:
    """A row for each kind of direction, or for kinds that are the same in this model: each prompt a dot, the mean with its 95 % interval,
    and the corrected p.

    Args:
        result: of `analyses.cascade.compare_directions`.
    """
    ratio = result["log_ratio"].to_numpy()
    order = np.argsort(ratio.mean(1))
    kinds = [str(result["direction_kind"].to_numpy()[at]) for at in order]
    same = json.loads(result.attrs["parameters"]).get("same", {})
    tested = "; p by t-test, Holm-corrected" if np.isfinite(result["p_holm"]).any() else ""
    fig = figure(
        f"Growth of a direction against random ones · {model_name(result)}<br><sup>ln(G / G of isotropic directions) at the output, "
        f"{counted(ratio.shape[1], 'prompt')}{tested}</sup>",
        760, 170 + 46 * len(kinds),
    )  # fmt: skip
    for row, at in enumerate(order):
        fig.add_scatter(
            x=ratio[at], y=[row] * ratio.shape[1], mode="markers", marker={"size": 6, "color": LINES[0], "opacity": 0.35}, showlegend=False,
            hovertemplate="%{x:.3f} nats<extra></extra>",
        )  # fmt: skip
        mean = float(ratio[at].mean())
        error = None
        if (
            "log_ratio_interval" in result
            and np.isfinite(bounds := result["log_ratio_interval"].to_numpy()[:, at]).all()
        ):
            error = {
                "array": [bounds[1] - mean],
                "arrayminus": [mean - bounds[0]],
                "color": INK,
                "thickness": 1.6,
                "width": 5,
            }
        fig.add_scatter(
            x=[mean], y=[row], error_x=error, mode="markers", marker={"size": 10, "color": INK, "symbol": "diamond"}, showlegend=False,
            hovertemplate="mean %{x:.3f} nats<extra></extra>",
        )  # fmt: skip
        p = float(result["p_holm"][at])
        if np.isfinite(p):
            said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
            fig.add_annotation(
                x=1.01, xref="paper", xanchor="left", y=row, text=said, showarrow=False, font={"size": 12}
            )
    fig.add_vline(x=0, line={"color": FAINT, "width": 1, "dash": "dot"})
    fig.update_xaxes(title="ln of the gain over that of random directions (nats)")
    fig.update_yaxes(
        tickvals=list(range(len(kinds))),
        ticktext=[
            named(" = ".join([kind, *(other for other, first in same.items() if first == kind)])) for kind in kinds
        ],
        range=[-0.6, len(kinds) - 0.4],
        showgrid=False,
    )
    fig.update_layout(margin={"t": 90, "r": 110})
    return fig
