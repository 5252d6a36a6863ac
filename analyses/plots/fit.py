"""A figure made to fit its size: labels thinned to the room there is, long titles wrapped, and what it shows said in words.

Every figure passes here once, in `analyses.plots.markup.as_text`, and again where it is laid out at another width.
"""

import math
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analyses.plots.theme import TEMPLATE, TITLE_LETTER

LETTER, LINE, BETWEEN = 0.58, 1.25, 10.0
"""Of a font's size: a letter's mean width and a line's height; pixels between labels that stand beside each other."""

SMALL = 0.7
"""Size of what stands in <sup>, which subtitles do."""

ABOVE, UNDER = 18, 12
"""Pixels above a title and under it."""

STEPS = (1, 2, 5)


def letters(text: str) -> list[str]:
    """The lines of a text as they are read, without tags."""
    return [unescape(re.sub("<.*?>", "", line)) for line in re.split("<br>", text)]


def fit(fig: go.Figure) -> None:
    """Thin the labels of every axis to the room along it, and wrap a title that is wider than the figure, in place."""
    _fit_title(fig)
    for name, axis in _axes(fig):
        room = _room(fig, name, axis)
        if axis.ticktext is not None:
            _thin(fig, axis, name, room)
        elif axis.type == "log" and axis.tickvals is None:
            _powers(fig, axis, name)
        elif isinstance(axis.dtick, (int, float)) and axis.type != "log" and float(axis.dtick) >= 1:
            _step(fig, axis, name, room)


def caption(fig: go.Figure, said: str | None) -> str:
    """A figure in words, as it stands beneath it in print: its title and subtitle, and how to read it.

    Args:
        said: the docstring of the function that draws it.
    """
    title = [line.strip().rstrip(".") for line in letters(str(fig.layout.title.text or "")) if line.strip()]
    return " ".join([*(f"{line[0].upper()}{line[1:]}." for line in title), how_to_read(said)]).strip()


def how_to_read(said: str | None) -> str:
    """Of a function's docstring what stands before its arguments."""
    return " ".join(str(said or "").split("Args:")[0].split("Raises:")[0].split())


