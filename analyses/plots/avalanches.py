"""Sizes of avalanches."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.kinds import draws
from analyses.plots.labels import model_name
from analyses.plots.theme import INK, LINES, figure

LEAST = 3
"""Sizes below which there is no curve to be seen, and that is said."""


@draws("cascade_avalanches")
def plot_avalanches(result: xr.Dataset) -> go.Figure:
    """The share of avalanches at least so large, with the power law found and Borel's law of the branching ratio found.

    Args:
        result: of `analyses.cascade.avalanches`.
    """
    sizes = result["size"].to_numpy()
    rest, ratio = float(result["at_rest"].mean()), float(result["branching_ratio"])
    low, high = result["branching_ratio_interval"].to_numpy()
    bounds = "" if np.isnan(low) else f" ({low:.2f} to {high:.2f})"
    said = "not known without reproduction=" if np.isnan(ratio) else f"{ratio:.2f}{bounds}"
    better = _better(result)
    fig = figure(
        f"Avalanches · {model_name(result)}<br><sup>{result['avalanche_size'].size} avalanches, {rest:.0%} came to rest; branching ratio "
        f"{said}<br>{better}</sup>",
        760, 460,
    )  # fmt: skip
    curve = result["ccdf"].to_numpy()
    fig.add_scatter(
        x=sizes, y=np.where(curve > 0, curve, np.nan), mode="lines+markers", name="measured", marker={"size": 5},
        line={"color": LINES[0], "width": 2}, hovertemplate="%{x} tokens or more<br>%{y:.4f}<extra></extra>",
    )  # fmt: skip
    floor = max(curve[curve > 0].min() / 3, 1e-6)
    reference = result["borel_ccdf"].to_numpy()
    if not np.isnan(ratio):
        fig.add_scatter(
            x=sizes[reference > floor],
            y=reference[reference > floor],
            mode="lines",
            name="Borel's law",
            line={"color": INK, "dash": "dash"},
        )
    alpha = float(result["exponent"])
    if np.isfinite(alpha):
        weights = sizes.astype(float) ** -alpha
        law = weights[::-1].cumsum()[::-1] / weights.sum()
        fig.add_scatter(
            x=sizes,
            y=law,
            mode="lines",
            name=f"power law, n^-{alpha:.2f}{_bounds(result)}",
            line={"color": LINES[1], "dash": "dot", "width": 2},
        )
    if len(sizes) < LEAST:
        fig.add_annotation(
            text=f"sizes {', '.join(map(str, sizes))} only", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
        )
    fig.update_xaxes(
        title="size (changed tokens and the disturbance)",
        type="log",
        tickvals=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
    )
    fig.update_yaxes(title="share at least as large", type="log", exponentformat="power", dtick=1)
    fig.update_layout(margin={"t": 106, "b": 100}, legend={"y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"})
    return fig


def _bounds(result: xr.Dataset) -> str:
    """Of the exponent."""
    low, high = result["exponent_interval"].to_numpy() if "exponent_interval" in result else (np.nan, np.nan)
    return f" ({low:.2f} to {high:.2f})" if np.isfinite([low, high]).all() else ""


def _better(result: xr.Dataset) -> str:
    """Which rivals the power law is told from, at p < 0.05."""
    ratio, p = result["log_ratio"].to_numpy(), result["ratio_p"].to_numpy()
    if np.isnan(ratio).all():
        return "too few for a law"
    worse = [str(name) for name, r, q in zip(result["rival"].to_numpy(), ratio, p, strict=True) if q < 0.05 and r < 0]
    return f"the power law fits worse than {', '.join(worse)}" if worse else "no rival fits better than the power law"
