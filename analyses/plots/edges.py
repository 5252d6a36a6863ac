"""Edges between the parts of a model: those that move the answer most."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.grid import chosen_prompt, over_pairs
from analyses.plots.kinds import draws
from analyses.plots.labels import axis, counted, model_name, named, where_read
from analyses.plots.theme import DIVERGING, FAINT, INK, LINES, figure
from interp.errors import ResultError

ROW, AROUND = 19, 150
"""Pixels of a row, and above and below all of them."""

SMALLEST = 380


@draws("edge_patching", "edge_attribution")
def plot_edges(result: xr.Dataset, *, top: int = 25, prompt: int | None = None) -> go.Figure:
    """The edges that change the metric most, with their 95 % intervals over pairs; estimates beside the exact changes of those checked.

    By position, a heatmap of the same edges.

    Args:
        result: of `analyses.edge_patching` or `analyses.edge_attribution`.
        top: how many edges.
        prompt: which pair; None is the only pair, or the mean over pairs.
    """
    if top < 1:
        raise ResultError(f"a figure of edges shows 1 or more; got top={top}.")
    done = json.loads(result.attrs["parameters"])
    number = chosen_prompt(result, prompt)
    ranked = "estimate" if "estimate" in result else "change"
    values = _shown(result, ranked, number)
    size = np.nan_to_num(np.abs(values), nan=-1.0).reshape(len(values), -1).max(1)
    best = np.argsort(-size, kind="stable")[:top][::-1]  # the largest on top
    names = [named(name) for name in result["edge"].to_numpy()[best]]
    how = f"{done['direction']}, {done['replacement'].replace('_', ' ')}"
    how = (
        f"{done['method'].replace('_', ' ').replace('eap', 'EAP').replace('ig', 'IG')}, {how}"
        if "method" in done
        else how
    )
    asked = done["metric"].replace("_", " ") + where_read(done, number)
    asked += (
        f", {over_pairs(result.drop_vars('left_out', errors='ignore'))}" if number is None else ""
    )  # a change has no gap
    fig = figure(
        f"Edges that move the answer · {model_name(result)}<br><sup>the largest {len(best)} of "
        f"{counted(result.sizes['edge'], 'edge')}; {how}; {asked}</sup>",
        820, max(SMALLEST, AROUND + ROW * len(best)),
    )  # fmt: skip
    units = named(result[ranked].attrs["units"])
    title = f"change of the {done['metric'].replace('_', ' ')}" + (f" ({units})" if units != "1" else "")
    if values.ndim == 2:
        _by_position(fig, values[best], names, result, number, title)
    else:
        for name, label, color, symbol in (
            ("estimate", "estimate", LINES[0], "circle"),
            (
                "change",
                "exact",
                INK if ranked == "estimate" else LINES[0],
                "diamond" if ranked == "estimate" else "circle",
            ),
        ):
            if name in result:
                _dots(fig, result, name, number, best, names, label, color, symbol)
        fig.add_vline(x=0, line={"color": FAINT, "width": 1, "dash": "dot"})
        fig.update_xaxes(title=title)
    fig.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4], showgrid=False)
    fig.update_layout(margin={"t": 90}, showlegend=ranked == "estimate")
    return fig


def _shown(result: xr.Dataset, name: str, number: int | None) -> np.ndarray:
    """[edge] or [edge, position]: of a pair, or the mean."""
    return (result[f"{name}_mean"] if number is None else result[name].isel(prompt=number)).to_numpy()


def _dots(
    fig: go.Figure,
    result: xr.Dataset,
    name: str,
    number: int | None,
    best: np.ndarray,
    names: list[str],
    label: str,
    color: str,
    symbol: str,
) -> None:
    values, error = _shown(result, name, number)[best], None
    shift = 0.0 if "estimate" not in result else 0.17 if name == "estimate" else -0.17
    if number is None and np.isfinite(bounds := result[f"{name}_interval"].to_numpy()[:, best]).any():
        away = np.nan_to_num(np.stack([values - bounds[0], bounds[1] - values]))
        error = {"array": away[1], "arrayminus": away[0], "color": FAINT, "thickness": 1.2, "width": 2}
    fig.add_scatter(
        x=values, y=[row + shift for row in range(len(values))], error_x=error, mode="markers", name=label,
        marker={"color": color, "size": 8, "symbol": symbol},
        customdata=names, hovertemplate="%{customdata}<br>" + label + " %{x:.3f}<extra></extra>",
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
