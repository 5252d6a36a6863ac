"""Figures at the size at which they are printed or shown."""

from dataclasses import dataclass

import plotly.graph_objects as go

from analyses.plots.fit import fit

INCH, DOTS = 96.0, 300.0
"""Pixels of a screen, and dots of print, to an inch."""


@dataclass(frozen=True)
class Size:
    """Where a figure goes.

    Args:
        inches: width there; None keeps the figure as it was drawn.
        layout: (least, most) width in pixels on which it is laid out before it is brought to its width in print: text of 13 pixels then
            has 13 / 96 * 72 * inches * 96 / width points. Wider figures have panels side by side, and are not squeezed.
        titled: whether its title is drawn; in a paper the caption says it.
    """

    inches: float | None
    layout: tuple[int, int] = (0, 10_000)
    titled: bool = False

    def scale(self, width: float, kind: str) -> float:
        """Factor from layout pixels to those of the file; PNG has 300 dots to an inch in print, twice the pixels for a screen."""
        if self.inches is None:
            return 2.0 if kind == "png" else 1.0
        return self.inches * (DOTS if kind == "png" else INCH) / width


SIZES = {
    "screen": Size(None, titled=True),
    "single": Size(3.5, (480, 500)),
    "double": Size(7.2, (860, 1040)),
    "slide": Size(12.0, (760, 1040), titled=True),
}
"""One column and two of a journal page, a 16:9 slide, and the screen. Text is printed at 6.5 to 7 points in a column, 6.5 to 8 in two."""

PANELLED = 800
"""Figures laid out wider than this have panels side by side, which one column would make unreadable."""


def fitting(figure: go.Figure, size: str) -> str:
    """The size a figure can have: `double` where it is too wide for `single`, else the one asked for."""
    return "double" if size == "single" and float(figure.layout.width) > PANELLED else size


def sized(figure: go.Figure, size: str) -> go.Figure:
    """A copy of a figure, laid out for a place. Raises KeyError for a name that is not in `SIZES`."""
    target = SIZES[size]
    found = go.Figure(figure)  # its own copy, in which arrays stay what they are
    if target.inches is None:
        return found
    native, height = float(found.layout.width), float(found.layout.height)
    least, most = target.layout
    width = min(max(native, least), most)
    if not target.titled:
        top = float(found.layout.margin.t or 56)
        above = any(note.yref == "paper" and note.yanchor == "bottom" for note in found.layout.annotations)
        kept = 30.0 if above else 12.0
        height, found.layout.title, found.layout.margin.t = height - top + kept, None, kept
    found.update_layout(width=width, height=height)
    fit(found)
    return found
