"""Is anything missing from a circuit, and is anything superfluous?"""

import json
import textwrap

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.bands import whiskers
from analyses.plots.grid import chosen_prompt, over_pairs
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name, named, where_read
from analyses.plots.theme import FAINT, LINES, figure
from interp.errors import ResultError

ROW, AROUND = 19, 160
"""Pixels of a node, and above and below all of them."""

LABELLED = 3
"""Single nodes that are named: those farthest from the diagonal."""


@draws("circuit_completeness")
def plot_completeness(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """A point for each set of nodes taken out: the metric of the model without them, and of the circuit without them, with 95 % intervals.

    A complete circuit lies on the diagonal. The single nodes farthest from it are named.

    Args:
        result: of `analyses.completeness`.
        prompt: which pair; None is the only pair, or the mean over pairs.
    """
    number = chosen_prompt(result, prompt)
    done = json.loads(result.attrs["parameters"])
    sets, sizes = [named(one) for one in result["knocked_out"].to_numpy()], result["n_nodes"].to_numpy()
    (x, x_bounds), (y, y_bounds) = (_means(result, name, number) for name in ("model_value", "circuit_value"))
    fig = figure(
        f"Is the circuit complete? · {model_name(result)}<br><sup>{counted(len(done['circuit']), 'edge')}; "
        f"{counted(len(sets), 'set')} of nodes out of both; {_asked(result, done, number)}</sup>",
        560, 580,
    )  # fmt: skip
    ends = np.concatenate([part[np.isfinite(part)].ravel() for part in (x, y, x_bounds, y_bounds) if part is not None])
    margin = 0.06 * (float(np.ptp(ends)) or 1.0)
    low, high = float(ends.min()) - margin, float(ends.max()) + margin
    fig.add_scatter(
        x=[low, high], y=[low, high], mode="lines", line={"color": FAINT, "width": 1, "dash": "dot"}, hoverinfo="skip",
        name="complete", showlegend=False,
    )  # fmt: skip
    apart, apart_bounds = _means(result, "incompleteness", number)
    said_apart = [f"{one:.3f}{_bounds(apart_bounds, at)}" for at, one in enumerate(apart)]
    far = _farthest(x, y, sizes == 1, 0.08 * (high - low))
    for single, said, color, symbol in (
        (True, "one node", LINES[0], "circle"),
        (False, "several nodes", LINES[1], "square"),
    ):
        if len(at := np.flatnonzero((sizes == 1) == single)):
            fig.add_scatter(
                x=x[at], y=y[at], mode="markers+text", name=said, marker={"color": color, "size": 8, "symbol": symbol},
                error_x=whiskers(x[at], None if x_bounds is None else x_bounds[:, at], _pale(color)),
                error_y=whiskers(y[at], None if y_bounds is None else y_bounds[:, at], _pale(color)),
                text=[sets[one] if one in far else "" for one in at], textfont={"size": 11},
                textposition=["top left" if y[one] > x[one] else "bottom right" for one in at],
                customdata=np.array([[wrapped(sets[one]) for one in at], [said_apart[one] for one in at]], dtype=object).T,
                hovertemplate="without %{customdata[0]}<br>model %{x:.3f}, circuit %{y:.3f}"
                "<br>incompleteness %{customdata[1]}<extra></extra>",
            )  # fmt: skip
    units = _units(result, "model_value")
    said = done["metric"].replace("_", " ")
    fig.update_xaxes(title=f"{said} of the model{units}", range=[low, high])
    fig.update_yaxes(title=f"{said} of the circuit{units}", range=[low, high])
    fig.update_layout(margin={"t": 112})
    return fig


@draws("circuit_minimality")
def plot_minimality(result: xr.Dataset, *, top: int = 40, prompt: int | None = None) -> go.Figure:
    """The nodes of the circuit, by how far the metric moves at most when the node goes too, with the 95 % interval of that change.

    Nodes at 0 are superfluous, whatever else is gone; on hover, with which set it moves most.

    Args:
        result: of `analyses.minimality`.
        top: how many nodes at most.
        prompt: which pair, with the sets that move it most; None is the only pair, or the mean over pairs.
    """
    if top < 1:
        raise ResultError(f"a figure of nodes shows 1 or more; got top={top}.")
    number = chosen_prompt(result, prompt)
    done = json.loads(result.attrs["parameters"])
    change, bounds = _means(result, "change", number)
    best = np.nan_to_num(np.abs(change)).argmax(0)
    nodes = np.arange(len(best))
    largest = np.nan_to_num(change[best, nodes])
    order = np.argsort(-np.abs(largest), kind="stable")[:top][::-1]  # the largest on top
    names = [named(name) for name in result["source"].to_numpy()[order]]
    sets = [named(one) for one in result["knocked_out"].to_numpy()]
    shown = f"the first {len(order)} of " if len(order) < len(best) else ""
    fig = figure(
        f"Is the circuit minimal? · {model_name(result)}<br><sup>{shown}{counted(len(best), 'node')}, largest change over "
        f"{counted(len(sets), 'set')} gone before; {_asked(result, done, number)}</sup>",
        560, max(320, AROUND + ROW * len(order)),
    )  # fmt: skip
    values = largest[order]
    fig.add_scatter(
        x=values, y=np.arange(len(order)), mode="markers", marker={"color": LINES[0], "size": 8}, showlegend=False,
        error_x=whiskers(values, None if bounds is None else bounds[:, best[order], order], FAINT),
        customdata=np.array([names, [wrapped(sets[best[at]]) for at in order]], dtype=object).T,
        hovertemplate="%{customdata[0]}: %{x:.4g}<br>with %{customdata[1]} gone<extra></extra>",
    )  # fmt: skip
    fig.add_vline(x=0, line={"color": FAINT, "width": 1, "dash": "dot"})
    fig.update_xaxes(title=f"change of the {done['metric'].replace('_', ' ')}{_units(result, 'change')}")
    fig.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4], showgrid=False)
    fig.update_layout(margin={"t": 90})
    return fig


def _means(result: xr.Dataset, name: str, number: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Of a pair, or the mean over pairs with its interval where it has one."""
    if number is not None:
        return result[name].isel(prompt=number).to_numpy(), None
    bounds = result[f"{name}_interval"].to_numpy()
    return result[f"{name}_mean"].to_numpy(), bounds if np.isfinite(bounds).any() else None


def _bounds(bounds: np.ndarray | None, at: int) -> str:
    there = bounds is not None and np.isfinite(bounds[:, at]).all()
    return f", 95 % interval {bounds[0, at]:.3f} to {bounds[1, at]:.3f}" if bounds is not None and there else ""


def _farthest(x: np.ndarray, y: np.ndarray, among: np.ndarray, room: float) -> list[int]:
    """The points to be named: of some, those farthest from the diagonal, none close upon another."""
    found: list[int] = []
    for at in np.argsort(-np.abs(np.nan_to_num(x - y)), kind="stable"):
        if among[at] and len(found) < LABELLED and all(np.hypot(x[at] - x[o], y[at] - y[o]) > room for o in found):
            found.append(int(at))
    return found


def _asked(result: xr.Dataset, done: dict, number: int | None) -> str:  # type: ignore[type-arg]
    return (over_pairs(result) if number is None else "one pair") + where_read(done, number)


def _units(result: xr.Dataset, name: str) -> str:
    units = named(result[name].attrs["units"])
    return f" ({units})" if units != "1" else ""


def _pale(color: str) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.45)"


def wrapped(text: str) -> str:
    """A long list of nodes in lines."""
    return "<br>".join(textwrap.wrap(text, 60))
