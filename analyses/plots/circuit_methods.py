"""Approximations of edges' effects beside the exact ones."""

import json
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float
from plotly.subplots import make_subplots

from analyses.plots.bands import band
from analyses.plots.estimators import EXACT, estimator_name, looks
from analyses.plots.faithfulness_curve import chosen, curves
from analyses.plots.grid import over_pairs
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, named, where_read
from analyses.plots.theme import FAINT, LINES, TEMPLATE, figure
from interp.errors import ResultError, nearest

WHO = "plot_circuit_methods"
WHAT = ("agreement", "overlap", "curves")

COLUMNS, PANEL, ROW_GAP = 3, 250, 96
MOST_POINTS = 2000
"""In all panels together: the largest edges, and as many drawn from the rest."""

HEAVY = 20.0
"""How many times the median the largest effect is at least where axes are symmetrically logarithmic: small edges would not be seen."""


@draws("circuit_methods")
def plot_circuit_methods(
    result: xr.Dataset, *, what: str = "agreement", estimators: Sequence[str] | None = None
) -> go.Figure:
    """How far the approximations of edges' effects agree with the exact ones.

    Args:
        result: of `analyses.compare_methods`.
        what: `agreement`, a panel for each method, each edge a point, exact against estimate, with Spearman's correlation and the share of
            edges with the right sign; `overlap`, the share of the first edges that are among the first exactly, against how many; `curves`,
            how faithful the circuits are, see `plot_faithfulness_curve`.
        estimators: which; None is all.

    Raises:
        ResultError: another `what`, more estimators than can be told apart, or one that the result does not have.
    """
    if what not in WHAT:
        raise ResultError(f"{WHO}: what={what!r}. {nearest(str(what), WHAT)}")
    if what == "curves":
        return curves(result, estimators, WHO)
    names = [name for name in chosen(result, estimators, WHO) if name != EXACT]
    if not names:
        raise ResultError(f"{WHO}: the exact effects are compared with nothing; name a method.")
    return _agreement(result, names) if what == "agreement" else _overlap(result, names)


