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

# So pale that ink on any of their colours has a contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3): for cells with words in them.
PALE = ((0.0, "#ffffff"), (1.0, "#74add1"))
PALE_REVERSED = tuple((1.0 - at, color) for at, color in reversed(PALE))
PALE_DIVERGING = ((0.0, "#74add1"), (0.5, "#ffffff"), (1.0, "#f4976c"))

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")

AXIS = {
    "title": {"font": {"size": 13}, "standoff": 8},
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

WIDEST, TALLEST = 1100, 1500
"""Pixels of a figure: a page's width, and what is still seen at once."""

BESIDE_TITLE, TITLE_LETTER = 30, 8.2
"""Pixels beside a title, and of one of its letters."""


def look(number: int) -> tuple[dict[str, str], dict[str, str]]:
    """Line and marker of the so manieth curve: where colours begin again, dashes and signs are others."""
    color, again = LINES[number % len(LINES)], number // len(LINES) % len(DASHES)
    return {"color": color, "dash": DASHES[again]}, {"color": color, "symbol": SYMBOLS[again]}


def figure(title: str, width: int, height: int) -> go.Figure:
    """An empty figure in the theme, sized in pixels; wider where the title would not fit, up to a page's width."""
    lines = [re.sub("<.*?>", "", line) for line in re.split("<br>", title) if not line.startswith("<sup>")]
    width = max(width, min(WIDEST, BESIDE_TITLE + round(TITLE_LETTER * max(map(len, lines)))))
    return go.Figure(layout={"template": TEMPLATE, "title": {"text": title}, "width": width, "height": height})
