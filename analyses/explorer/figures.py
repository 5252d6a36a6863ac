"""Figures of the page: those of `analyses.plots`, with what a click on a cell means."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.circuits import Circuit
from analyses.explorer.live import Live
from analyses.explorer.state import State
from analyses.plots import plot, plot_circuit
from analyses.plots.attention import plot_attention, plot_head
from analyses.plots.lens import MOST, plot_lens
from analyses.plots.theme import LINES, TEMPLATE
from analyses.report.alternative import alternative

Part = dict[str, int]
"""What of a selection a row or a column names."""

TIGHTEST = 0.8
"""Of its natural width that a figure is squeezed to before it is scrolled."""

EDGES = 40
"""Of a circuit that are drawn."""

Drawn = dict[str, Any]
"""A figure as the page takes it, see `shown`."""


@dataclass(frozen=True)
class Cells:
    """What the cells of a figure's heatmaps stand for.

    Args:
        rows, columns: by their place; empty where they name nothing.
        curves: what each trace stands for, where each has something of its own.
        axes: of the heatmaps on which the selection is marked.
        first: what the lowest row has on its axis.
    """

    rows: list[Part] = field(default_factory=list)
    columns: list[Part] = field(default_factory=list)
    curves: list[Part] = field(default_factory=list)
    axes: list[tuple[str, str]] = field(default_factory=lambda: [("x", "y")])
    first: int = 0


def lens(result: xr.Dataset, state: State) -> Drawn:
    """Logit or tuned lens; of a long text the tokens about the selected one."""
    count = result.sizes["position"]
    start = max(0, min(count - MOST, state.position - MOST // 2))
    figure = plot_lens(result, start=start)
    last = int(result["layer"].max()) - 1
    rows: list[Part] = [
        {"layer": last if said == "output" else int(said.split(" ")[0])} for said in figure.layout.yaxis.ticktext
    ]
    columns = [{"position": at} for at in range(start, min(count, start + MOST))]
    return shown(figure, Cells(rows, columns))


def patching(result: xr.Dataset, state: State) -> Drawn:
    """The grid of patches: layer by position, or layer by head."""
    rows = [{"layer": int(layer)} for layer in result["layer"].to_numpy()]
    inner = "head" if "head" in result["effect"].dims else "position"
    return shown(plot(result), Cells(rows, [{inner: at} for at in range(result.sizes[inner])]))


def head(result: xr.Dataset, state: State) -> Drawn:
    """The pattern of the selected head."""
    places = [{"position": at} for at in range(result.sizes["key"])]
    return shown(plot_head(result, layer=state.layer, head=state.head), Cells(places, []))


def heads(result: xr.Dataset, state: State) -> Drawn:
    """All heads of the selected layer."""
    return shown(
        plot_attention(result, layer=state.layer),
        Cells(curves=[{"head": at} for at in range(result.sizes["head"])], axes=[]),
    )


def attribution(result: xr.Dataset, state: State) -> Drawn:
    """What each part writes towards the answer, and what each head does."""
    rows = [{"layer": at} for at in range(result.sizes["layer"])]
    columns = [{"head": at} for at in range(result.sizes["head"])]
    return shown(plot(result), Cells(rows, columns, axes=[("x2", "y2"), ("x3", "y3"), ("x4", "y4")]))


def cone(result: xr.Dataset, state: State) -> Drawn:
    """Where a disturbance is, at each layer and position."""
    layers = [int(layer) for layer in result["layer"].to_numpy()]
    rows = [{"layer": min(layer, layers[-1] - 1)} for layer in layers]
    columns = [{"position": at} for at in range(result.sizes["position"])]
    figure = plot(result)
    figure.data = figure.data[:1]  # the curves beside it are means over places, of which there is one here
    figure.layout.annotations = []
    figure.update_layout(xaxis={"domain": [0, 1]}, width=max(560, 180 + 44 * len(columns)), height=480)
    figure.data[0].colorbar.x = None
    return shown(figure, Cells(rows, columns, first=layers[0]))


def gain(result: xr.Dataset, state: State) -> Drawn:
    """How it grows with depth."""
    return shown(plot(result), Cells(axes=[]))


def circuit(result: xr.Dataset, state: State) -> Drawn:
    """The edges that matter most."""
    return shown(plot_circuit(most(result)), Cells(axes=[]))


def most(result: xr.Dataset) -> Circuit:
    """The edges of a circuit that are drawn."""
    return Circuit.from_scores(result, count=min(EDGES, result.sizes["edge"]))


def live(texts: Live) -> Drawn:
    """KL and h of two texts that are being written."""
    fig = make_subplots(1, 2, subplot_titles=["KL(clean || corrupt)", "h: the draws differ"], horizontal_spacing=0.12)
    for column, (values, units) in enumerate(((texts.kl, "nats"), (texts.h, "probability")), start=1):
        fig.add_scatter(
            y=values, mode="lines", line={"color": LINES[2 - column], "width": 2}, showlegend=False,
            hovertemplate="step %{x}<br>%{y:.3g}<extra></extra>", row=1, col=column,
        )  # fmt: skip
        fig.update_yaxes(title=units, rangemode="tozero", row=1, col=column)
    fig.update_xaxes(title="generated token")
    fig.update_layout(template=TEMPLATE, width=520, height=240, title="Texts on the same noise")
    fig.update_annotations(font={"size": 13})
    return shown(fig, Cells(axes=[]))


def shown(figure: go.Figure, cells: Cells) -> Drawn:
    """A figure as the page takes it: as JSON, in words, with its size and its cells. Its title is kept for downloads."""
    title = str(figure.layout.title.text or "")
    below = re.search("<sup>(.*?)</sup>", title, re.DOTALL)
    words = alternative(figure)
    width = float(figure.layout.width or 700)
    return {
        "figure": figure.to_plotly_json(),
        "said": "" if below is None else unescape(re.sub("<[^>]*>", " ", below.group(1))),
        "words": words,
        "width": round(TIGHTEST * width),
        "height": float(figure.layout.height or 450),
        "cells": {name: getattr(cells, name) for name in ("rows", "columns", "curves", "axes", "first")},
    }


@dataclass(frozen=True)
class Figure:
    """A figure of a state.

    Args:
        result: the name of the result that it is of.
        draw: what draws it.
        shows: what of the selection it depends on, besides the result.
    """

    result: Callable[[State], str]
    draw: Callable[[xr.Dataset, State], Drawn]
    shows: tuple[str, ...] = ()


FIGURES: dict[str, Figure] = {
    "lens": Figure(lambda at: ("tuned" if at.lens == "tuned" else "lens") + at.suffix, lens, ("position",)),
    "patching": Figure(lambda at: "patching", patching),
    "head": Figure(lambda at: f"attention{at.suffix}", head, ("layer", "head")),
    "heads": Figure(lambda at: f"attention{at.suffix}", heads, ("layer",)),
    "cone": Figure(lambda at: "cone", cone),
    "gain": Figure(lambda at: "gain", gain),
    "attribution": Figure(lambda at: "attribution", attribution),
}
"""Those that are drawn as the state changes."""