def nice_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 and so on that is not below a number."""
    if least <= 1:
        return 1
    power = 10 ** math.floor(math.log10(least))
    return next(int(step * power) for step in (*STEPS, 10) if step * power >= least)


def _axes(fig: go.Figure) -> Iterator[tuple[str, Any]]:
    """Of a layout, with what makes them invisible left out."""
    for name in fig.layout:
        if re.fullmatch(r"[xy]axis\d*", name) and fig.layout[name] is not None:
            axis = fig.layout[name]
            if axis.visible is not False and axis.showticklabels is not False:
                yield name, axis


def _room(fig: go.Figure, name: str, axis: Any) -> float:
    """Pixels along an axis."""
    low, high = axis.domain or (0.0, 1.0)
    return (high - low) * (_inner(fig, "width", "lr") if name.startswith("x") else _inner(fig, "height", "tb"))


def _inner(fig: go.Figure, along: str, sides: str) -> float:
    """Pixels between the margins, on the left at least what labels there need."""
    margins = [fig.layout.margin[side] for side in sides]
    taken = [TEMPLATE.layout.margin[side] if one is None else one for side, one in zip(sides, margins, strict=True)]
    if along == "width":
        left = [
            axis for name, axis in _axes(fig) if name.startswith("y") and (axis.domain is None or _is_left(fig, name))
        ]
        taken[0] = max(taken[0], *(_widest(axis) + 34 for axis in left), 0)
    return float(fig.layout[along] or 700) - float(sum(taken))


def _is_left(fig: go.Figure, name: str) -> bool:
    """Whether a y axis stands at the left edge."""
    across = fig.layout[f"xaxis{name.removeprefix('yaxis')}"]
    return across is None or across.domain is None or float(across.domain[0]) < 0.01


def _widest(axis: Any) -> float:
    size = _size(axis)
    return max((LETTER * size * max(map(len, letters(str(text)))) for text in axis.ticktext or ()), default=0.0)


def _size(axis: Any) -> float:
    return float(axis.tickfont.size or TEMPLATE.layout.font.size)


def _thin(fig: go.Figure, axis: Any, name: str, room: float) -> None:
    """Keep so many of an axis' own labels as have room: those in bold, and of the others every n-th."""
    places, texts = list(axis.tickvals if axis.tickvals is not None else range(len(axis.ticktext))), list(axis.ticktext)
    if len(texts) < 2 or any(isinstance(place, str) for place in places):
        return
    along = np.log10(np.asarray(places, dtype=float)) if axis.type == "log" else np.asarray(places, dtype=float)
    lines = [letters(str(text)) for text in texts]
    size = _size(axis)
    if name.startswith("y"):
        needed = LINE * size * max(map(len, lines))
    elif axis.tickangle == 0 or max(len(line) for some in lines for line in some) <= 2:
        needed = LETTER * size * max(len(line) for some in lines for line in some) + BETWEEN
    else:
        needed = LINE * size / math.sin(math.radians(60))
    span = _span_of(fig, axis, name, along)
    apart = needed * span / max(room, 1.0)  # in units of the axis
    if np.diff(np.sort(along)).min() >= apart:
        return
    kept: list[int] = []
    bold = [at for at, text in enumerate(texts) if str(text).startswith("<b>")]
    step = 1 if axis.type == "log" else nice_step(apart * (len(places) - 1) / max(float(along[-1] - along[0]), 1e-9))
    for at in [*bold, *range(0, len(places), step)]:
        if all(abs(along[at] - along[other]) >= apart for other in kept):
            kept.append(at)
    kept.sort()
    axis.update(tickvals=[places[at] for at in kept], ticktext=[texts[at] for at in kept])


def _span_of(fig: go.Figure, axis: Any, name: str, along: np.ndarray) -> float:
    """How far an axis reaches, in its units, which of a logarithmic one are decades."""
    if axis.range is not None:
        return abs(float(axis.range[1]) - float(axis.range[0]))
    if axis.type == "log":
        low, high = _reach(fig, name, above=0.0)
        return math.log10(high / low) if 0 < low < high else 1.0
    return float(along.max() - along.min()) + 1.0


def _step(fig: go.Figure, axis: Any, name: str, room: float) -> None:
    """The distance of ticks at whole numbers that leaves room for their labels."""
    low, high = _reach(fig, name)
    if not high > low:
        return
    digits = len(f"{high:.0f}")
    size = _size(axis)
    needed = LINE * size if name.startswith("y") else LETTER * size * digits + BETWEEN
    axis.update(dtick=nice_step(needed * (high - low) / max(room, 1.0)))


def _powers(fig: go.Figure, axis: Any, name: str) -> None:
    """Ticks of a logarithmic axis: powers of ten, and where they are few what lies between; on either side a decade more than is drawn."""
    low, high = _reach(fig, name, above=0.0)
    if not high > 0:
        return
    lowest, highest = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = math.log10(high / low)
    between = (1, 1.5, 2, 3, 5, 7) if decades < 0.6 else STEPS if decades < 2 else (1,)
    step = max(1, math.ceil(decades / 7))
    powers = [power for power in range(lowest - 1, highest + 2) if power % step == 0]
    ticks = [digit * 10.0**power for power in powers for digit in between]
    axis.update(tickvals=ticks, ticktext=[_number(tick) for tick in ticks], dtick=None, minor={"ticks": ""})


