"""Heads ablated together, against as many random ones."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name, where_read
from analyses.plots.theme import FAINT, LINES, TEMPLATE

PANELS = (
    ("logit_difference", "logit difference (logits)"),
    ("preferred", "answer above the wrong one (share)"),
    ("correct", "answer above all tokens (share)"),
)


@draws("head_ablation")
def plot_ablation(result: xr.Dataset) -> go.Figure:
    """Logit difference and accuracy of the intact model, without the heads, and without random others, one dot a set.

    Bars are 95 % intervals over prompts, where there are several prompts: bootstrap, of shares exact.

    Args:
        result: of `analyses.ablate_heads`.
    """
    fig = make_subplots(1, len(PANELS), subplot_titles=[title for _, title in PANELS], horizontal_spacing=0.07)
    controls = result.sizes["condition"] - 2
    spread = np.linspace(-0.28, 0.28, controls) if controls > 1 else np.zeros(controls)
    x, colors = np.array([0.0, 1.0, *(2 + spread)]), [LINES[0], LINES[1], *[FAINT] * controls]
    names = [str(name) for name in result["condition"].to_numpy()]
    heads = [str(heads) or "none" for heads in result["heads"].to_numpy()]
    for column, (name, _) in enumerate(PANELS, start=1):
        several = f"{name}_mean" in result
        mean = (result[f"{name}_mean"] if several else result[name].isel(prompt=0)).to_numpy()
        error = None
        if several and np.isfinite(bounds := result[f"{name}_interval"].to_numpy()).all():
            error = {
                "array": bounds[1] - mean,
                "arrayminus": mean - bounds[0],
                "color": FAINT,
                "thickness": 1.2,
                "width": 2,
            }
        fig.add_scatter(
            x=x,
            y=mean,
            error_y=error,
            mode="markers",
            marker={"color": colors, "size": 9},
            customdata=list(zip(names, heads, strict=True)),
            hovertemplate="%{customdata[0]}: without %{customdata[1]}<br>%{y:.3f}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
    ticks = [0, 1, 2] if controls else [0, 1]
    fig.update_xaxes(
        tickvals=ticks,
        ticktext=["intact", "ablated", "random others"][: len(ticks)],
        showgrid=False,
        range=[-0.6, len(ticks) - 0.4],
    )
    fig.update_yaxes(rangemode="tozero", col=1)
    for column in (2, 3):
        fig.update_yaxes(range=[-0.03, 1.05], col=column)
    done = json.loads(result.attrs["parameters"])
    where = f", read{where_read(done)}" if where_read(done) else ""
    replaced = done["replacement"].replace("_", " ")
    fig.update_layout(
        template=TEMPLATE,
        title=f"Without heads {done['heads'].replace(' ', ', ')} · {model_name(result)}<br><sup>{replaced} ablation, "
        f"{counted(result.sizes['prompt'], 'prompt')}{where}, {counted(controls, 'random set')} of as many other heads</sup>",
        width=1040,
        height=430,
        margin={"t": 110},
    )
    fig.update_annotations(font={"size": 13})
    return fig
