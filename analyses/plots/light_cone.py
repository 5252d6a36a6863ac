"""The light cone of a disturbance."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import band, interval
from analyses.plots.kinds import draws
from analyses.plots.labels import axis, label, model_name, place, subtitled, which
from analyses.plots.theme import FAINT, LINES, SEQUENTIAL, TEMPLATE
from interp.errors import ResultError

LEAST = 1e-4
"""Shares below this are drawn as this: the scale is logarithmic."""


@draws("light_cone")
def plot_light_cone(result: xr.Dataset, *, prompt: int = 0, injection: int | None = None) -> go.Figure:
    """Left, the energy at each layer and position of a disturbance injected at one position, relative to what was injected, on a
    logarithmic scale; right, the share that has left its position, mean over all injections, and how it falls off with distance, mean over
    the prompts that reach so far.

    Args:
        result: of `analyses.cascade.light_cone`.
        prompt: which, for the heatmap.
        injection: position of the injection shown; None is the first.

    Raises:
        ResultError: a prompt or injection that is not there.
    """
    one = result.isel(prompt=place(result.sizes, "prompt", prompt))
    tokens = [str(token) for token in one["token"].to_numpy() if token]
    there = one["injection"].to_numpy()[one["share"].notnull().any(("layer", "position")).to_numpy()].tolist()
    at = there[0] if injection is None else place(result.sizes, "position", injection)
    if at not in there:
        raise ResultError(f"plot_light_cone: nothing was injected at position {at}; choose one of {there}.")
    share = one["share"].sel(injection=at).to_numpy()[:, : len(tokens)]
    z = np.where(share > 0, np.log10(np.maximum(share, LEAST)), np.nan)  # what is exactly 0 stays blank
    layers = result["layer"].to_numpy()
    fig = make_subplots(
        2, 2, specs=[[{"rowspan": 2}, {}], [None, {}]], column_widths=[0.6, 0.4], horizontal_spacing=0.2, vertical_spacing=0.24,
        subplot_titles=[
            f"injected at {at}, “{label(tokens[at])}”", "share that has left its position",
            "share at the output, by distance",
        ],
    )  # fmt: skip
    means = f"right, means over {result.sizes['prompt']} prompts" if result.sizes["prompt"] > 1 else ""
    top = max(0, int(np.ceil(np.nanmax(z))))
    ticks = list(range(min(int(np.floor(np.nanmin(z))), top - 1), top + 1))
    fig.add_heatmap(
        z=z, y=layers, colorscale=SEQUENTIAL, zmin=ticks[0], zmax=top, xgap=1, ygap=1, hoverongaps=False,
        customdata=share, hovertemplate="layer %{y}, position %{x}<br>%{customdata:.3g} of the injected energy<extra></extra>",
        colorbar={"title": {"text": "energy over injected", "side": "right"}, "tickvals": ticks,
                  "ticktext": [f"{10.0**t:g}" if abs(t) < 4 else f"10<sup>{t}</sup>" for t in ticks], "x": 0.52, "thickness": 14},
        row=1, col=1,
    )  # fmt: skip
    fig.update_xaxes(title="position", tickangle=-60, **axis(tokens), row=1, col=1)
    fig.update_yaxes(title="stream entering layer", showgrid=False, dtick=1, row=1, col=1)
    off = result["off_site"].mean("prompt").to_numpy()
    fig.add_scatter(
        x=layers, y=off, mode="lines+markers", line={"color": LINES[0]}, showlegend=False,
        hovertemplate="layer %{x}<br>%{y:.3f}<extra></extra>", row=1, col=2,
    )  # fmt: skip
    if (bounds := interval(result, "off_site_interval")) is not None:
        fig.add_trace(band(layers, bounds, LINES[0]), row=1, col=2)
    fall = result["by_distance"].mean("prompt").to_numpy()
    d = result["distance"].to_numpy()
    fig.add_scatter(
        x=d[1:], y=fall[1:], mode="markers", marker={"color": LINES[0], "size": 6}, showlegend=False,
        hovertemplate="%{x} tokens<br>%{y:.3g}<extra></extra>", row=2, col=2,
    )  # fmt: skip
    _laws(fig, result, d, fall)
    fig.update_xaxes(title="stream entering layer", dtick=1, row=1, col=2)
    fig.update_yaxes(title="share", range=[0, 1], row=1, col=2)
    fig.update_xaxes(title="distance (tokens)", type="log", tickvals=[1, 2, 5, 10, 20, 50, 100, 200, 500], row=2, col=2)
    fig.update_yaxes(title="share", type="log", dtick=1, exponentformat="power", row=2, col=2)
    fig.update_layout(
        template=TEMPLATE,
        title=subtitled(f"Light cone of a disturbance · {model_name(result)}", which(result, prompt), means),
        width=1040,
        height=560,
        margin={"t": 84, "b": 110},
        legend={"y": -0.16, "yanchor": "top", "x": 0.64, "xanchor": "left"},
    )
    fig.update_annotations(font={"size": 13})
    return fig


def _laws(fig: go.Figure, result: xr.Dataset, d: np.ndarray, fall: np.ndarray) -> None:
    """Both fitted curves, through the points' middle; the better one by AIC in full colour."""
    aic = result["aic"].to_numpy()
    if not np.isfinite(aic).all():
        return
    usable = (d >= 1) & np.isfinite(fall) & (fall > 0)
    x, y = d[usable], np.log(fall[usable])
    exponent, length = float(result["exponent"]), float(result["length"])
    names = (
        f"power {exponent:.2f}" if exponent >= 0 else f"power {-exponent:.2f}, growing",
        f"exponential, {length:.1f} tokens" if length >= 0 else f"exponential, growing e-fold in {-length:.1f} tokens",
    )
    shapes = -exponent * np.log(x), -x / length
    for number, (shape, name) in enumerate(zip(shapes, names, strict=True)):
        better = aic[number] == aic.min()
        fig.add_scatter(
            x=x, y=np.exp(shape + (y - shape).mean()), mode="lines", name=name + (" (better by AIC)" if better else ""),
            line={"color": LINES[1] if better else FAINT, "width": 1.8, "dash": "solid" if better else "dot"}, row=2, col=2,
        )  # fmt: skip
