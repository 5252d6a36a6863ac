"""Which edges of a circuit are found whatever the sample."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.estimators import EXACT, estimator_name
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, model_name, named
from analyses.plots.theme import FAINT, INK, LINES, TEMPLATE
from interp.errors import ResultError

ROW, BELOW, GAP, AROUND = 18, 130, 86, 190
"""Pixels of an edge, of the panel beneath, between the panels, and above and below both."""

ALWAYS, MOST, BINS = 0.95, 60, 40


@draws("circuit_stability")
def plot_stability(result: xr.Dataset, *, top: int | None = None) -> go.Figure:
    """The edges that are chosen most often when the pairs are drawn anew, and how far each draw's circuit overlaps with that of all pairs.

    Edges that are in the circuit from all pairs are filled. Of equal frequency, those that score more come first.

    Args:
        result: of `analyses.circuit_stability`.
        top: how many edges at most; None is those chosen from all pairs and a quarter as many more, at most 60.
    """
    if top is not None and top < 1:
        raise ResultError(f"a figure of edges shows 1 or more; got top={top}.")
    done = json.loads(result.attrs["parameters"])
    frequency, score = result["frequency"].to_numpy(), result["score"].to_numpy()
    whether = result["chosen"].to_numpy().astype(bool)
    ever = int((frequency > 0).sum())
    top = min(MOST, sum(whether) + -(-sum(whether) // 4)) if top is None else top
    order = np.lexsort((-np.nan_to_num(np.abs(score)), -frequency))[: min(top, ever)][::-1]  # the first on top
    names = [named(name) for name in result["edge"].to_numpy()[order]]
    rows = ROW * len(order)
    inside = rows + GAP + BELOW
    fig = make_subplots(2, 1, row_heights=[rows, BELOW], vertical_spacing=GAP / inside)
    for there, said in ((True, "chosen from all pairs"), (False, "only in resamples")):
        at = np.flatnonzero(whether[order] == there)
        fig.add_bar(
            x=frequency[order][at], y=at, orientation="h", name=said, showlegend=True, width=0.72,
            marker={"color": LINES[0] if there else "white", "line": {"color": LINES[0], "width": 1.2}},
            customdata=np.array([[names[row] for row in at], score[order][at]], dtype=object).T,
            hovertemplate="%{customdata[0]}<br>chosen in %{x:.1%}<br>mean score %{customdata[1]:.4g}<extra></extra>",
            row=1, col=1,
        )  # fmt: skip
    overlap = result["overlap"].to_numpy()
    highest = np.histogram(overlap, BINS, (0, 1))[0].max()
    fig.add_histogram(
        x=overlap, xbins={"start": 0, "end": 1.0, "size": 1 / BINS}, marker={"color": FAINT}, showlegend=False, name="overlap",
        hovertemplate="overlap %{x}: %{y} resamples<extra></extra>", row=2, col=1,
    )  # fmt: skip
    mean = float(np.nanmean(overlap))
    fig.add_vline(
        x=mean, line={"color": INK, "width": 1.5}, row=2, col=1, annotation_text=f"mean {mean:.2f}",
        annotation_position="top left" if mean > 0.5 else "top right", annotation_font={"size": 12},
    )  # fmt: skip
    fig.update_xaxes(title="share of resamples in which the edge is chosen", range=[0, 1.03], row=1, col=1)
    fig.update_xaxes(title="overlap with the circuit of all pairs (Jaccard)", range=[0, 1.03], row=2, col=1)
    fig.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4], showgrid=False, row=1, col=1
    )
    fig.update_yaxes(
        title="resamples", range=[0, 1.3 * highest], row=2, col=1
    )  # above the bars there is room for the mean
    method = done["method"] or done["of"].get("method", EXACT)
    method = method[0] if isinstance(method, list) else method
    by = "exact effects" if method == EXACT else estimator_name(str(method))
    by += " by size" if done["absolute"] else " with their sign"
    always = int((frequency >= ALWAYS).sum())
    shown = f"; {len(order)} shown" if len(order) < ever else ""
    fig.update_layout(
        template=TEMPLATE,
        title=f"Edges that are found again · {model_name(result)}"
        f"<br><sup>the first {done['count']}, {by}; of {counted(done['draws'], 'resample')}: "
        f"{ever} edges in some, {always} in 95 %{shown}</sup>",
        width=620,
        height=inside + AROUND,
        margin={"t": 112, "b": 62},
        legend={"y": 1 + 8 / inside, "yanchor": "bottom", "x": 0, "xanchor": "left", "traceorder": "normal"},
        barmode="overlay",
    )
    return fig
