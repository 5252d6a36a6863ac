"""One grid patched by several methods, beside each other."""

import json
import math

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.grid import by_head_and_position, chosen_prompt, grid, over_pairs
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, where_read, which
from analyses.plots.patching import SITES
from analyses.plots.theme import DIVERGING, INK, PALE_DIVERGING, TALLEST, TEMPLATE

COLUMNS = 3
GAP, TOKENS_GAP = 92, 140
"""Pixels between rows of panels, for their axis labels."""


@draws("patching_methodology")
def plot_methodology(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """A heatmap for each method, one colour scale for all, and beneath them the rank correlation of every two.

    Args:
        result: of `analyses.compare_patching`.
        prompt: which pair; None is the only pair, or the mean over pairs.
    """
    done = json.loads(result.attrs["parameters"])
    number = chosen_prompt(result, prompt)
    methods = [str(method) for method in result["variant"].to_numpy()]
    cells = [grid(result.isel(variant=at), "moved", number, done["site"]) for at in range(len(methods))]
    cells[0], shown = by_head_and_position(cells[0], result.sizes["layer"], 0.0)
    cells[1:] = [one.chosen(cells[0].rows) for one in cells[1:]]
    limit = max(one.reach() for one in cells)
    rows = math.ceil(len(methods) / COLUMNS)
    panel = min(60 + cells[0].height - 220, TALLEST // rows // 2)
    below, gap = 70 + 30 * len(methods), TOKENS_GAP if cells[0].named_columns else GAP
    inside = rows * (panel + gap) + below
    fig = make_subplots(
        rows + 1,
        COLUMNS,
        specs=[[{}] * COLUMNS] * rows + [[{"colspan": COLUMNS}, *[None] * (COLUMNS - 1)]],
        subplot_titles=[
            *map(_title, methods),
            *[""] * (rows * COLUMNS - len(methods)),
            "rank correlation over cells (Spearman)",
        ],
        row_heights=[panel] * rows + [below],
        vertical_spacing=gap / inside,
        horizontal_spacing=0.07,
    )
    for at, one in enumerate(cells):
        row, column = at // COLUMNS + 1, at % COLUMNS + 1
        fig.add_trace(one.heatmap("moved", 0.0, limit, coloraxis="coloraxis"), row, column)
        tokens = {"title": None, "tickangle": -60} if one.named_columns else {}  # tokens say themselves what they are
        fig.update_xaxes(one.x | tokens, row=row, col=column)
        fig.update_yaxes(one.y if column == 1 else {**one.y, "title": None}, row=row, col=column)
        fig.update_yaxes(autorange="reversed" if len(one.z) > result.sizes["layer"] else True, row=row, col=column)
    for trace in fig.data:
        trace.update(colorscale=None, zmid=None, zmin=None, zmax=None)
    names = [method.replace("_", " ") for method in methods]
    correlation = result["rank_correlation"].to_numpy()
    fig.add_heatmap(
        z=correlation,
        x=[str(at + 1) for at in range(len(names))],
        y=[f"{name}  {at + 1}" for at, name in enumerate(names)],
        text=np.where(np.isfinite(correlation), np.char.mod("%.2f", correlation), "none"),
        texttemplate="%{text}",
        textfont={"color": INK},
        hovertemplate="%{y} against %{x}: %{z:.3f}<extra></extra>",
        colorscale=PALE_DIVERGING,
        zmid=0,
        zmin=-1,
        zmax=1,
        showscale=False,
        xgap=1,
        ygap=1,
        row=rows + 1,
        col=1,
    )
    fig.update_xaxes(type="category", showgrid=False, row=rows + 1, col=1)
    fig.update_yaxes(type="category", autorange="reversed", showgrid=False, row=rows + 1, col=1)
    bar = {
        "title": {"text": "share moved", "side": "right"},
        "y": 1,
        "yanchor": "top",
        "len": (rows * (panel + gap) - gap) / inside,
    }
    over = (
        over_pairs(result, result["left_out"].any("variant") if "left_out" in result else None)
        if number is None
        else which(result, number, "pair") or "one pair"
    )
    over += f"; {shown} by the first method" if shown else ""
    fig.update_layout(
        template=TEMPLATE,
        title=f"Patching {SITES[done['site']]} by {len(methods)} methods · {model_name(result)}"
        f"<br><sup>{over}{where_read(done, number)}; 0 does nothing, 1 moves all the way to the other run</sup>",
        coloraxis={"colorscale": DIVERGING, "cmid": 0, "cmin": -limit, "cmax": limit, "colorbar": bar},
        width=1040,
        height=160 + inside,
        margin={"t": 96},
    )  # fmt: skip
    fig.update_annotations(font={"size": 12})
    return fig


def _title(method: str) -> str:
    return method.replace("_", " ")
