"""How long coupled texts stay the same."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.bands import band, interval
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name
from analyses.plots.theme import LINES, figure


@draws("cascade_survival")
def plot_survival(result: xr.Dataset) -> go.Figure:
    """S(t) by teacher forcing, and Kaplan and Meier's of the coupled texts themselves; bands are 95 % intervals over prompts.

    Args:
        result: of `analyses.cascade.survival`.
    """
    times = result["time"].to_numpy()
    together, chance = (float(result[name]) for name in ("came_together", "came_together_unrelated"))
    said = "no text parted" if np.isnan(together) else f"{together:.0%} of those that part come together again"
    said += "" if np.isnan(together) or np.isnan(chance) else f" (unrelated texts: {chance:.0%})"
    fig = figure(f"Survival of the same text · {model_name(result)}<br><sup>{said}</sup>", 720, 420)
    for name, words, color, shape in (
        ("survival_mean", "by teacher forcing", LINES[0], "linear"),
        ("kaplan_meier", "coupled texts (Kaplan-Meier)", LINES[1], "hv"),
    ):
        if (bounds := interval(result, f"{name.removesuffix('_mean')}_interval")) is not None:
            fig.add_trace(band(times, bounds, color))
        fig.add_scatter(
            x=times, y=result[name].to_numpy(), mode="lines", name=words, line={"color": color, "width": 2, "shape": shape},
            hovertemplate="step %{x}<br>%{y:.3f}<extra></extra>",
        )  # fmt: skip
    fig.update_xaxes(title="generated token")
    fig.update_yaxes(title="share still the same", range=[0, 1.02])
    fig.update_layout(margin={"t": 90, "b": 100}, legend={"y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"})
    return fig
