"""The cascade as one picture: a disturbance as light that spreads through layers and positions, then on through the text."""

from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Bool
from plotly.subplots import make_subplots

from analyses.plots.kinds import draws
from analyses.plots.labels import LONGEST_TICK, label, model_name, short, subtitled
from analyses.plots.theme import INK, SEQUENTIAL, TEMPLATE

UNRELATED, BRIGHTEST = 2**0.5, 1.5
PANEL, COLUMN = 270, 26
"""Pixels: of a panel's height, and of a token's width."""

STEP = 140
"""Milliseconds of a frame."""

SAID = {"trained": "as trained", "random": "before any training"}


@draws("cascade_wavefront")
def plot_wavefront(result: xr.Dataset, *, animated: bool = False) -> go.Figure:
    """How far the streams of a prompt and of the disturbed one are apart: dark where nothing has come, bright where the two have nothing
    to do with each other any more. Upward the layers; to the right the tokens, first of the prompt, then those that the model goes
    on to write, after each of the two. Bold where the two texts have different tokens.

    Args:
        result: of `analyses.cascade.wavefront`.
        animated: with a button that lets the light spread, layer by layer through the prompt and token by token through the text.
    """
    rows, layers = [str(one) for one in result["weights"].to_numpy()], result["layer"].to_numpy()
    length, start = result.sizes["position"], int((result["generated"].to_numpy() == 0).sum())
    distance = result["distance"].to_numpy()
    fig = make_subplots(
        len(rows), 1, vertical_spacing=0.44 / len(rows), subplot_titles=[SAID.get(row, label(row)) for row in rows]
    )
    for row, name in enumerate(rows):
        one = result.sel(weights=name)
        ticks = _ticks(one)
        fig.add_heatmap(
            z=distance[row], y=layers, colorscale=SEQUENTIAL, zmin=0, zmax=BRIGHTEST, hoverongaps=False, showscale=row == 0,
            customdata=np.broadcast_to(np.array(ticks), (len(layers), length)),
            hovertemplate="%{customdata}<br>layer %{y}, position %{x}<br>distance %{z:.3f}<extra></extra>",
            colorbar={"title": {"text": "distance of<br>the streams", "side": "top"}, "tickvals": [0, 0.5, 1, UNRELATED],
                      "ticktext": ["0: alike", "0.5", "1", "√2: unrelated"], "thickness": 14, "len": 1.0, "y": 0.5},
            row=row + 1, col=1,
        )  # fmt: skip
        fig.update_xaxes(
            tickmode="array", tickvals=list(range(length)), ticktext=ticks, tickangle=-60, showgrid=False, row=row + 1, col=1,
        )  # fmt: skip
        fig.update_yaxes(
            title="stream entering layer", dtick=max(1, len(layers) // 7), showgrid=False, row=row + 1, col=1
        )
        fig.add_vline(x=start - 0.5, line={"color": "white", "width": 3}, row=row + 1, col=1)
    fig.update_annotations(font={"size": 13}, x=0, xanchor="left")
    parted = (result["token_id"] != result["other_token_id"])[:, start:].sum("position").to_numpy()
    changed = ", ".join(f"{count} {SAID.get(row, row)}" for row, count in zip(rows, parted, strict=True))
    fig.update_layout(
        template=TEMPLATE,
        title=subtitled(
            f"One disturbance, inside and outside · {model_name(result)}",
            "left of the line the prompt, right of it what the model writes",
            f"of {length - start} tokens came out otherwise {changed}",
        ),
        width=min(1100, max(640, 190 + COLUMN * length)),
        height=120 + (PANEL + 90) * len(rows),
        margin={"t": 92, "b": 110},
    )
    if animated:
        _animate(fig, distance, start)
    return fig


def _ticks(one: xr.Dataset) -> list[str]:
    """The tokens of both texts, one where they are the same."""
    alike = one["token_id"].to_numpy() == one["other_token_id"].to_numpy()
    pairs = zip(one["token"].to_numpy(), one["other_token"].to_numpy(), alike, strict=True)
    return [
        label(short(str(a), LONGEST_TICK)) if same else f"<b>{label(short(str(a)))} / {label(short(str(b)))}</b>"
        for a, b, same in pairs
    ]


def reveals(layers: int, length: int, start: int) -> Iterator[Bool[np.ndarray, "layer position"]]:
    """What is lit, step by step: the prompt layer by layer, then each further token at all layers."""
    lit = np.zeros((layers, length), dtype=bool)
    for layer in range(layers):
        lit[layer, :start] = True
        yield lit.copy()
    for position in range(start, length):
        lit[:, position] = True
        yield lit.copy()


def _animate(fig: go.Figure, distance: np.ndarray, start: int) -> None:
    """Frames, a button that plays them and one that stops."""
    _, layers, length = distance.shape
    fig.frames = [
        go.Frame(
            name=str(number), traces=list(range(len(distance))),
            data=[{"type": "heatmap", "z": np.where(lit, one, 0.0)} for one in distance],
        )
        for number, lit in enumerate(reveals(layers, length, start))
    ]  # fmt: skip
    play = {"frame": {"duration": STEP, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": False}
    stop = {"frame": {"duration": 0}, "mode": "immediate"}
    fig.update_layout(
        updatemenus=[
            {
                "type": "buttons", "direction": "left", "x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom", "showactive": False,
                "font": {"color": INK},
                "buttons": [
                    {"label": "Let it spread", "method": "animate", "args": [None, play]},
                    {"label": "Stop", "method": "animate", "args": [[None], stop]},
                ],
            }
        ]
    )  # fmt: skip
