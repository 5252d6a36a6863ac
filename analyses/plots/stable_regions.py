"""Stable regions: the way from one activation to another, and how two directions add up."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import band
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name, place
from analyses.plots.theme import FAINT, INK, LINES, SEQUENTIAL, TEMPLATE


@draws("stable_regions")
def plot_stable_regions(result: xr.Dataset, *, null: xr.Dataset | None = None, prompt: int | None = None) -> go.Figure:
    """Left how far the output has come, at each layer, as the stream goes over from one activation to another; middle the largest slope of
    that, 1 where the model is affine; right 1/p of mixtures of two directions, 1/2 for a quadratic form.

    Bands are 95 % intervals over prompts where there are any.

    Args:
        result: of `analyses.cascade.stable_regions`.
        null: the same of `random_twin`.
        prompt: whose way is shown; None is the mean over prompts.
    """
    shown = result["distance"]
    shown = shown.mean("prompt") if prompt is None else shown.isel(prompt=place(result.sizes, "prompt", prompt))
    layers = result["layer"].to_numpy()
    fig = make_subplots(
        1, 3, column_widths=[0.36, 0.32, 0.32], horizontal_spacing=0.13,
        subplot_titles=["how far the output has come", "largest slope", "mixtures of directions"],
    )  # fmt: skip
    fig.add_heatmap(
        z=shown.transpose("layer", "a").to_numpy(), x=result["a"].to_numpy(), y=layers, colorscale=SEQUENTIAL, zmin=0, zmax=1,
        hovertemplate="layer %{y}, a = %{x:.2f}<br>%{z:.3f} of the way<extra></extra>", row=1, col=1,
        colorbar={"title": {"text": "d(a)", "side": "top"}, "x": 0.27, "thickness": 12, "tickvals": [0, 0.5, 1]},
    )  # fmt: skip
    for one, said, color, dash in ((result, "as trained", LINES[0], "solid"), (null, "at random init", FAINT, "dot")):
        if one is None:
            continue
        for column, name in ((2, "slope"), (3, "inverse_exponent")):
            x = one["layer"].to_numpy()
            if (bounds := one.get(f"{name}_interval")) is not None:
                told = np.isfinite(bounds.to_numpy()).all(0)
                fig.add_trace(band(x[told], bounds.to_numpy()[:, told], color), row=1, col=column)
            fig.add_scatter(
                x=x, y=one[name].mean("prompt").to_numpy(), mode="lines+markers", name=said, showlegend=column == 2 and null is not None,
                line={"color": color, "width": 2, "dash": dash}, marker={"size": 5}, row=1, col=column,
                hovertemplate="layer %{x}<br>%{y:.3f}<extra></extra>",
            )  # fmt: skip
    fig.add_hline(y=1, line={"color": INK, "width": 1.2, "dash": "dot"}, row=1, col=2)
    for y in (0.5, 0):
        fig.add_hline(y=y, line={"color": INK, "width": 1.2, "dash": "dot"}, row=1, col=3)
    step = max(1, len(layers) // 7)
    fig.update_xaxes(title="a, from one to the other", row=1, col=1)
    fig.update_yaxes(title="stream entering layer", dtick=step, showgrid=False, row=1, col=1)
    for column in (2, 3):
        fig.update_xaxes(title="stream entering layer", dtick=step, row=1, col=column)
    fig.update_yaxes(title="d(a) per a; dotted: affine", rangemode="tozero", row=1, col=2)
    fig.update_yaxes(title="1/p; dotted: quadratic, box", row=1, col=3)
    of = f"prompt {prompt}" if prompt is not None else f"mean over {counted(result.sizes['prompt'], 'prompt')}"
    slope = result["slope"].mean("prompt").to_numpy()
    steepest = "the activations are the same"
    if np.isfinite(slope).any():
        steepest = f"steepest at layer {layers[int(np.nanargmax(slope))]}, slope {np.nanmax(slope):.2f}"
    fig.update_layout(
        template=TEMPLATE,
        title=f"Stable regions · {model_name(result)}<br><sup>{of}; {steepest}</sup>",
        width=1040,
        height=430,
        margin={"t": 96, "b": 100},
        legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig
