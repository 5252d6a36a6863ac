"""The internal verdict: four numbers, as trained, at random initialisation and their difference."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.cascade.verdict import LABELS
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, named, prompts_in
from analyses.plots.theme import FAINT, INK, LINES, TEMPLATE

NAMES = {"trained": "as trained", "twin": "at random init", "difference": "trained less random"}
COLORS = dict(zip(("on site", "all positions"), LINES, strict=False))
DASHES = {"on site": "solid", "all positions": "dot"}
OFFSET = 0.17
BOTTOM, PLOT = 150, {1: 110, 2: 180, 3: 250}
"""Pixels below the panels, and of the panels by how many rows they have."""


@draws("internal_verdict")
def plot_verdict(result: xr.Dataset) -> go.Figure:
    """Left the slope of ln Gamma from one block above the injection, on site and over all positions: each prompt a dot, the mean with its
    95 % interval, shaded the margin within which a slope counts as none; an open diamond is the mean from the injection on. Middle ln Gamma
    at the output. Right its growth over each block.

    Args:
        result: of `analyses.cascade.internal_verdict`.
    """
    subjects, margin = [str(one) for one in result["subject"].to_numpy()], float(result["margin"])
    top = 100 + 22 * len(subjects)  # a line of the title for each
    fig = make_subplots(
        1, 3, column_widths=[0.42, 0.25, 0.33], horizontal_spacing=0.09,
        subplot_titles=["slope, from one block above the injection on", "at the output", "growth over each block"],
    )  # fmt: skip
    for row, subject in enumerate(reversed(subjects)):
        for sign, (reach, color) in zip((1, -1), COLORS.items(), strict=True):
            one, y = result.sel(subject=subject, reach=reach), row + sign * OFFSET
            above = one.sel(start="one block above")
            name = reach if subject == "trained" else None
            _mean(fig, above["slope"], above["slope_mean"], above["slope_interval"], y, color, name, 1)
            _mean(fig, one["output"], one["output_mean"], one["output_interval"], y, color, None, 2)
            fig.add_scatter(
                x=[float(one["slope_mean"].sel(start="injection"))], y=[y], mode="markers", showlegend=name is not None and sign == 1,
                name="from the injection on", legendgroup="injection", hovertemplate="from the injection on %{x:.4f}<extra></extra>",
                marker={"size": 9, "color": color, "symbol": "diamond-open"}, row=1, col=1,
            )  # fmt: skip
    for subject, color in (("twin", FAINT), ("trained", INK)):
        for reach, dash in DASHES.items() if subject in subjects else ():
            growth = result["growth"].sel(subject=subject, reach=reach).to_numpy()
            fig.add_scatter(
                x=result["block"].to_numpy(), y=growth, mode="lines+markers", name=f"{NAMES[subject]}, {reach}",
                line={"color": color, "width": 1.8, "dash": dash}, marker={"size": 5}, row=1, col=3,
                hovertemplate="block %{x}<br>%{y:+.3f} nats<extra></extra>",
            )  # fmt: skip
    fig.add_vrect(
        x0=-margin, x1=margin, fillcolor=FAINT, opacity=0.2, line_width=0, row=1, col=1
    )  # drawn only beside traces
    for column in (1, 2):
        fig.add_vline(x=0, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=column)
        fig.update_yaxes(
            tickvals=list(range(len(subjects))), ticktext=[NAMES[one] for one in reversed(subjects)], showticklabels=column == 1,
            range=[-0.6, len(subjects) - 0.4], showgrid=False, row=1, col=column,
        )  # fmt: skip
    fig.add_hline(y=0, line={"color": FAINT, "width": 1, "dash": "dot"}, row=1, col=3)
    fig.update_xaxes(title="slope of ln Γ (nats per layer)", row=1, col=1)
    fig.update_xaxes(title="ln Γ (nats)", row=1, col=2)
    fig.update_xaxes(title="block", dtick=1, row=1, col=3)
    fig.update_yaxes(title="nats", row=1, col=3)
    fig.update_layout(
        template=TEMPLATE,
        title={
            "text": f"Inside: {named(result['verdict'].item())} · {model_name(result)}<br><sup>{_said(result, subjects)}</sup>",
            "y": 0.97, "yanchor": "top",
        },
        width=1040,
        height=top + BOTTOM + PLOT[len(subjects)],
        margin={"t": top, "b": BOTTOM},
        legend={"y": -84 / PLOT[len(subjects)], "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _said(result: xr.Dataset, subjects: list[str]) -> str:
    """What stands under the title: how to read it, and each label, or why there is none."""
    lines = [
        f"{prompts_in(int(result['prompts']), int(result['clusters']))}; left of the shaded margin it dies away, right of it it grows"
    ]
    for subject in subjects:
        label, reason = (named(result[name].item()) for name in LABELS[subject])
        said = label if not reason else reason if subject == "trained" else f"{label}, {reason}"
        lines.append(f"{NAMES[subject]}: {said}")
    return "<br>".join(lines)


def _mean(
    fig: go.Figure,
    each: xr.DataArray,
    mean: xr.DataArray,
    interval: xr.DataArray,
    y: float,
    color: str,
    name: str | None,
    column: int,
) -> None:
    """A dot for each prompt; the mean, with its interval where there is one."""
    fig.add_scatter(
        x=each.to_numpy(), y=[y] * each.size, mode="markers", marker={"size": 6, "color": color, "opacity": 0.35}, showlegend=False,
        hovertemplate="%{x:.4f}<extra></extra>", row=1, col=column,
    )  # fmt: skip
    value, (low, high), error = float(mean), interval.to_numpy(), None
    if np.isfinite([low, high]).all():
        error = {"array": [high - value], "arrayminus": [value - low], "color": color, "thickness": 1.8, "width": 5}
    fig.add_scatter(
        x=[value], y=[y], error_x=error, mode="markers", marker={"size": 11, "color": color, "symbol": "diamond"},
        showlegend=name is not None, name=name, hovertemplate="mean %{x:.4f}<extra></extra>", row=1, col=column,
    )  # fmt: skip
