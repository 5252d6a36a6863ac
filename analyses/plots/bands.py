"""Uncertainty as a band around a curve."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from analyses.plots.theme import INK


def band(x: Sequence[Any] | np.ndarray, bounds: Float[np.ndarray, "two point"], color: str) -> go.Scatter:
    """The trace between a lower and an upper bound; it says nothing on hover and stands in no legend."""
    low, high = bounds
    return go.Scatter(
        x=[*x, *reversed(list(x))], y=np.concatenate([high, low[::-1]]), fill="toself", fillcolor=color, opacity=0.16, mode="lines",
        line={"width": 0}, hoverinfo="skip", showlegend=False, name="band",
    )  # fmt: skip


def interval(result: Any, name: str) -> Float[np.ndarray, "two point"] | None:
    """An interval of a result, where it has one and it is a number everywhere."""
    found = result.get(name)
    return None if found is None or not np.isfinite(found).all() else np.asarray(found)


def whiskers(
    values: Float[np.ndarray, " point"], bounds: Float[np.ndarray, "two point"] | None, color: str = INK
) -> dict[str, Any] | None:
    """Error bars from an interval, which may lie to one side of the value; None without one, no bar where it is no number."""
    if bounds is None or not np.isfinite(bounds).any():
        return None
    away = np.nan_to_num(np.stack([values - bounds[0], bounds[1] - values]))
    return {
        "type": "data",
        "symmetric": False,
        "array": away[1],
        "arrayminus": away[0],
        "color": color,
        "thickness": 1.4,
        "width": 4,
    }


def whisker(value: float, bounds: Any, color: str = INK) -> dict[str, Any] | None:
    """The error bar of one value from its interval [lower, upper]; None where that is no number."""
    pair = np.asarray(bounds, dtype=float).reshape(2, 1)
    return whiskers(np.array([value]), pair, color)
