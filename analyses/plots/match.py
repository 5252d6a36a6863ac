"""Two figures of one kind on the same scales, so that they can be compared by eye."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go

PAD = 0.05
"""Space beyond the outermost values, of the range."""


def match(figures: Iterable[go.Figure]) -> None:
    """Give each axis of values and each colour scale of these figures, of one kind, the range that holds them all, in place.

    Ranges that a figure has set by itself, and axes of categories, stay as they are.
    """
    figures = list(figures)
    for letter in "xy":
        for name in {_axis_of(trace, letter) for fig in figures for trace in fig.data}:
            axes = [fig.layout[name] for fig in figures]
            values = [_values(fig, letter, name) for fig in figures]
            if any(axis.range is not None for axis in axes) or any(found is None for found in values):
                continue
            every = np.concatenate([found for found in values if found is not None])
            is_log = axes[0].type == "log"
            every = every[np.isfinite(every) & ((every > 0) | (not is_log))]
            if not len(every):
                continue
            every = np.log10(every) if is_log else every
            low, high = float(every.min()), float(every.max())
            room = PAD * (high - low) or 0.5
            for axis in axes:
                axis.range = [low - room, high + room]
    for number in range(min(len(fig.data) for fig in figures)):
        _match_colors([fig.data[number] for fig in figures])
    if all(fig.layout.coloraxis.cmin is not None for fig in figures):
        low, high = min(fig.layout.coloraxis.cmin for fig in figures), max(fig.layout.coloraxis.cmax for fig in figures)
        for fig in figures:
            fig.layout.coloraxis.update(cmin=low, cmax=high)


def _axis_of(trace: Any, letter: str) -> str:
    """The layout's name of a trace's axis: `xaxis`, `yaxis2`."""
    return f"{letter}axis{(trace[f'{letter}axis'] or letter)[1:]}"


def _values(fig: go.Figure, letter: str, name: str) -> np.ndarray | None:
    """What is drawn along an axis by dots, lines and bars; None where that is not numbers, or is a grid's rows and columns."""
    found = [np.array([], dtype=float)]
    for trace in fig.data:
        if _axis_of(trace, letter) != name:
            continue
        drawn = np.asarray(trace[letter])
        if trace.type not in ("scatter", "bar") or drawn.dtype.kind not in "fiu":
            return None
        if trace.type == "bar" and letter == "y":
            base = np.zeros(len(drawn)) if trace.base is None else np.asarray(trace.base)
            drawn = np.concatenate([base, base + drawn])
        found.append(drawn.astype(float).ravel())
        error = trace[f"error_{letter}"]
        for side, sign in ((error.array, 1), (error.arrayminus, -1)):
            if side is not None:
                found.append(np.asarray(trace[letter], dtype=float) + sign * np.asarray(side, dtype=float))
    return np.concatenate(found)


def _match_colors(traces: list[Any]) -> None:
    """One colour scale for the heatmaps of the same panel, and all of its ticks."""
    if any(trace.type != "heatmap" or trace.coloraxis is not None for trace in traces):
        return
    lows = [trace.zmin if trace.zmin is not None else np.nanmin(np.asarray(trace.z, dtype=float)) for trace in traces]
    highs = [trace.zmax if trace.zmax is not None else np.nanmax(np.asarray(trace.z, dtype=float)) for trace in traces]
    low, high = float(min(lows)), float(max(highs))
    if traces[0].zmid == 0:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    ticks: dict[float, str] = {}
    for trace in traces:
        bar = trace.colorbar
        if bar.ticktext is not None:
            ticks |= dict(zip(bar.tickvals, bar.ticktext, strict=True))
    for trace in traces:
        trace.update(zmin=low, zmax=high)
        if ticks:
            trace.colorbar.update(tickvals=sorted(ticks), ticktext=[ticks[at] for at in sorted(ticks)])
