"""Singular values of a Jacobian, and Lyapunov exponents."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.clusters import units_of_result
from analyses.intervals import bootstrap_mean
from analyses.plots.bands import band
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name
from analyses.plots.theme import FAINT, LINES, figure

MARKED = 40
"""Values beyond which a line shows them without markers."""


@draws("jacobian_spectrum")
def plot_spectrum(result: xr.Dataset) -> go.Figure:
    """The singular values in order, one line for each prompt; above the dotted line a direction grows. Those that are all rounding, with a
    residual of 1 or more, are left out, which is said.

    Args:
        result: of `analyses.cascade.jacobian_spectrum`.
    """
    shared = float(result["participation"].mean())
    values = result["singular_value"].where(result["residual"] < 1)
    lost = int((values.isnull() & result["singular_value"].notnull()).sum())
    over = counted(result.sizes["prompt"], "prompt") + (
        f"; {counted(lost, 'value')} lost to rounding left out" if lost else ""
    )
    fig = figure(
        f"Singular values of the Jacobian · {model_name(result)}<br><sup>{shared:.1f} directions share the growth (participation ratio), "
        f"non-normality {float(result['non_normality'].mean()):.2f}; means over {over}</sup>",
        640, 400,
    )  # fmt: skip
    mode = "lines+markers" if result.sizes["singular"] <= MARKED else "lines"
    for number in range(result.sizes["prompt"]):
        fig.add_scatter(
            x=result["singular"].to_numpy() + 1, y=values[number].to_numpy(), mode=mode,
            line={"color": LINES[0], "width": 1.4}, opacity=0.8 if result.sizes["prompt"] < 4 else 0.4, showlegend=False,
            hovertemplate=f"prompt {number}<br>value %{{x}}: %{{y:.3g}}<extra></extra>",
        )  # fmt: skip
    fig.add_hline(y=1, line={"color": FAINT, "width": 1, "dash": "dot"})
    fig.update_xaxes(title="rank (1 is the largest)", dtick=1)
    fig.update_yaxes(title="singular value", type="log", dtick=1, exponentformat="power")
    fig.update_layout(margin={"t": 90})
    return fig


@draws("lyapunov")
def plot_lyapunov(result: xr.Dataset) -> go.Figure:
    """Exponents in order, beside the singular exponents of the whole depth; means over prompts, bands their 95 % intervals where there are
    enough. Above the dotted line they grow.

    Args:
        result: of `analyses.cascade.lyapunov`.
    """
    fig = figure(
        f"Finite-time Lyapunov exponents · {model_name(result)}<br><sup>over {result.sizes['layer']} layers; mean over "
        f"{counted(result.sizes['prompt'], 'prompt')}</sup>",
        640, 400,
    )  # fmt: skip
    for name, said, color in (
        ("exponent", "by QR, layer by layer", LINES[0]),
        ("singular_exponent", "ln s / L, whole depth", LINES[1]),
    ):
        if np.isfinite(
            bounds := bootstrap_mean(result[name].transpose("prompt", "mode").to_numpy(), units_of_result(result))
        ).all():
            fig.add_trace(band(result["mode"].to_numpy() + 1, bounds, color))
        fig.add_scatter(
            x=result["mode"].to_numpy() + 1, y=result[name].mean("prompt").to_numpy(), mode="lines+markers", name=said,
            line={"color": color, "width": 1.8}, marker={"size": 5}, hovertemplate="mode %{x}<br>%{y:.3f} nats per layer<extra></extra>",
        )  # fmt: skip
    fig.add_hline(y=0, line={"color": FAINT, "width": 1, "dash": "dot"})
    fig.update_xaxes(title="mode (1 grows most)", dtick=1)
    fig.update_yaxes(title="nats per layer")
    fig.update_layout(margin={"t": 90, "b": 90}, legend={"y": -0.24, "yanchor": "top", "x": 0, "xanchor": "left"})
    return fig
