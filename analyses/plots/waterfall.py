"""A sum as bars, each beginning where the one before ended, with the whole as the last."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analyses.plots.theme import FAINT, INK, LINES


def add_waterfall(
    fig: go.Figure,
    names: Sequence[str],
    parts: np.ndarray,
    total: float,
    *,
    units: str,
    whole: str = "total",
    error: dict[str, Any] | None = None,
    row: int = 1,
    col: int = 1,
) -> None:
    """Add the bars to a panel. Where labels must be thinned, that of the total is kept.

    Args:
        parts: [part]; total: what they sum to.
        whole: what the total is, where one points at it.
        error: of `error_y`, of the parts.
    """
    places = list(range(len(names) + 1))
    fig.add_bar(
        x=places[:-1], y=parts, base=np.concatenate([[0.0], np.cumsum(parts)[:-1]]), error_y=error, name="parts", showlegend=False,
        marker={"color": [LINES[1] if value > 0 else LINES[0] for value in parts]}, hovertext=list(names), customdata=parts,
        hovertemplate="%{hovertext}<br>%{customdata:+.3f} " + units + "<extra></extra>", row=row, col=col,
    )  # fmt: skip
    fig.add_bar(
        x=places[-1:], y=[total], name=whole, showlegend=False, marker={"color": INK},
        hovertemplate=whole + " %{y:.3f} " + units + "<extra></extra>", row=row, col=col,
    )  # fmt: skip
    fig.add_hline(y=0, line={"color": FAINT, "width": 1}, row=row, col=col)
    ticks = [*names, "<b>total</b>"]
    fig.update_xaxes(tickvals=places, ticktext=ticks, tickangle=-60, showgrid=False, row=row, col=col)
