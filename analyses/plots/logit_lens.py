"""The logit lens as a heatmap: the top token of every layer and position."""

import plotly.graph_objects as go
import xarray as xr

from analyses.plots.labels import axis, label, model_name, place
from analyses.plots.theme import SEQUENTIAL, figure

CELL, LONGEST = 58, 9
"""Width of a cell in pixels, and the characters that it holds; the whole token shows on hover."""


def plot_logit_lens(result: xr.Dataset, *, prompt: int = 0) -> go.Figure:
    """Layer by position; each cell names the most probable next token, coloured by its probability.

    Args:
        result: of `analyses.logit_lens`.
        prompt: which of its prompts.
    """
    one = result.isel(prompt=place(result.sizes, "prompt", prompt))
    one = one.isel(position=one["token_id"].to_numpy() >= 0)
    tokens, names = one["token"].to_numpy(), one["top_token"].to_numpy()
    probability = one["top_probability"].to_numpy()
    layers, steps = one["layer"].to_numpy(), [f"stream after {step}" for step in one["step"].to_numpy()]
    hover = [
        [
            f"{steps[i]}, position {j}<br>"
            + "<br>".join(f"{label(str(t))}  {p:.3f}" for t, p in zip(names[i, j], probability[i, j], strict=True))
            + f"<br>entropy {float(one['entropy'][i, j]):.2f} nats, KL to final {float(one['kl'][i, j]):.2f} nats"
            for j in range(len(tokens))
        ]
        for i in range(len(layers))
    ]
    fig = figure(
        f"Logit lens · {model_name(result)}",
        max(520, 150 + CELL * len(tokens)),
        150 + (34 if len(layers) < 10 else 26) * len(layers),
    )
    fig.add_heatmap(
        z=probability[..., 0],
        text=[[label(_short(str(name))) for name in row] for row in names[..., 0]],
        texttemplate="%{text}",
        textfont={"size": 11},
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        colorscale=SEQUENTIAL,
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": "probability", "side": "right"}},
    )
    fig.update_xaxes(title="token read so far", **axis(tokens))
    ticks = [f"{layer:.0f}" if layer == int(layer) else f"{int(layer)} + attention" for layer in layers[:-1]] + [
        "output"
    ]
    fig.update_yaxes(title="stream entering layer", tickvals=list(range(len(layers))), ticktext=ticks, showgrid=False)
    return fig


def _short(token: str) -> str:
    return token if len(token) <= LONGEST else f"{token[: LONGEST - 1]}…"
