"""The look of every figure: passed to each by itself, and registered by name; the default template stays as it is."""

import re

import plotly.graph_objects as go
import plotly.io

FONT = "Helvetica Neue, Helvetica, Arial, sans-serif"
INK, FAINT, GRID = "#1f2933", "#6b7785", "#e3e7eb"

# Okabe and Ito (2008), "Color universal design": told apart also with colour-blind eyes.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

SEQUENTIAL = "Cividis"
DIVERGING = "RdBu_r"

AXIS = {
    "title": {"font": {"size": 13}},
    "gridcolor": GRID,
    "linecolor": FAINT,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": FAINT,
    "automargin": True,
}

TEMPLATE = go.layout.Template(
    data={"heatmap": [{"colorbar": {"title": {"font": {"size": 13}}}}]},
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {"font": {"size": 15}, "x": 0.02, "xref": "container", "xanchor": "left"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": LINES,
        "margin": {"l": 64, "r": 24, "t": 56, "b": 56},
        "xaxis": AXIS,
        "yaxis": AXIS,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        "coloraxis": {"colorbar": {"title": {"font": {"size": 13}}}},
        "hoverlabel": {"font": {"family": FONT}},
    },
)


NAME = "criticalpile"
plotly.io.templates[NAME] = TEMPLATE

BESIDE_TITLE, TITLE_LETTER = 30, 8.2
"""Pixels beside a title, and of one of its letters."""


def figure(title: str, width: int, height: int) -> go.Figure:
    """An empty figure in the theme, sized in pixels; wider where the title would not fit."""
    lines = [re.sub("<.*?>", "", line) for line in re.split("<br>", title) if not line.startswith("<sup>")]
    width = max(width, BESIDE_TITLE + round(TITLE_LETTER * max(map(len, lines))))
    return go.Figure(layout={"template": TEMPLATE, "title": {"text": title}, "width": width, "height": height})
