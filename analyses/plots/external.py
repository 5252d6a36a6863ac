"""The external verdict, and both verdicts together."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, named
from analyses.plots.theme import FAINT, INK, LINES, TEMPLATE, figure


@draws("external_verdict")
def plot_external(result: xr.Dataset) -> go.Figure:
    """Left late damage at three lengths with its 95 % interval against epsilon; right the slopes against the margin and the critical slope.

    Args:
        result: of `analyses.cascade.external_verdict`.
    """
    fig = make_subplots(
        1,
        2,
        column_widths=[0.45, 0.55],
        subplot_titles=["late damage", "how it goes with the length"],
        horizontal_spacing=0.2,
    )
    lengths, mean = result["horizon"].to_numpy(), result["late_damage_mean"].to_numpy()
    low, high = result["late_damage_interval"].to_numpy()
    error = (
        None
        if np.isnan(low).any()
        else {"array": high - mean, "arrayminus": mean - low, "thickness": 1.6, "width": 5, "color": INK}
    )
    fig.add_scatter(
        x=[str(length) for length in lengths], y=mean, error_y=error, mode="markers+lines", marker={"size": 9, "color": LINES[0]},
        line={"color": LINES[0], "width": 1.4}, showlegend=False, hovertemplate="%{x} tokens<br>%{y:.4f}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    fig.add_hline(y=float(result["epsilon"]), line={"color": FAINT, "width": 1.2, "dash": "dot"}, row=1, col=1)
    margin, critical = float(result["margin"]), float(result["critical"])
    rows = (
        ("spread_interval", "variance, last doubling"),
        ("decay_interval", "damage, from the shortest"),
        ("slope_interval", "damage, last doubling"),
    )
    for row, (name, _) in enumerate(rows):
        bounds = result[name].to_numpy()
        if np.isfinite(bounds).all():
            fig.add_scatter(
                x=bounds, y=[row, row], mode="lines+markers", line={"color": INK, "width": 3}, marker={"symbol": "line-ns-open"},
                showlegend=False, hovertemplate="%{x:.2f}<extra></extra>", row=1, col=2,
            )  # fmt: skip
    fig.add_vrect(x0=-margin, x1=margin, fillcolor=FAINT, opacity=0.2, line_width=0, row=1, col=2)
    fig.add_vline(x=critical, line={"color": LINES[1], "width": 1.4, "dash": "dash"}, row=1, col=2)
    fig.update_xaxes(title="length (tokens)", type="category", row=1, col=1)
    fig.update_yaxes(title="changed tokens per token", rangemode="tozero", row=1, col=1)
    fig.update_xaxes(title="d ln / d ln(length); dashed: critical process", row=1, col=2)
    fig.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[said for _, said in rows],
        range=[-0.6, 2.6],
        showgrid=False,
        row=1,
        col=2,
    )
    about = json.loads(result.attrs["parameters"])
    fig.update_layout(
        template=TEMPLATE,
        title=f"Outside: {named(result['verdict'].item())} · {model_name(result)}<br><sup>{int(result['prompts'])} prompts of "
        f"{about['seeds']} draws, temperature {about['temperature']:g}, {about['steps']} tokens; dotted: damage that counts as gone</sup>",
        width=980,
        height=400,
        margin={"t": 96},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


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
