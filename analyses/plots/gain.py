"""The cascade's gain against depth."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.averaged import prompts_in
from analyses.clusters import units_of_result
from analyses.plots.bands import band, whiskers
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name
from analyses.plots.theme import FAINT, INK, LINES, TEMPLATE
from interp.errors import ResultError

CURVES = (("gain", "ln G: whole disturbance", 1), ("relative_gain", "ln Γ: on site, relative to the stream", 2))

TICKS = [one * 10.0**power for power in range(-3, 4) for one in (1, 2, 5)]
"""Of k: on a logarithmic scale growth and its inverse are as far from 1, and a large first layer leaves the others apart."""


@draws("cascade_gain")
def plot_gain(result: xr.Dataset, *, null: xr.Dataset | None = None, theory: xr.Dataset | None = None) -> go.Figure:
    """Mean ln G, mean ln Gamma and k against depth.

    The band is the 95 % bootstrap interval over prompts where there is one; else, and said so, the 5 to 95 % range
    over injections and directions, which is no confidence interval.

    Args:
        result: of `analyses.cascade.gain`.
        null: the same of another model, usually `random_twin`, drawn in grey.
        theory: of `analyses.cascade.mean_field`, for an injection at layer 0: what random weights should do, drawn dashed.

    Raises:
        ResultError: `null` or `theory` has other layers.
    """
    if theory is not None and not np.array_equal(theory["layer"], result["layer"]):
        raise ResultError("plot_gain: the theory has other layers than the result; it is for injections at layer 0.")
    if null is not None and not np.array_equal(null["layer"], result["layer"]):
        raise ResultError(
            "plot_gain: the null has other layers than the result; measure both with the same shape and layer."
        )
    fig = make_subplots(
        1, 3, subplot_titles=[title for _, title, _ in CURVES] + ["k: growth over each layer"], horizontal_spacing=0.075
    )
    for dataset, color in ((null, FAINT), (result, LINES[0])):
        if dataset is not None:
            _draw(fig, dataset, color)
    if theory is not None:
        for variable, _, column in CURVES:
            fig.add_scatter(
                x=theory["layer"].to_numpy(), y=theory[f"log_{variable}"].mean("prompt").to_numpy(), mode="lines", name="mean field",
                legendgroup="mean field", showlegend=column == 1, line={"color": INK, "width": 1.6, "dash": "dash"},
                hovertemplate="layer %{x}<br>predicted %{y:.3f} nats<extra></extra>", row=1, col=column,
            )  # fmt: skip
    for column in (1, 2):
        fig.add_hline(y=0, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=column)
    fig.add_hline(y=1, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=3)
    fig.update_xaxes(title="stream entering layer", dtick=1)
    fig.update_xaxes(title="layer", dtick=1, col=3)
    fig.update_yaxes(title="nats", col=1)
    fig.update_yaxes(title="nats", col=2)
    fig.update_yaxes(title="k", type="log", tickvals=TICKS, col=3)
    fig.update_layout(
        template=TEMPLATE,
        title={"text": f"Growth of an injected disturbance<br><sup>{_band_name(result)}</sup>", "y": 0.96},
        width=1040,
        height=450,
        margin={"t": 96, "b": 116},
        legend={"y": -0.28, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    fig.update_annotations(font={"size": 13})
    return fig


def _draw(fig: go.Figure, result: xr.Dataset, color: str) -> None:
    name, layers = model_name(result), result["layer"].to_numpy()
    for variable, _, column in CURVES:
        mean = result[f"log_{variable}"].mean("prompt").to_numpy()
        fig.add_trace(band(layers, _band(result, variable), color), row=1, col=column)
        fig.add_scatter(
            x=layers, y=mean, mode="lines+markers", name=name, legendgroup=name, showlegend=column == 1,
            line={"color": color, "width": 2.2}, hovertemplate="layer %{x}<br>%{y:.3f} nats<extra></extra>", row=1, col=column,
        )  # fmt: skip
    k = np.exp(np.log(result["reproduction"].to_numpy()[:, :-1]).mean(0))
    bounds = result.get("log_reproduction_interval")
    error = None if bounds is None else whiskers(k, np.exp(bounds.to_numpy()[:, :-1]), INK)
    fig.add_scatter(
        x=layers[:-1], y=k, error_y=error, name=name, legendgroup=name, showlegend=False, mode="markers",
        marker={"color": color, "size": 7},
        hovertemplate="layer %{x}<br>k = %{y:.3f}<extra></extra>", row=1, col=3,
    )  # fmt: skip


def _has_interval(result: xr.Dataset) -> bool:
    return bool(np.isfinite(result["log_gain_interval"]).any())


def _band(result: xr.Dataset, variable: str) -> np.ndarray:
    if _has_interval(result):
        return np.asarray(result[f"log_{variable}_interval"])
    spread: np.ndarray = np.nanquantile(np.log(result[variable].to_numpy()), [0.05, 0.95], axis=(0, 1, 2))
    return spread


def _band_name(result: xr.Dataset) -> str:
    prompts = prompts_in(result)
    if _has_interval(result):
        units = units_of_result(result)
        over = "prompts" if units is None else f"their {len(set(units.tolist()))} clusters"
        return f"mean over {prompts} prompts; bands: 95 % bootstrap interval over {over}, of k as whiskers"
    what = "1 prompt" if prompts == 1 else f"{prompts} prompts"
    return f"mean over {what}; bands: 5 to 95 % of injections and directions, no confidence interval"
