"""Influence of a token on later ones, and how many it changes."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import band, interval
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name
from analyses.plots.theme import FAINT, INK, LINES, TEMPLATE


@draws("cascade_reproduction")
def plot_reproduction(result: xr.Dataset) -> go.Figure:
    """Left k against the lag, both logarithmic, with the power law through it; right R up to each horizon, and R in the closed loop.

    Bands are 95 % intervals over prompts where there are any.

    Args:
        result: of `analyses.cascade.reproduction`.
    """
    lags, k = result["lag"].to_numpy(), result["influence_mean"].to_numpy()
    horizon = int(lags[-1])
    fig = make_subplots(
        1, 2, subplot_titles=["influence k(τ)", "reproduction number R up to a horizon"], horizontal_spacing=0.11
    )
    for column, name, values in (
        (1, "influence_interval", k),
        (2, "reproduction_interval", result["reproduction"].to_numpy()),
    ):
        if (bounds := interval(result, name)) is not None:
            there = bounds[0] > 0
            fig.add_trace(band(lags[there], bounds[:, there], LINES[0]), row=1, col=column)
        fig.add_scatter(
            x=lags, y=values, mode="lines+markers", line={"color": LINES[0], "width": 2}, marker={"size": 5}, showlegend=False,
            name="measured", hovertemplate="τ = %{x}<br>%{y:.4f}<extra></extra>", row=1, col=column,
        )  # fmt: skip
    p = float(result["exponent"])
    if np.isfinite(p):
        middle = np.exp(np.log(k[k > 0]).mean() + p * np.log(lags[k > 0]).mean())
        fig.add_scatter(
            x=lags,
            y=middle * lags**-p,
            mode="lines",
            name=f"τ^-{p:.2f}{_between(result)}",
            line={"color": INK, "width": 1.4, "dash": "dash"},
            row=1,
            col=1,
        )
    fig.add_hline(y=1, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=2)
    said = f"R<sub>{horizon}</sub> = {float(result['reproduction'][-1]):.2f}"
    if "r_loop" in result:
        fig.add_hline(y=float(result["r_loop"]), line={"color": LINES[1], "width": 1.6, "dash": "dash"}, row=1, col=2)
        fig.add_scatter(
            x=[None],
            y=[None],
            mode="lines",
            name="R in the closed loop",
            line={"color": LINES[1], "dash": "dash"},
            row=1,
            col=2,
        )
        said += f", in the closed loop {float(result['r_loop']):.2f}"
    temperature = json.loads(result.attrs["parameters"])["temperature"]
    fig.update_xaxes(title="lag τ (tokens)", type="log", dtick="D1" if horizon < 10 else 1, row=1, col=1)
    fig.update_yaxes(
        type="log", title="probability that the token differs", exponentformat="power", dtick=1, row=1, col=1
    )
    fig.update_xaxes(title="horizon (tokens)", row=1, col=2)
    fig.update_yaxes(title="changed tokens per changed token", rangemode="tozero", row=1, col=2)
    prompts = result.sizes["prompt"]
    fig.update_layout(
        template=TEMPLATE,
        title=f"One changed token and those after it · {model_name(result)}<br><sup>{said}; {counted(prompts, 'prompt')}, "
        f"temperature {temperature:g}</sup>",
        width=980,
        height=430,
        margin={"t": 96, "b": 100},
        legend={"y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _between(result: xr.Dataset) -> str:
    """The interval of the exponent, where there is one."""
    bounds = result["exponent_interval"].to_numpy() if "exponent_interval" in result else np.full(2, np.nan)
    return f" ({bounds[0]:.2f} to {bounds[1]:.2f})" if np.isfinite(bounds).all() else ""
