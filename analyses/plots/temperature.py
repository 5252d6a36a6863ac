"""Damage, fluctuations, entropy and repetition against temperature."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import band, interval
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, named
from analyses.plots.theme import FAINT, TEMPLATE, look

PANELS = ("late damage", "susceptibility χ within prompts (tokens)", "entropy rate (nats)", "repetition")


@draws("cascade_temperature")
def plot_temperature(result: xr.Dataset) -> go.Figure:
    """Late damage and susceptibility, one curve for each length; entropy and repetition of the clean texts. Bands are 95 % intervals over
    prompts where there are any.

    Args:
        result: of `analyses.cascade.temperature_sweep`.
    """
    grid = result["temperature"].to_numpy()
    fig = make_subplots(2, 2, subplot_titles=PANELS, horizontal_spacing=0.1, vertical_spacing=0.17)
    for number, length in enumerate(result["horizon"].to_numpy()):
        line, marker = look(number)
        color = line["color"]
        one = result.sel(horizon=length)
        for column, name in ((1, "late_damage_mean"), (2, "susceptibility")):
            if (bounds := interval(one, f"{name.removesuffix('_mean')}_interval")) is not None:
                fig.add_trace(band(grid, bounds, color), row=1, col=column)
            fig.add_scatter(
                x=grid, y=one[name].to_numpy(), mode="lines+markers", name=f"{length} tokens", legendgroup=str(length),
                showlegend=column == 1, line=line | {"width": 2}, marker=marker | {"size": 6},
                hovertemplate="T = %{x:g}<br>%{y:.3g}<extra></extra>", row=1, col=column,
            )  # fmt: skip
    for column, name in ((1, "entropy_rate"), (2, "repetition")):
        if (bounds := interval(result, f"{name}_interval")) is not None:
            fig.add_trace(band(grid, bounds, FAINT), row=2, col=column)
        fig.add_scatter(
            x=grid, y=result[f"{name}_mean"].to_numpy(), mode="lines+markers", showlegend=False, line={"color": FAINT, "width": 2},
            marker={"size": 5}, hovertemplate="T = %{x:g}<br>%{y:.3g}<extra></extra>", row=2, col=column,
        )  # fmt: skip
    if not result["repetition"].any():
        fig.add_annotation(
            text="no token repeats",
            x=float(grid.mean()),
            y=0,
            yshift=12,
            showarrow=False,
            font={"color": FAINT},
            row=2,
            col=2,
        )
    found = float(result["critical_temperature"])
    if np.isfinite(result["critical_temperature_interval"]).all():
        fig.add_vline(x=found, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=2)
    fig.update_xaxes(title="temperature", row=2)
    fig.update_yaxes(rangemode="tozero")
    fig.update_layout(
        template=TEMPLATE,
        title=f"Against temperature: {named(result['said'].item())} · {model_name(result)}<br><sup>{_peak(result)}; "
        f"one curve for all lengths {_foretells(result)}; {result.sizes['prompt']} prompts</sup>",
        width=1000,
        height=640,
        margin={"t": 96, "b": 100},
        legend={"y": -0.11, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _peak(result: xr.Dataset) -> str:
    """What the largest susceptibility does with the length, and whether it is a peak at all."""
    growth, (low, high) = float(result["peak_growth"]), result["peak_growth_interval"].to_numpy()
    inside = np.isfinite(result["peak_temperature"].to_numpy()[-2:]).all()
    what = "the peak of χ" if inside else "the largest χ, at an end of the range and no peak,"
    if np.isnan([growth, low, high]).any():
        return f"whether {what} grows with length is not told"
    power = f"to the power {growth:.2f} ({low:.2f} to {high:.2f})"
    if low > 0:
        return f"{what} grows with length {power}"
    return f"{what} falls with length {power}" if high < 0 else f"{what} does not surely grow with length: {power}"


def _foretells(result: xr.Dataset) -> str:
    """Whether a collapse foretells prompts that were not fitted better than none."""
    low, high = result["collapse_advantage_interval"].to_numpy()
    if np.isnan(low):
        return "not judged, too few prompts"
    return (
        "foretells new prompts best"
        if low > 0
        else "foretells new prompts worse"
        if high < 0
        else "foretells new prompts no better"
    )
