"""Dose-response, on logarithmic axes."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import band
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name
from analyses.plots.theme import FAINT, INK, LINES, TEMPLATE


@draws("dose_response")
def plot_dose_response(result: xr.Dataset) -> go.Figure:
    """Left KL against the dose with the quadratic form (slope 2); right the size at the output over the derivative's.

    Lines are geometric means over prompts and directions, bands their 5 to 95 % range; the dotted line marks the median linear range of
    the additive path. Grey is where KL is below the rounding of the model's precision.

    Args:
        result: of `analyses.cascade.dose_response`.
    """
    doses = result["dose"].to_numpy()
    fig = make_subplots(
        1, 2, subplot_titles=["KL(clean || disturbed)", "size over the derivative's"], horizontal_spacing=0.11
    )
    floor = float(np.finfo(np.dtype(result.attrs["dtype"])).eps)
    for number, path in enumerate(result["path"].to_numpy()):
        one = result.sel(path=path)
        for column, name in enumerate(("kl", "linearity"), start=1):
            values = one[name].to_numpy().reshape(-1, len(doses))
            reached = np.isfinite(values).all(0) & (values > 0).all(0)
            if not reached.any():
                continue
            logs, x = np.log(values[:, reached]), doses[reached]
            spread = np.exp(np.quantile(logs, [0.05, 0.95], axis=0))
            fig.add_trace(band(x, spread, LINES[number]), row=1, col=column)
            fig.add_scatter(
                x=x, y=np.exp(logs.mean(0)), mode="lines+markers", name=str(path), legendgroup=str(path), showlegend=column == 1,
                line={"color": LINES[number], "width": 2}, marker={"size": 5}, hovertemplate="dose %{x:.3g}<br>%{y:.3g}<extra></extra>",
                row=1, col=column,
            )  # fmt: skip
    quadratic = np.exp(np.log(result["quadratic_kl"].sel(path="additive").to_numpy().reshape(-1, len(doses))).mean(0))
    fig.add_scatter(
        x=doses,
        y=quadratic,
        mode="lines",
        name="Fisher form (slope 2)",
        line={"color": INK, "width": 1.4, "dash": "dash"},
        row=1,
        col=1,
    )
    fig.add_hrect(y0=floor * 1e-3, y1=floor, fillcolor=FAINT, opacity=0.15, line_width=0, row=1, col=1)
    fig.add_vline(
        x=float(result["linear_range"].sel(path="additive").median()),
        line={"color": FAINT, "width": 1, "dash": "dot"},
        row=1,
        col=2,
    )
    fig.add_hline(y=1, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=2)
    fig.update_xaxes(title="dose (relative to the stream)", type="log", dtick=1, exponentformat="power")
    fig.update_yaxes(title="nats", type="log", dtick=2, exponentformat="power", row=1, col=1)
    fig.update_yaxes(title="ratio", type="log", tickvals=[0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50], row=1, col=2)
    plateau, steepness = (float(result[name].sel(path="additive").median()) for name in ("plateau", "steepness"))
    fig.update_layout(
        template=TEMPLATE,
        title=f"Dose-response · {model_name(result)}<br><sup>{counted(result.sizes['prompt'], 'prompt')}, "
        f"{counted(result.sizes['direction'], 'direction')}; "
        f"plateau index {plateau:.2f} (above 1: flat, then a jump), largest slope of ln KL {steepness + 2:.1f} (2 is quadratic); "
        "medians, additive</sup>",
        width=980,
        height=440,
        margin={"t": 96, "b": 100},
        legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig
