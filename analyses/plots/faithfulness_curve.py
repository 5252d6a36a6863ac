"""How faithful circuits of every size are."""

import json
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.circuits.circuit import graph
from analyses.circuits.scores import shape_of_result
from analyses.plots.bands import band
from analyses.plots.estimators import estimator_name, looks
from analyses.plots.grid import over_pairs
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name, where_read
from analyses.plots.theme import FAINT, TEMPLATE
from interp.errors import ResultError

PANELS = {"signed": "ranked by signed score", "absolute": "ranked by size"}
TICKS = 6
"""Labels that an axis has room for."""


@draws("faithfulness_curve")
def plot_faithfulness_curve(result: xr.Dataset, *, estimators: Sequence[str] | None = None) -> go.Figure:
    """Faithfulness against the share of edges, a curve for each estimator with its 95 % band, edges ranked by signed score and by size.

    Grey are random rankings, all that was drawn and their mean. The legend says CPR, the area under the curve on the left, and CMD, the
    area between the curve on the right and 1.

    Args:
        result: of `analyses.faithfulness_curve`.
        estimators: which; None is all.

    Raises:
        ResultError: more than can be told apart, or one that the result does not have.
    """
    return curves(result, estimators, "plot_faithfulness_curve")


def curves(result: xr.Dataset, estimators: Sequence[str] | None, who: str) -> go.Figure:
    """The figure, from any result that has what `analyses.faithfulness_curve` gives."""
    names = chosen(result, estimators, who)
    done, shares = json.loads(result.attrs["parameters"]), result["share"].to_numpy()
    every = len(graph(shape_of_result(result)))
    x = np.where(shares > 0, shares, shares[shares > 0].min() / 3)  # none has no place on a logarithmic axis
    fig = make_subplots(1, 2, subplot_titles=list(PANELS.values()), horizontal_spacing=0.09, shared_yaxes=True)
    at_random = result["random_faithfulness"].to_numpy()
    for column, ranking in enumerate(PANELS, start=1):
        if len(at_random):
            _draw_random(fig, result, at_random, x, column)
        for name, look in looks(names, who).items():
            one = result.sel(estimator=name, ranking=ranking)
            bounds = one["faithfulness_interval"].transpose("bound", "share").to_numpy()
            if np.isfinite(bounds).all():
                fig.add_trace(band(x, bounds, look.color).update(opacity=0.11), row=1, col=column)
            said = [_bounds(bounds[:, at]) for at in range(len(x))]
            fig.add_scatter(
                x=x, y=one["faithfulness"].to_numpy(), mode="lines+markers", name=_legend(result, name), legendgroup=name,
                showlegend=column == 1, line={"color": look.color, "width": 2}, marker={"symbol": look.symbol, "size": 7},
                customdata=np.array([shares, one["n_edges"].to_numpy(), said], dtype=object).T,
                hovertemplate=f"{estimator_name(name)}<br>" + "%{y:.3f}%{customdata[2]}<br>share %{customdata[0]:.4g}, "
                "%{customdata[1]} edges after pruning<extra></extra>",
                row=1, col=column,
            )  # fmt: skip
    fig.add_hline(y=1, line={"color": FAINT, "width": 1, "dash": "dot"})
    ticks = _ticks(x)
    fig.update_xaxes(
        type="log", title="share of edges, and how many", tickvals=x[ticks],
        ticktext=[f"{shares[at]:.3g}<br>{int(shares[at] * every):,}" for at in ticks], minor={"ticks": ""},
    )  # fmt: skip
    fig.update_yaxes(title="faithfulness", row=1, col=1)
    beside = f"; dashed: {counted(len(at_random), 'random ranking')}" if len(at_random) else ""
    has = np.isfinite(result["faithfulness_interval"]).any()
    rows = len(names) + (len(at_random) > 0)
    fig.update_layout(
        template=TEMPLATE,
        title=f"How faithful circuits of every size are · {model_name(result)}"
        f"<br><sup>{done['metric'].replace('_', ' ')}{where_read(done)}, {over_pairs(result)}"
        f"{'; bands: 95 % interval' if has else ''}{beside}</sup>",
        width=900,
        height=480 + 20 * rows,
        margin={"t": 96, "b": 106 + 20 * rows},
        legend={"y": -0.3, "yanchor": "top", "x": 0, "xanchor": "left", "orientation": "v"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def chosen(result: xr.Dataset, estimators: Sequence[str] | None, who: str) -> list[str]:
    """Of a result's estimators. Raises ResultError for one that it does not have."""
    known = [str(name) for name in result["estimator"].to_numpy()]
    names = known if estimators is None else [estimators] if isinstance(estimators, str) else list(estimators)
    if not names or (wrong := [name for name in names if name not in known]):
        raise ResultError(f"{who}: estimators {wrong if names else names}; there are {', '.join(known)}.")
    return names


def _draw_random(fig: go.Figure, result: xr.Dataset, drawn: np.ndarray, x: np.ndarray, column: int) -> None:
    fig.add_trace(band(x, np.stack([drawn.min(0), drawn.max(0)]), FAINT).update(opacity=0.25), row=1, col=column)
    cpr, cmd = (float(result[f"random_{name}"].mean()) for name in ("cpr", "cmd"))
    fig.add_scatter(
        x=x, y=drawn.mean(0), mode="lines", name=f"random: CPR {cpr:.2f}, CMD {cmd:.2f}", legendgroup="random", showlegend=column == 1,
        legendrank=2000, line={"color": FAINT, "width": 1.5, "dash": "dash"}, hovertemplate="random, mean %{y:.3f}<extra></extra>",
        row=1, col=column,
    )  # fmt: skip


def _legend(result: xr.Dataset, name: str) -> str:
    one = result.sel(estimator=name)
    areas = [
        f"{area.upper()} {float(one[area]):.2f}{_bounds(one[f'{area}_interval'].to_numpy())}" for area in ("cpr", "cmd")
    ]
    return f"{estimator_name(name)}: {', '.join(areas)}"


def _bounds(bounds: np.ndarray) -> str:
    return f" [{bounds[0]:.2f}, {bounds[1]:.2f}]" if np.isfinite(bounds).all() else ""


def _ticks(x: np.ndarray) -> list[int]:
    """Which shares are labelled: the last, and downward those with room between."""
    places = np.log10(x)
    room = (places[-1] - places[0]) / TICKS
    found = [len(x) - 1]
    for at in reversed(range(len(x) - 1)):
        if places[found[-1]] - places[at] >= room:
            found.append(at)
    return found[::-1]