def _agreement(result: xr.Dataset, names: list[str]) -> go.Figure:
    exact, scores = result["score"].sel(estimator=EXACT).to_numpy(), result["score"].sel(estimator=names).to_numpy()
    edges = result["edge"].to_numpy()
    both = np.concatenate([exact, scores.ravel()])
    scale = _scale(both)
    shown, largest = _shown(exact, scores)
    across = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / across)
    inside = rows * (PANEL + ROW_GAP) - ROW_GAP
    fig = make_subplots(
        rows, across, subplot_titles=[_panel_title(result, name) for name in names], horizontal_spacing=0.07 if across > 1 else 0,
        vertical_spacing=ROW_GAP / inside if rows > 1 else 0,
    )  # fmt: skip
    reach = 1.06 * float(np.abs(_moved(both[np.isfinite(both)], scale)).max(initial=1e-12))
    axis = {"range": [-reach, reach], **_ticks(scale, both)}
    for number in range(len(names)):
        at = {"row": number // across + 1, "col": number % across + 1}
        fig.add_scatter(
            x=[-reach, reach], y=[-reach, reach], mode="lines", line={"color": FAINT, "width": 1, "dash": "dot"}, hoverinfo="skip",
            showlegend=False, name="equal", **at,
        )  # fmt: skip
        same = np.sign(scores[number]) == np.sign(exact)
        for right, said, color, symbol in (
            (True, "same sign", LINES[0], "circle"),
            (False, "other sign, or 0", LINES[1], "x"),
        ):
            here = shown[same[shown] == right]
            fig.add_scatter(
                x=_moved(exact[here], scale), y=_moved(scores[number][here], scale), mode="markers", name=said, legendgroup=said,
                showlegend=False, marker={"color": color, "size": 5, "symbol": symbol, "opacity": 0.6},
                customdata=np.array([[named(edges[one]) for one in here], exact[here], scores[number][here]], dtype=object).T,
                hovertemplate="%{customdata[0]}<br>exact %{customdata[1]:.4g}<br>estimate %{customdata[2]:.4g}<extra></extra>",
                **at,
            )  # fmt: skip
        fig.update_xaxes(title="exact" if number + across >= len(names) else None, **axis, **at)
        fig.update_yaxes(title="estimate" if at["col"] == 1 else None, **axis, **at)
    for said, color, symbol in (("same sign", LINES[0], "circle"), ("other sign, or 0", LINES[1], "x")):
        fig.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=said,
            legendgroup=said,
            marker={"color": color, "size": 8, "symbol": symbol},
        )
    units = named(result["score"].attrs["units"])
    how = f" ({units})" if units != "1" else ""
    drawn = (
        "all edges"
        if len(shown) == len(edges)
        else f"{largest:,} largest of {len(edges):,} edges, {len(shown) - largest:,} at random"
    )
    fig.update_layout(
        template=TEMPLATE,
        title=f"Estimates against exact effects{how} · {model_name(result)}<br><sup>{_asked(result)}; {drawn}"
        f"{'' if scale is None else '; logarithmic away from 0'}</sup>",
        width=110 + 280 * across + (60 if across == 1 else 0),
        height=inside + 220,
        margin={"t": 118, "b": 102},
        legend={"y": -62 / inside, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _overlap(result: xr.Dataset, names: list[str]) -> go.Figure:
    counts, every = result["count"].to_numpy(), result.sizes["edge"]
    has = np.isfinite(result["overlap_interval"].sel(estimator=names)).any()
    fig = figure(
        f"Which edges come first · {model_name(result)}<br><sup>{_asked(result)}"
        f"{'; bands: 95 % interval' if has else ''}; dotted: by chance</sup>",
        620, 430 + 22 * math.ceil(len(names) / 2),
    )  # fmt: skip
    for name, look in looks(names, WHO).items():
        one = result.sel(estimator=name)
        bounds = one["overlap_interval"].transpose("bound", "count").to_numpy()
        if np.isfinite(bounds).all():
            fig.add_trace(band(counts, bounds, look.color).update(opacity=0.11))
        said = [f" [{low:.2f}, {high:.2f}]" if np.isfinite([low, high]).all() else "" for low, high in bounds.T]
        fig.add_scatter(
            x=counts, y=one["overlap"].to_numpy(), mode="lines+markers", name=estimator_name(name), customdata=said,
            line={"color": look.color, "width": 2}, marker={"symbol": look.symbol, "size": 8},
            hovertemplate=f"{estimator_name(name)}<br>" + "first %{x}: %{y:.3f}%{customdata}<extra></extra>",
        )  # fmt: skip
    fig.add_scatter(
        x=counts, y=counts / every, mode="lines", line={"color": FAINT, "width": 1.2, "dash": "dot"}, name="chance", showlegend=False,
        hovertemplate="by chance %{y:.3f}<extra></extra>",
    )  # fmt: skip
    fig.update_xaxes(
        title="how many edges that come first", type="log", tickvals=counts, ticktext=[f"{one:,}" for one in counts]
    )
    fig.update_yaxes(title="share that is first exactly too", range=[-0.02, 1.03])
    fig.update_layout(margin={"t": 90, "b": 120}, legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"})
    return fig


def _asked(result: xr.Dataset) -> str:
    done = json.loads(result.attrs["parameters"])
    return f"{done['metric'].replace('_', ' ')}{where_read(done)}, {over_pairs(result)}"


def _panel_title(result: xr.Dataset, name: str) -> str:
    one = result.sel(estimator=name)
    low, high = one["rank_correlation_interval"].to_numpy()
    interval = f" [{low:.2f}, {high:.2f}]" if np.isfinite([low, high]).all() else ""
    rank = float(one["rank_correlation"])
    said = f"rank correlation {rank:.2f}{interval}" if np.isfinite(rank) else "no rank correlation"
    return f"{estimator_name(name)}<br><sup>{said}, same sign {float(one['same_sign']):.0%}</sup>"


def _shown(exact: Float[np.ndarray, " edge"], scores: Float[np.ndarray, "method edge"]) -> tuple[np.ndarray, int]:
    """Which edges are drawn in every panel, and how many of them as the largest, by the exact effect or any estimate."""
    size = np.nan_to_num(np.abs(np.concatenate([exact[None], scores])), nan=0.0).max(0)
    most = max(2, MOST_POINTS // len(scores))
    order = np.argsort(-size, kind="stable")
    if len(order) <= most:
        return order, len(order)
    largest = most // 2
    rest = np.random.default_rng(0).choice(order[largest:], most - largest, replace=False)
    return np.concatenate([order[:largest], rest]), largest


def _scale(values: np.ndarray) -> float | None:
    """Below which effects axes are linear and above logarithmic; None for axes that are linear."""
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    if len(size) == 0 or size.max() < HEAVY * np.median(size):
        return None
    return float(np.quantile(size, 0.25))


def _moved(values: np.ndarray, scale: float | None) -> np.ndarray:
    """Where values stand on an axis."""
    return values if scale is None else np.arcsinh(values / (2 * scale))


def _ticks(scale: float | None, values: np.ndarray) -> dict[str, list[float] | list[str]]:
    if scale is None:
        return {}
    low, high = math.ceil(math.log10(4 * scale)), math.floor(math.log10(np.nanmax(np.abs(values))))
    step = max(1, math.ceil((high - low + 1) / 3))
    powers = [10.0**power for power in range(high, low - 1, -step)]
    ticks = sorted([0.0, *powers, *(-one for one in powers)])
    return {
        "tickvals": _moved(np.array(ticks), scale).tolist(),
        "ticktext": [f"{one:g}".replace("-", "−") for one in ticks],
    }
