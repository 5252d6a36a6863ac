"""How much the norms damp a disturbance."""

import plotly.graph_objects as go
import xarray as xr

from analyses.plots.bands import band, interval, whiskers
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name
from analyses.plots.theme import FAINT, LINES, figure

CURVES = (("log_gain", "as it is"), ("log_gain_frozen", "scales of the norms held"))


@draws("cascade_damping")
def plot_damping(result: xr.Dataset) -> go.Figure:
    """ln G with the norms as they are and with their scales held, and bars of the difference; bands and whiskers are 95 % intervals over
    prompts.

    Args:
        result: of `analyses.cascade.damping`.
    """
    layers, prompts = result["layer"].to_numpy(), result.sizes["prompt"]
    over = f"mean over {counted(prompts, 'prompt')}; below zero the norms damp"
    fig = figure(f"Damping by the norms · {model_name(result)}<br><sup>{over}</sup>", 720, 420)
    damping, spread = result["log_damping"].mean("prompt").to_numpy(), result.get("log_damping_interval")
    error = None if spread is None else whiskers(damping, spread.to_numpy(), FAINT)
    fig.add_bar(
        x=layers, y=damping, error_y=error, name="difference", marker={"color": LINES[2]}, opacity=0.6,
        hovertemplate="layer %{x}<br>%{y:+.3f} nats<extra></extra>",
    )  # fmt: skip
    for (name, said), color in zip(CURVES, LINES, strict=False):
        if (bounds := interval(result, f"{name}_interval")) is not None:
            fig.add_trace(band(layers, bounds, color))
        fig.add_scatter(
            x=layers, y=result[name].mean("prompt").to_numpy(), mode="lines+markers", name=said, line={"color": color, "width": 2},
            hovertemplate="layer %{x}<br>%{y:.3f} nats<extra></extra>",
        )  # fmt: skip
    fig.add_hline(y=0, line={"color": FAINT, "width": 1, "dash": "dot"})
    fig.update_xaxes(title="stream entering layer", dtick=1)
    fig.update_yaxes(title="ln G (nats)")
    fig.update_layout(margin={"t": 90, "b": 100}, legend={"y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"})
    return fig