def _number(value: float) -> str:
    """Written out where it is short, else as a power of ten."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    power = math.floor(math.log10(value * (1 + 1e-9)))
    digit = value / 10.0**power
    return f"10<sup>{power}</sup>" if abs(digit - 1) < 1e-6 else f"{digit:g}·10<sup>{power}</sup>"


def _reach(fig: go.Figure, name: str, above: float = -math.inf) -> tuple[float, float]:
    """The lowest and highest place that is drawn at along an axis of numbers, of those above some value."""
    letter = name[0]
    found: list[float] = []
    for trace in fig.data:
        own = f"{letter}axis{(getattr(trace, f'{letter}axis', None) or letter)[1:]}"
        if own != name:
            continue
        drawn = getattr(trace, letter, None)
        if drawn is None and trace.type == "heatmap" and trace.z is not None:
            found += [0.0, float(np.shape(trace.z)[0 if letter == "y" else 1] - 1)]
        elif drawn is not None and np.asarray(drawn).dtype.kind in "fiu" and np.size(drawn):
            values = np.asarray(drawn, dtype=float)
            values = values[np.isfinite(values) & (values > above)]
            found += [float(values.min()), float(values.max())] if len(values) else []
    return (min(found), max(found)) if found else (0.0, 0.0)


def _fit_title(fig: go.Figure) -> None:
    """Wrap the lines of a title to the figure's width, and make the room above the panels that they take."""
    text, width = fig.layout.title.text, float(fig.layout.width or 700)
    if not text:
        return
    head, small = _parts(str(text))
    size = float(fig.layout.title.font.size or TEMPLATE.layout.title.font.size)
    lines = [part for line in head for part in wrapped(line, width - 40, size * TITLE_LETTER / 15)]
    below = [part for line in small for part in wrapped(line, width - 40, LETTER * SMALL * size)]
    fig.layout.title.text = "<br>".join([*lines, f"<sup>{'<br>'.join(below)}</sup>"] if below else lines)
    needed = ABOVE + UNDER + LINE * size * (len(lines) + 0.95 * len(below))
    needed += _over_panels(fig)
    top = float(TEMPLATE.layout.margin.t if fig.layout.margin.t is None else fig.layout.margin.t)
    fig.layout.title.update(y=1, yanchor="top", yref="container", pad={"t": ABOVE})
    if needed > top:
        fig.update_layout(margin={"t": needed}, height=float(fig.layout.height or 450) + needed - top)


def _parts(text: str) -> tuple[list[str], list[str]]:
    """The lines of a title, and those of its subtitle, which stands in <sup>."""
    found = re.fullmatch(r"(.*?)(?:<br>)?(?:<sup>(.*)</sup>)?", text, re.DOTALL)
    head, small = found.groups() if found else (text, None)
    return [line for line in head.split("<br>") if line], [line for line in (small or "").split("<br>") if line]


def _over_panels(fig: go.Figure) -> float:
    """Pixels that stand between a title and the panels: their own titles, and a legend above them."""
    notes = [
        LINE * float(note.font.size or 16) * len(letters(str(note.text)))
        for note in fig.layout.annotations
        if note.yref == "paper" and note.yanchor == "bottom" and note.y is not None and float(note.y) > 0.97
    ]
    legend = fig.layout.legend
    shown = [trace for trace in fig.data if trace.showlegend is not False and trace.name and trace.type != "heatmap"]
    several = len(shown) > 1 or any(trace.showlegend for trace in shown)
    over = fig.layout.showlegend is not False and several and (legend.y is None or float(legend.y) >= 1)
    return max(notes, default=0.0) + (24.0 if over else 0.0)


def wrapped(text: str, width: float, letter: float) -> list[str]:
    """A line broken where it is wider than so many pixels; never within a tag or an entity."""
    most = max(12, int(width / letter))
    if max(map(len, letters(text))) <= most:
        return [text]
    parts = re.split(r"(\s+)", text)
    lines, line = [], ""
    for part in parts:
        if line.strip() and len(letters(line + part)[0]) > most:
            lines.append(line.strip())
            line = ""
        line += part
    return [*lines, line.strip()] if line.strip() else lines
