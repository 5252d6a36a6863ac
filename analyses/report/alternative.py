"""A figure in words, for who does not see it."""

import re
from html import unescape
from typing import Any

import numpy as np
import plotly.graph_objects as go

KINDS = {"heatmap": "heatmap", "bar": "bars", "scatter": "lines or dots", "histogram": "histogram"}
PANELS = 6
"""Panels that are described; more are counted."""


def alternative(figure: go.Figure) -> str:
    """Its title, what its panels and axes are named, what is drawn, and the range of what a heatmap shows."""
    told = [_words(figure.layout.title.text), *_panels(figure), _axes(figure), _drawn(figure)]
    return ". ".join(one for one in told if one) + "."


def plain_title(figure: go.Figure) -> str:
    """The first line of a figure's title, without tags."""
    return _words(str(figure.layout.title.text or "").split("<br>")[0])


def _panels(figure: go.Figure) -> list[str]:
    """Titles of panels, which plotly keeps as notes above them."""
    titles = [
        _words(note.text) for note in figure.layout.annotations if not note.showarrow and note.yanchor == "bottom"
    ]
    titles = [one for one in titles if one]
    return (
        [f"Panels: {'; '.join(titles[:PANELS])}{f' and {len(titles) - PANELS} more' if len(titles) > PANELS else ''}"]
        if titles
        else []
    )


def _axes(figure: go.Figure) -> str:
    found = {}
    for letter, where in (("x", "Across"), ("y", "upward")):
        axes = [figure.layout[name] for name in figure.layout if re.fullmatch(f"{letter}axis[0-9]*", name)]
        titles = list(dict.fromkeys(_words(axis.title.text) for axis in axes if _words(axis.title.text)))
        if titles:
            found[where] = "; ".join(titles[:PANELS])
    return ", ".join(f"{where}: {titles}" for where, titles in found.items())


def _drawn(figure: go.Figure) -> str:
    kinds = [trace.type for trace in figure.data]
    named = dict.fromkeys(_words(trace.name) for trace in figure.data if trace.showlegend is not False and trace.name)
    parts = [f"{kinds.count(kind)} × {KINDS.get(kind, kind)}" for kind in dict.fromkeys(kinds)]
    parts += [f"named {', '.join(list(named)[:PANELS])}"] if named else []
    grids = [_numbers(trace.z) for trace in figure.data if trace.type == "heatmap"]
    values = np.concatenate([one for one in grids if len(one)]) if any(map(len, grids)) else np.array([])
    parts += [f"values from {values.min():.3g} to {values.max():.3g}"] if len(values) else []
    return ", ".join(parts)


def _numbers(values: Any) -> np.ndarray:
    try:
        flat = np.asarray(values, dtype=float).ravel()
    except (TypeError, ValueError):
        return np.array([])
    finite: np.ndarray = flat[np.isfinite(flat)]
    return finite


def _words(text: str | None) -> str:
    """A label without tags."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", re.sub("<br>", ". ", text or ""))).split())
