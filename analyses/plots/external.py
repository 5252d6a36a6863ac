"""The external verdict, and both verdicts together."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.bands import interval, whisker, whiskers
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, named
from analyses.plots.theme import FAINT, LINES, TEMPLATE, figure


@draws("external_verdict")
def plot_external(result: xr.Dataset) -> go.Figure:
    """Left late damage at three lengths; right R, of all steps and of the last quarter, against 1 and the margin that counts as
    critical. With 95 % intervals.

    Args:
        result: of `analyses.cascade.external_verdict`.
    """
    fig = make_subplots(
        1,
        2,
        column_widths=[0.45, 0.55],
        subplot_titles=["late damage", "R: what a changed token changes"],
        horizontal_spacing=0.2,
    )
    lengths, mean = result["horizon"].to_numpy(), result["late_damage_mean"].to_numpy()
    fig.add_scatter(
        x=[str(length) for length in lengths], y=mean, error_y=whiskers(mean, interval(result, "late_damage_interval")),
        mode="markers+lines", marker={"size": 9, "color": LINES[0]}, line={"color": LINES[0], "width": 1.4}, showlegend=False,
        hovertemplate="%{x} tokens<br>%{y:.4f}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    rows = (("late_r", "last quarter"), ("r", "all steps"))
    for row, (name, _) in enumerate(rows):
        if np.isfinite(value := float(result[name])):
            fig.add_scatter(
                x=[value], y=[row], error_x=whisker(value, result[f"{name}_interval"], LINES[0]), mode="markers", showlegend=False,
                marker={"size": 10, "color": LINES[0], "symbol": "diamond"}, hovertemplate="R = %{x:.3f}<extra></extra>", row=1, col=2,
            )  # fmt: skip
    near = float(result["near"])
    fig.add_vrect(x0=1 - near, x1=1 + near, fillcolor=FAINT, opacity=0.25, line_width=0, row=1, col=2)
    fig.add_vline(x=1, line={"color": LINES[1], "width": 1.4, "dash": "dash"}, row=1, col=2)
    fig.update_xaxes(title="length (tokens)", type="category", row=1, col=1)
    fig.update_yaxes(title="changed tokens per token", rangemode="tozero", row=1, col=1)
    fig.update_xaxes(title="left of 1 piano string, right of it pile", range=_wide(result), row=1, col=2)
    fig.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[said for _, said in rows],
        range=[-0.6, len(rows) - 0.4],
        showgrid=False,
        row=1,
        col=2,
    )
    about = json.loads(result.attrs["parameters"])
    share, alive = float(result["driven_share"]), float(result["survival_share_mean"])
    said = [
        f"{alive:.0%} of the draws still differ at the end"
        + ("" if np.isnan(share) else f"; {share:.0%} of late damage is driven")
    ]
    if result["reason"].item():
        said.append(named(result["reason"].item()))
    fig.update_layout(
        template=TEMPLATE,
        title=f"Outside: {named(result['verdict'].item())} · {model_name(result)}<br><sup>{int(result['prompts'])} prompts of "
        f"{about['seeds']} draws, temperature {about['temperature']:g}, {about['steps']} tokens; {'<br>'.join(said)}</sup>",
        width=980,
        height=420,
        margin={"t": 116},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _wide(result: xr.Dataset) -> list[float]:
    """From 0 to beyond 1 at least, and as far as R and its intervals go."""
    shown = np.concatenate([np.atleast_1d(result[name]) for name in ("r", "r_interval", "late_r", "late_r_interval")])
    shown = shown[np.isfinite(shown)]
    low, high = min(0.0, shown.min(initial=0.0)), max(1.3, shown.max(initial=1.3))
    return [low - 0.05 * (high - low), high + 0.05 * (high - low)]


@draws("joined_verdict")
def plot_joined(result: xr.Dataset) -> go.Figure:
    """Each prompt: how much a disturbance grows inside against how often the draws differ outside. In the title, both verdicts.

    Args:
        result: of `analyses.cascade.joined_verdict`, made with gain and coupled texts; without them only the title has something to say.
    """
    told = "undetermined" not in (result["inside"].item(), result["outside"].item())
    said = "they agree" if bool(result["agree"]) else "they differ" if told else "not compared"
    fig = figure(
        f"Inside {named(result['inside'].item())}, outside {named(result['outside'].item())}: {said} · {model_name(result)}",
        720,
        420,
    )
    if "mean_h" not in result:
        fig.update_xaxes(visible=False)
        fig.update_yaxes(visible=False)
        fig.add_annotation(
            text="prompt by prompt: only with gain= and coupled=",
            showarrow=False,
            x=0.5,
            y=0.5,
            xref="paper",
            yref="paper",
        )
        return fig
    fig.add_scatter(
        x=result["log_relative_gain"].to_numpy(), y=result["mean_h"].to_numpy(), mode="markers",
            marker={"size": 8, "color": LINES[0], "opacity": 0.7},
        customdata=np.arange(result.sizes["prompt"]), hovertemplate="prompt %{customdata}<br>ln Γ %{x:.3f}, h %{y:.4f}<extra></extra>",
    )  # fmt: skip
    rho, (low, high) = float(result["rank_correlation"]), result["rank_correlation_interval"].to_numpy()
    bounds = "" if np.isnan(low) else f" ({low:+.2f} to {high:+.2f})"
    words = "rank correlation not defined" if np.isnan(rho) else f"rank correlation {rho:+.2f}{bounds}"
    fig.update_layout(
        title={"text": f"{fig.layout.title.text}<br><sup>{words}, {result.sizes['prompt']} prompts</sup>"},
        margin={"t": 90},
    )
    fig.update_xaxes(title="inside: ln Γ at the output (nats)")
    fig.update_yaxes(title="outside: mean h", rangemode="tozero")
    return fig
