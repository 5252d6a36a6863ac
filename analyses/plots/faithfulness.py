"""How faithful circuits are, each beside random ones of its size."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.bands import whiskers
from analyses.plots.grid import over_pairs
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name, named, where_read
from analyses.plots.theme import FAINT, INK, LINES, figure

ROW, AROUND = 46, 190
"""Pixels of a circuit, and above and below all of them."""


@draws("circuit_faithfulness")
def plot_faithfulness(result: xr.Dataset) -> go.Figure:
    """A row for each circuit: the faithfulness of means with its 95 % interval, each pair a faint dot, random circuits of its size grey.

    Pairs far outside of what the means and their intervals span are drawn at the axis' end, as triangles.

    Args:
        result: of `analyses.faithfulness`.
    """
    done = json.loads(result.attrs["parameters"])
    names = [str(name) for name in result["circuit"].to_numpy()]
    sizes, mean = result["n_edges"].to_numpy(), result["faithfulness_of_means"].to_numpy()
    pairs, at_random = result["faithfulness"].to_numpy(), result["random_faithfulness"].to_numpy()
    bounds = result["faithfulness_of_means_interval"].to_numpy()
    low, high = _range(np.concatenate([mean, bounds.ravel(), at_random.ravel(), [0.0, 1.0]]), pairs)
    outside = int(((pairs < low) | (pairs > high)).sum())
    beyond = f"; {counted(outside, 'value')} of single pairs beyond" if outside else ""
    beside = f"grey: {counted(len(at_random), 'random circuit')} each" if len(at_random) else "no random circuits"
    fig = figure(
        f"How faithful the circuits are · {model_name(result)}"
        f"<br><sup>{done['metric'].replace('_', ' ')}{where_read(done)}, {over_pairs(result)}; {beside}{beyond}</sup>",
        640, AROUND + ROW * len(names),
    )  # fmt: skip
    for at, said in ((0.0, "no edges"), (1.0, "whole model")):
        fig.add_vline(x=at, line={"color": FAINT, "width": 1, "dash": "dot"})
        fig.add_annotation(
            x=at, y=1, yref="paper", yanchor="bottom", text=said, showarrow=False, font={"size": 11, "color": FAINT}
        )
    for number, name in enumerate(names):
        row, first = len(names) - 1 - number, number == 0
        title = f"{named(name)}, {counted(int(sizes[number]), 'edge')}<br>"
        values = pairs[:, number]
        there = np.flatnonzero(np.isfinite(values))
        fig.add_scatter(
            x=np.clip(values[there], low, high), y=np.full(len(there), row + 0.2), mode="markers", name="each pair", legendgroup="pairs",
            showlegend=first, customdata=np.stack([there, values[there]], axis=1),
            marker={
                "size": 6, "color": LINES[0], "opacity": 0.4,
                "symbol": ["triangle-left" if v < low else "triangle-right" if v > high else "circle" for v in values[there]],
            },
            hovertemplate=title + "pair %{customdata[0]}: %{customdata[1]:.3f}<extra></extra>",
        )  # fmt: skip
        fig.add_scatter(
            x=at_random[:, number], y=np.full(len(at_random), row - 0.22), mode="markers", name="random circuits", legendgroup="random",
            showlegend=first and len(at_random) > 0,
            marker={"size": 10, "symbol": "line-ns-open", "color": FAINT, "line": {"width": 1.3}},
            hovertemplate=title + "random: %{x:.3f}<extra></extra>",
        )  # fmt: skip
        fig.add_scatter(
            x=[mean[number]], y=[row], mode="markers", name="of means, 95 % interval" if np.isfinite(bounds).all() else "of means",
            legendgroup="mean", showlegend=first, error_x=whiskers(mean[[number]], bounds[:, [number]]),
            marker={"size": 10, "color": INK, "symbol": "diamond"}, hovertemplate=title + _interval(bounds[:, number]),
        )  # fmt: skip
    fig.update_xaxes(title="faithfulness (0: as no edges, 1: as the whole model)", range=[low, high])
    fig.update_yaxes(
        tickvals=list(range(len(names)))[::-1], range=[-0.6, len(names) - 0.4], showgrid=False,
        ticktext=[f"{named(name)}<br><sup>{counted(int(n), 'edge')}</sup>" for name, n in zip(names, sizes, strict=True)],
    )  # fmt: skip
    fig.update_layout(
        margin={"t": 96, "b": 96},
        legend={"y": -58 / (ROW * len(names)), "yanchor": "top", "x": 0, "xanchor": "left", "font": {"size": 12}},
    )
    return fig


def _interval(bounds: np.ndarray) -> str:
    said = f"<br>95 % interval {bounds[0]:.3f} to {bounds[1]:.3f}" if np.isfinite(bounds).all() else ""
    return "of means %{x:.3f}" + said + "<extra></extra>"


def _range(core: np.ndarray, pairs: np.ndarray) -> tuple[float, float]:
    """What the axis spans: all that is summed up, and pairs at most half as far out again on either side."""
    core, pairs = core[np.isfinite(core)], pairs[np.isfinite(pairs)]
    least, most = float(core.min()), float(core.max())
    spread = most - least
    low = max(least - spread / 2, float(pairs.min(initial=least)))
    high = min(most + spread / 2, float(pairs.max(initial=most)))
    margin = 0.04 * (max(high, most) - min(low, least))
    return min(low, least) - margin, max(high, most) + margin
