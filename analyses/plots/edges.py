"""Edges between the parts of a model: those that move the answer most."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.averaged import LEFT_OUT
from analyses.plots.grid import chosen_prompt, over_pairs
from analyses.plots.kinds import draws
from analyses.plots.labels import axis, counted, model_name, named, where_read
from analyses.plots.theme import DIVERGING, FAINT, INK, LINES, figure
from interp.errors import ResultError

ROW, AROUND, MORE = 19, 150, 9
"""Pixels of a row, above and below all of them, and of a row for each method more."""

SMALLEST = 380


SYMBOLS = ("circle", "square", "triangle-up", "star", "pentagon", "hexagon")
"""Of methods, beside their colours; the exact change is a diamond."""

METHODS = {
    "eap": "EAP",
    "eap_ig_inputs": "EAP-IG inputs",
    "eap_ig_activations": "EAP-IG activations",
    "clean_corrupted": "clean-corrupted",
    "relp": "RelP",
    "atp_star": "AtP*",
}


@draws("edge_patching", "edge_attribution")
def plot_edges(result: xr.Dataset, *, top: int = 25, prompt: int | None = None) -> go.Figure:
    """The edges that change the metric most, with their 95 % intervals over pairs; estimates, of every method, beside the exact changes of
    those checked.

    By position, a heatmap of the same edges.

    Args:
        result: of `analyses.edge_patching` or `analyses.edge_attribution`.
        top: how many edges: of several methods, those with the largest estimate by any.
        prompt: which pair; None is the only pair, or the mean over pairs.
    """
    if top < 1:
        raise ResultError(f"a figure of edges shows 1 or more; got top={top}.")
    done = json.loads(result.attrs["parameters"])
    number = chosen_prompt(result, prompt)
    ranked = "estimate" if "estimate" in result else "change"
    methods = _methods(result, done) if ranked == "estimate" else []
    values = _shown(result, ranked, number)
    every = values if "estimator" in result.dims else values[None]  # [estimator, edge, ...]
    size = np.nan_to_num(np.abs(every), nan=-1.0).max(0).reshape(every.shape[1], -1).max(1)
    best = np.argsort(-size, kind="stable")[:top][::-1]  # the largest on top
    names = [named(name) for name in result["edge"].to_numpy()[best]]
    how = f"{done['direction']}, {done['replacement'].replace('_', ' ')}"
    how = f"{methods[0]}, {how}" if len(methods) == 1 else how
    asked = done["metric"].replace("_", " ") + where_read(done, number)
    asked += (
        f", {over_pairs(result.drop_vars(['left_out', LEFT_OUT], errors='ignore'))}" if number is None else ""
    )  # a change has no gap
    row = ROW + MORE * max(0, len(methods) - 1)
    fig = figure(
        f"Edges that move the answer · {model_name(result)}<br><sup>the largest {len(best)} of "
        f"{counted(result.sizes['edge'], 'edge')}; {how}; {asked}</sup>",
        820, max(SMALLEST, AROUND + row * len(best)),
    )  # fmt: skip
    units = named(result[ranked].attrs["units"])
    title = f"change of the {done['metric'].replace('_', ' ')}" + (f" ({units})" if units != "1" else "")
    if ranked == "change" and values.ndim == 2:
        _by_position(fig, values[best], names, result, number, title)
    else:
        shown = [
            _Dots("estimate", at if "estimator" in result.dims else None, label, LINES[at], SYMBOLS[at])
            for at, label in enumerate(methods if len(methods) > 1 else ["estimate"] * len(methods))
        ]
        exact = (INK, "diamond") if methods else (LINES[0], "circle")
        shown.append(_Dots("change", None, "exact", *exact))
        aside = 0.0 if len(shown) == 1 else 0.17 if len(shown) == 2 else 0.36
        for dots, shift in zip(shown, np.linspace(aside, -aside, len(shown)), strict=True):
            _draw(fig, result, dots, number, best, names, float(shift))
        fig.add_vline(x=0, line={"color": FAINT, "width": 1, "dash": "dot"})
        fig.update_xaxes(title=title)
    fig.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4], showgrid=False)
    fig.update_layout(margin={"t": 90}, showlegend=ranked == "estimate")
    if len(methods) > 1:  # their legend may take two lines below the title
        fig.update_layout(margin={"t": 116}, title={"y": 1, "yanchor": "top", "pad": {"t": 20}})
    return fig


def _methods(result: xr.Dataset, done: Mapping[str, Any]) -> list[str]:
    """How the methods of a result are called. Raises ResultError for more than there are colours."""
    if "estimator" in result.dims or "estimator" in result.coords:
        listed = [str(name) for name in result["estimator"].to_numpy().reshape(-1)]
    else:
        listed = [done["method"] if isinstance(done["method"], str) else "one of several methods"]
    if len(listed) > len(LINES):
        raise ResultError(
            f"a figure of edges shows {len(LINES)} methods at most, this result has {len(listed)} methods; choose some by "
            "result.isel(estimator=[0, 1])."
        )
    return [METHODS.get(name, named(name)) for name in listed]


def _shown(result: xr.Dataset, name: str, number: int | None) -> np.ndarray:
    """[edge], [edge, position] or [estimator, edge]: of a pair, or the mean."""
    return (result[f"{name}_mean"] if number is None else result[name].isel(prompt=number)).to_numpy()


@dataclass(frozen=True)
class _Dots:
    """One mark for each edge.

    Args:
        name: of the variable.
        method: the place of its method; None where it has none.
    """

    name: str
    method: int | None
    label: str
    color: str
    symbol: str


def _draw(
    fig: go.Figure,
    result: xr.Dataset,
    dots: _Dots,
    number: int | None,
    best: np.ndarray,
    names: list[str],
    shift: float,
) -> None:
    of = result if dots.method is None else result.isel(estimator=dots.method)
    values, error = _shown(of, dots.name, number)[best], None
    if number is None and np.isfinite(bounds := of[f"{dots.name}_interval"].to_numpy()[:, best]).any():
        away = np.nan_to_num(np.stack([values - bounds[0], bounds[1] - values]))
        error = {"array": away[1], "arrayminus": away[0], "color": FAINT, "thickness": 1.2, "width": 2}
    fig.add_scatter(
        x=values, y=[row + shift for row in range(len(values))], error_x=error, mode="markers", name=dots.label,
        marker={"color": dots.color, "size": 8, "symbol": dots.symbol},
        customdata=names, hovertemplate="%{customdata}<br>" + dots.label + " %{x:.3f}<extra></extra>",
    )  # fmt: skip


def _by_position(
    fig: go.Figure,
    values: np.ndarray,
    names: list[str],
    result: xr.Dataset,
    number: int | None,
    title: str,
) -> None:
    limit = float(np.nanmax(np.abs(values))) or 1.0
    ends = "change_mean" in result and number is None and "position_from_end" in result["change_mean"].dims
    x = result["position_from_end" if ends else "position"].to_numpy()
    fig.add_heatmap(
        z=values, x=x, y=list(range(len(names))), colorscale=DIVERGING, zmid=0, zmin=-limit, zmax=limit,
        colorbar={"title": {"text": title, "side": "right"}, "thickness": 14},
        customdata=np.array(names, dtype=object)[:, None].repeat(len(x), 1),
        hovertemplate="%{customdata}, position %{x}<br>%{z:.3f}<extra></extra>",
    )  # fmt: skip
    if number is not None:
        tokens = result["clean_token"].isel(prompt=number).to_numpy()
        fig.update_xaxes(axis(tokens), tickangle=-60)
    fig.update_xaxes(title="position from the end" if ends else "position", showgrid=False)
