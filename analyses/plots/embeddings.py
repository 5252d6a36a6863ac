"""Token and position embeddings: neighbours, similarities, principal axes."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float
from plotly.subplots import make_subplots

from analyses.plots.kinds import draws
from analyses.plots.labels import LONGEST_TICK, axis, label, model_name, short
from analyses.plots.markup import as_text
from analyses.plots.theme import DIVERGING, FAINT, INK, LINES, PALE_DIVERGING, SEQUENTIAL, TEMPLATE, look
from interp.errors import ResultError

GAP, BELOW, SCATTER = 110, 300, 420
"""Pixels between the rows of panels, of the lower row, and across its right panel."""

MOST = 4000
"""Tokens drawn of a vocabulary; of a larger one every n-th."""


@draws("embedding_structure")
def plot_embeddings(result: xr.Dataset) -> go.Figure:
    """The chosen tokens' neighbours, their similarities, and where they lie among all tokens on the first two principal axes.

    Args:
        result: of `analyses.embedding_structure`.
    """
    names = [label(short(str(token), LONGEST_TICK)) for token in result["candidate"].to_numpy()]
    own_rows = 26 * len(names)
    fig = make_subplots(
        2, 2, specs=[[{"colspan": 2}, None], [{}, {}]], column_widths=[0.42, 0.58], horizontal_spacing=0.12,
        row_heights=[own_rows, BELOW], vertical_spacing=GAP / (own_rows + BELOW + GAP),
        subplot_titles=["nearest tokens", "cosine", "principal axes of W_E"],
    )  # fmt: skip
    rows = {**axis(result["candidate"].to_numpy()), "autorange": "reversed"}
    fig.add_heatmap(
        z=result["near_cosine"].to_numpy(), coloraxis="coloraxis",
        text=[[label(short(str(token))) for token in row] for row in result["near_token"].to_numpy()], texttemplate="%{text}",
        customdata=[[label(str(token)) for token in row] for row in result["near_token"].to_numpy()],
        textfont={"size": 11, "color": INK}, hovertemplate="%{customdata}<br>cosine %{z:.3f}<extra></extra>", xgap=1, ygap=1, row=1, col=1,
    )  # fmt: skip
    fig.add_heatmap(
        z=result["similarity"].to_numpy(), coloraxis="coloraxis", customdata=[[[a, b] for b in names] for a in names],
        hovertemplate="%{customdata[0]} and %{customdata[1]}<br>cosine %{z:.3f}<extra></extra>", xgap=1, ygap=1, row=2, col=1,
    )  # fmt: skip
    share = 100 * result["token_variance"].to_numpy()
    cloud, own = (result[f"{which}_coordinate"].to_numpy() for which in ("token", "candidate"))
    if cloud.shape[1] < 2:
        raise ResultError("plot_embeddings draws two axes; make the result with n_axes of at least 2.")
    step = -(-len(cloud) // MOST)
    fig.add_scatter(
        x=cloud[::step, 0], y=cloud[::step, 1], mode="markers", marker={"size": 3, "color": FAINT, "opacity": 0.35}, showlegend=False,
        text=[label(str(token)) for token in result["vocab_token"].to_numpy()[::step]], hovertemplate="%{text}<extra></extra>",
        row=2, col=2,
    )  # fmt: skip
    fig.add_scatter(
        x=own[:, 0], y=own[:, 1], mode="markers+text", text=names, textposition=_sides(own[:, :2], cloud[:, :2], names), showlegend=False,
        textfont={"size": 12}, marker={"size": 8, "color": LINES[1]}, hovertemplate="%{text}<extra></extra>", row=2, col=2,
    )  # fmt: skip
    near = result.sizes["top"]
    fig.update_yaxes(**rows, row=1, col=1)
    fig.update_yaxes(**rows, row=2, col=1)
    fig.update_xaxes(
        title="rank (1 is the nearest)",
        tickvals=list(range(near)),
        ticktext=[str(at + 1) for at in range(near)],
        showgrid=False,
        row=1,
        col=1,
    )
    fig.update_xaxes(**axis(result["candidate"].to_numpy()), tickangle=-60, row=2, col=1)
    fig.update_xaxes(title=f"axis 0 ({share[0]:.1f} % of the variance)", row=2, col=2)
    fig.update_yaxes(title=f"axis 1 ({share[1]:.1f} %)", row=2, col=2)
    fig.update_layout(
        template=TEMPLATE,
        title=f"Token embeddings · {model_name(result)}",
        coloraxis={"colorscale": PALE_DIVERGING, "cmid": 0, "cmin": -1, "cmax": 1,
                   "colorbar": {"title": {"text": "cosine", "side": "right"}}},
        width=1000,
        height=own_rows + BELOW + GAP + 190,
        margin={"t": 84, "b": 90},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _sides(
    own: Float[np.ndarray, "candidate two"], cloud: Float[np.ndarray, "token two"], names: Sequence[str]
) -> list[str]:
    """Where each point's name stands so that names lie upon one another as little as can be: one by one, on the best side."""
    low = np.minimum(cloud.min(0), own.min(0))
    at = (own - low) / np.maximum(np.maximum(cloud.max(0), own.max(0)) - low, 1e-12) * [SCATTER, BELOW]  # pixels
    placed: list[tuple[float, float, float]] = [(x, y, 8.0) for x, y in at]
    sides = []
    for (x, y), name in zip(at, names, strict=True):
        width = 7.0 * len(name)
        across = width / 2 + 6
        options = {
            "top center": (x, y + 12, width), "bottom center": (x, y - 12, width),
            "middle right": (x + across, y, width), "middle left": (x - across, y, width),
        }  # fmt: skip
        side = min(options, key=lambda one: sum(_over(options[one], other) for other in placed))
        placed.append(options[side])
        sides.append(side)
    return sides


def _over(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """By how many pixels two names, each with its middle and width, overlap."""
    across = (one[2] + other[2]) / 2 - abs(one[0] - other[0])
    up = 13 - abs(one[1] - other[1])
    return max(0.0, across) * max(0.0, up)


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
    for number in range(coordinates.shape[1]):
        fig.add_scatter(
            x=result["position"].to_numpy(), y=coordinates[:, number], mode="lines", name=f"axis {number} ({share[number]:.1f} %)",
            line=look(number)[0] | {"width": 1.8}, hovertemplate="position %{x}<br>%{y:.3f}<extra></extra>", row=1, col=1,
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
