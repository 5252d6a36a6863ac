"""The plotly.js that a page carries: no more of it than its figures need, and packed."""

import base64
import gzip
from collections.abc import Iterable
from importlib.resources import files

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs, get_plotlyjs_version

VERSION = "4.1.1"
"""Of plotly.js, of the bundle that lies in this package. Where plotly itself comes with another, that is taken whole."""

CARTESIAN = frozenset(
    "bar box contour heatmap histogram histogram2d histogram2dcontour image pie scatter scatterternary violin".split()
)
"""The traces that the bundle draws."""


def packed(figures: Iterable[go.Figure]) -> str:
    """A plotly.js that draws these figures, gzipped, in base64: a third of a megabyte or two, where plotly's own is five."""
    return base64.b64encode(drawing({trace.type for figure in figures for trace in figure.data})).decode()


def drawing(kinds: Iterable[str]) -> bytes:
    """A plotly.js that draws these kinds of traces, gzipped."""
    if set(kinds) <= CARTESIAN and get_plotlyjs_version() == VERSION:
        return bundled()
    return gzip.compress(get_plotlyjs().encode(), 9, mtime=0)


def bundled() -> bytes:
    """The cartesian bundle of plotly.js, gzipped."""
    return (files("analyses.report") / "bundles" / "plotly-cartesian.min.js.gz").read_bytes()
