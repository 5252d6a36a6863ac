"""Driven or self-sustained, beside what random weights do."""

import json

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import band, interval, whisker
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, prompts_in
from analyses.plots.theme import FAINT, INK, LINES, TEMPLATE

ROWS = (("r", "R"), ("driven_share", "driven share"), ("survival_share_mean", "still differ"))


@draws("cascade_driven")
def plot_driven(result: xr.Dataset, *, null: xr.Dataset | None = None) -> go.Figure:
    """Left the damage at each step, and what the disturbed beginning alone would make along one and the same text; right R, the share of
    late damage that is driven, and the share of draws that still differ at the end, each with its 95 % interval.

    Bands are 95 % intervals over prompts where there are any.

    Args:
        result: of `analyses.cascade.driven`.
        null: the same of `random_twin`.
    """
    fig = make_subplots(
        1, 2, column_widths=[0.55, 0.45], horizontal_spacing=0.17, subplot_titles=["changed tokens", "which go on by themselves?"]
    )  # fmt: skip
    times = result["time"].to_numpy()
    shown: list[tuple[xr.Dataset, str, str, str, str]] = [
        (result, "damage", "both texts on their own", LINES[0], "solid"),
        (result, "h_forced", "the beginning alone", LINES[1], "dash"),
    ]
    if null is not None:
        shown.append((null, "damage", "on their own, random weights", FAINT, "dot"))
    for one, name, said, color, dash in shown:
        if (bounds := interval(one, f"{name}_interval")) is not None:
            fig.add_trace(band(one["time"].to_numpy(), bounds, color), row=1, col=1)
        fig.add_scatter(
            x=one["time"].to_numpy(), y=one[name].mean(("prompt", "seed")).to_numpy(), mode="lines", name=said,
            line={"color": color, "width": 2, "dash": dash}, hovertemplate="step %{x}<br>%{y:.3f}<extra></extra>", row=1, col=1,
        )  # fmt: skip
    both = [(result, LINES[0], 0.12 if null is not None else 0.0)] + (
        [(null, FAINT, -0.12)] if null is not None else []
    )
    for one, color, away in both:
        for row, (name, _) in enumerate(reversed(ROWS)):
            value, about = float(one[name]), one[f"{name.removesuffix('_mean')}_interval"]
            fig.add_scatter(
                x=[value], y=[row + away], mode="markers", marker={"size": 9, "color": color, "symbol": "diamond"}, showlegend=False,
                error_x=whisker(value, about, color), hovertemplate="%{x:.3f}<extra></extra>", row=1, col=2,
            )  # fmt: skip
    fig.add_vline(x=1, line={"color": INK, "width": 1.2, "dash": "dot"}, row=1, col=2)
    fig.update_xaxes(title="generated token", range=[times[0], times[-1]], row=1, col=1)
    fig.update_yaxes(title="share of tokens", rangemode="tozero", row=1, col=1)
    fig.update_xaxes(title="number, or share", rangemode="tozero", row=1, col=2)
    fig.update_yaxes(
        tickvals=list(range(len(ROWS))), ticktext=[said for _, said in reversed(ROWS)], range=[-0.6, len(ROWS) - 0.4], showgrid=False,
        row=1, col=2,
    )  # fmt: skip
    asked = json.loads(result.attrs["parameters"])
    of = prompts_in(result.sizes["prompt"], int(result["cluster"].max()) + 1)
    fig.update_layout(
        template=TEMPLATE,
        title=f"Driven or self-sustained? · {model_name(result)}<br><sup>each changed token changes R others; "
        f"{of} of {asked['seeds']} draws, temperature {asked['temperature']:g}</sup>",
        width=980,
        height=430,
        margin={"t": 96, "b": 100},
        legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig
