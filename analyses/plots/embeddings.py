"""Token and position embeddings: neighbours, similarities, principal axes."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.kinds import draws
from analyses.plots.labels import axis, label, model_name, short
from analyses.plots.markup import as_text
from analyses.plots.theme import DIVERGING, FAINT, LINES, SEQUENTIAL, TEMPLATE
from interp.errors import ResultError

BAR = {
    "title": {"text": "cosine", "side": "top"},
    "orientation": "h",
    "len": 0.3,
    "thickness": 12,
    "x": 0.2,
    "y": -0.2,
    "yanchor": "top",
}

MOST = 4000
"""Tokens drawn of a vocabulary; of a larger one every n-th."""


@draws("embedding_structure")
def plot_embeddings(result: xr.Dataset) -> go.Figure:
    """The chosen tokens' neighbours, their similarities, and where they lie among all tokens on the first two principal axes.

    Args:
        result: of `analyses.embedding_structure`.
    """
    names = [label(str(token)) for token in result["candidate"].to_numpy()]
    fig = make_subplots(
        1, 3, column_widths=[0.4, 0.26, 0.34], horizontal_spacing=0.075,
        subplot_titles=["nearest tokens", "cosine", "principal axes of W_E"],
    )  # fmt: skip
    rows = {**axis(result["candidate"].to_numpy()), "autorange": "reversed"}
    fig.add_heatmap(
        z=result["near_cosine"].to_numpy(), coloraxis="coloraxis",
        text=[[label(short(str(token))) for token in row] for row in result["near_token"].to_numpy()], texttemplate="%{text}",
        textfont={"size": 10}, hovertemplate="%{text}<br>cosine %{z:.3f}<extra></extra>", xgap=1, ygap=1, row=1, col=1,
    )  # fmt: skip
    fig.add_heatmap(
        z=result["similarity"].to_numpy(), coloraxis="coloraxis", customdata=[[[a, b] for b in names] for a in names],
        hovertemplate="%{customdata[0]} and %{customdata[1]}<br>cosine %{z:.3f}<extra></extra>", xgap=1, ygap=1, row=1, col=2,
    )  # fmt: skip
    share = 100 * result["token_variance"].to_numpy()
    cloud, own = (result[f"{which}_coordinate"].to_numpy() for which in ("token", "candidate"))
    if cloud.shape[1] < 2:
        raise ResultError("plot_embeddings draws two axes; make the result with n_axes of at least 2.")
    step = -(-len(cloud) // MOST)
    fig.add_scatter(
        x=cloud[::step, 0], y=cloud[::step, 1], mode="markers", marker={"size": 3, "color": FAINT, "opacity": 0.35}, showlegend=False,
        text=[label(str(token)) for token in result["vocab_token"].to_numpy()[::step]], hovertemplate="%{text}<extra></extra>",
        row=1, col=3,
    )  # fmt: skip
    fig.add_scatter(
        x=own[:, 0], y=own[:, 1], mode="markers+text", text=names, textposition="top center", showlegend=False,
        marker={"size": 8, "color": LINES[1]}, hovertemplate="%{text}<extra></extra>", row=1, col=3,
    )  # fmt: skip
    for column in (1, 2):
        fig.update_yaxes(**rows, row=1, col=column)
    fig.update_xaxes(title="neighbour", tickvals=list(range(result.sizes["top"])), showgrid=False, row=1, col=1)
    fig.update_xaxes(**axis(result["candidate"].to_numpy()), tickangle=-60, row=1, col=2)
    fig.update_xaxes(title=f"axis 0 ({share[0]:.1f} % of the variance)", row=1, col=3)
    fig.update_yaxes(title=f"axis 1 ({share[1]:.1f} %)", row=1, col=3)
    fig.update_layout(
        template=TEMPLATE,
        title=f"Token embeddings · {model_name(result)}",
        coloraxis={"colorscale": DIVERGING, "cmid": 0, "cmin": -1, "cmax": 1, "colorbar": BAR},
        width=1040,
        height=max(420, 250 + 26 * len(names)),
        margin={"t": 76, "b": 110},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


@as_text
def plot_positions(result: xr.Dataset) -> go.Figure:
    """The position embedding: its coordinates on the principal axes, and the cosine of every two positions.

    Args:
        result: of `analyses.embedding_structure`.

    Raises:
        ResultError: the model has no position embedding.
    """
    if "position_coordinate" not in result:
        raise ResultError("plot_positions: this model has no position embedding.")
    fig = make_subplots(
        1, 2, column_widths=[0.55, 0.45], horizontal_spacing=0.12, subplot_titles=["principal axes of W_pos", "cosine of positions"]
    )  # fmt: skip
    share = 100 * result["position_variance"].to_numpy()
    coordinates = result["position_coordinate"].to_numpy()
    for number in range(min(coordinates.shape[1], len(LINES))):
        fig.add_scatter(
            x=result["position"].to_numpy(), y=coordinates[:, number], mode="lines", name=f"axis {number} ({share[number]:.1f} %)",
            line={"color": LINES[number], "width": 1.8}, hovertemplate="position %{x}<br>%{y:.3f}<extra></extra>", row=1, col=1,
        )  # fmt: skip
    similarity = result["position_similarity"].to_numpy()
    negative = bool((similarity < -0.05).any())
    step = max(1, len(similarity) // 256)
    fig.add_heatmap(
        z=np.round(similarity[::step, ::step], 3), x=result["position"][::step], y=result["position"][::step],
        colorscale=DIVERGING if negative else SEQUENTIAL, zmin=-1 if negative else 0, zmax=1,
        colorbar={"title": {"text": "cosine", "side": "right"}}, hovertemplate="%{y} and %{x}<br>cosine %{z:.3f}<extra></extra>",
        row=1, col=2,
    )  # fmt: skip
    fig.update_xaxes(title="position")
    fig.update_yaxes(title="coordinate", row=1, col=1)
    fig.update_yaxes(title="position", autorange="reversed", row=1, col=2)
    fig.update_layout(
        template=TEMPLATE,
        title=f"Position embedding · {model_name(result)}",
        width=980,
        height=440,
        margin={"t": 76, "b": 110},
        legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    fig.update_annotations(font={"size": 13})
    return fig
