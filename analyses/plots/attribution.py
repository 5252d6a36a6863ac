"""Attribution patching: the estimates, and how they compare with what the sweep found."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.grid import by_head_and_position, centre_of, chosen_prompt, grid, over_pairs
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, where_read, which
from analyses.plots.patching import SITES
from analyses.plots.theme import DIVERGING, FAINT, LINES, TEMPLATE


@draws("attribution_patching")
def plot_attribution(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """Left the estimate of every cell, the checked ones ringed; right estimate against exact effect of the checked ones.

    Args:
        result: of `analyses.attribution_patching`.
        prompt: which pair; None is the only pair, or the mean over pairs.
    """
    done = json.loads(result.attrs["parameters"])
    number = chosen_prompt(result, prompt)
    every, exact = (grid(result, name, number, done["site"]) for name in ("estimate", "effect"))
    centre = centre_of(done)
    checked = int(np.isfinite(exact.z).sum())
    cells, shown = by_head_and_position(every, result.sizes["layer"], centre)
    exact = exact.chosen(cells.rows)
    limit = cells.reach(centre)
    fig = make_subplots(
        1, 2, column_widths=[0.6, 0.4], horizontal_spacing=0.2,
        subplot_titles=["estimate of every cell", "the cells checked (dotted: equal)"],
    )  # fmt: skip
    fig.add_trace(cells.heatmap("estimate", centre, limit, coloraxis="coloraxis"), 1, 1)
    fig.data[0].update(colorscale=None, zmid=None, zmin=None, zmax=None)
    rows, columns = np.nonzero(np.isfinite(exact.z))
    fig.add_scatter(
        x=columns, y=rows, mode="markers", marker={"symbol": "circle-open", "size": 11, "color": "black", "line": {"width": 1.4}},
        hoverinfo="skip", showlegend=False, name="checked", row=1, col=1,
    )  # fmt: skip
    estimate, effect = cells.z[rows, columns], exact.z[rows, columns]
    ends = (
        [float(min(effect.min(), estimate.min())), float(max(effect.max(), estimate.max()))]
        if len(rows)
        else [0.0, 1.0]
    )
    fig.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": FAINT, "dash": "dot"}, hoverinfo="skip", showlegend=False, name="equal", row=1, col=2
    )  # fmt: skip
    fig.add_scatter(
        x=effect, y=estimate, mode="markers", marker={"color": LINES[0], "size": 8}, showlegend=False, name="cells",
        customdata=[cells.names[r][c] for r, c in zip(rows.tolist(), columns.tolist(), strict=True)],
        hovertemplate="%{customdata}<br>estimate %{y:.3f}, exact %{x:.3f}<extra></extra>", row=1, col=2,
    )  # fmt: skip
    fig.update_xaxes(cells.x, tickangle=cells.slant, row=1, col=1)
    fig.update_yaxes(cells.y, row=1, col=1)
    fig.update_yaxes(autorange="reversed" if len(cells.z) > result.sizes["layer"] else True, row=1, col=1)
    fig.update_xaxes(title="exact effect", row=1, col=2)
    fig.update_yaxes(title="estimate", row=1, col=2)
    agreement = float(result["rank_correlation"])
    asked = done["metric"].replace("_", " ") + where_read(done, number)
    asked += (
        f", {over_pairs(result)}" if number is None else f"; {one}" if (one := which(result, number, "pair")) else ""
    )
    asked += f"; {shown}" if shown else ""
    said = f"{checked} cells checked" + (f", rank correlation {agreement:.2f}" if np.isfinite(agreement) else "")
    fig.update_layout(
        template=TEMPLATE,
        title=f"Attribution patching of {SITES[done['site']]} · {model_name(result)}<br><sup>{said}; {asked}</sup>",
        coloraxis={"colorscale": DIVERGING, "cmid": centre, "cmin": centre - limit, "cmax": centre + limit,
                   "colorbar": {"title": {"text": "0 corrupt, 1 clean", "side": "right"}, "x": 0.53, "thickness": 14}},
        width=1040,
        height=max(430, cells.height + 40),
        margin={"t": 100},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig
