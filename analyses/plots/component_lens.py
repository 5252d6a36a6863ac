"""What each part of the model writes for and against, at one position."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.grid import reach_of
from analyses.plots.kinds import draws
from analyses.plots.labels import label, model_name, place, short, subtitled, which
from analyses.plots.theme import INK, PALE_DIVERGING, WIDEST, figure

MOST = 50
"""Parts beyond which only those are shown that write most."""


@draws("component_lens")
def plot_component_lens(result: xr.Dataset, *, prompt: int = 0, position: int = -1) -> go.Figure:
    """A row for each part, bottom up; to the left the tokens that it writes against most, to the right those that it writes for.

    Args:
        result: of `analyses.component_lens`.
        prompt, position: which; a negative position counts from the prompt's end.

    Raises:
        ResultError: a prompt or position that is not there.
    """
    one = result.isel(prompt=place(result.sizes, "prompt", prompt))
    one = one.isel(position=one["token_id"].to_numpy() >= 0)
    at = place(one.sizes, "position", position % one.sizes["position"] if position < 0 else position)
    one = one.isel(position=at)
    z = np.concatenate([one["bottom_logit"].to_numpy(), one["top_logit"].to_numpy()[:, ::-1]], axis=1)
    tokens = np.concatenate([one["bottom_token"].to_numpy(), one["top_token"].to_numpy()[:, ::-1]], axis=1)
    parts, count = [str(part).replace("_", " ") for part in one["component"].to_numpy()], one.sizes["top"]
    every = len(parts)
    rows = np.sort(np.argsort(-np.abs(z).max(1), kind="stable")[:MOST])
    z, tokens, parts = z[rows], tokens[rows], [parts[row] for row in rows]
    limit = reach_of(z, units="logits")
    where = f"after “{label(str(one['token'].item()))}”"
    fewer = f"the {MOST} of {every:,} parts that write most" if every > MOST else ""
    fig = figure(
        subtitled(f"What each part writes {where} · {model_name(result)}", which(result, prompt), fewer),
        min(WIDEST, 240 + 2 * count * 76),
        160 + 24 * len(parts),
    )
    fig.add_heatmap(
        z=z, text=[[label(short(str(token))) for token in row] for row in tokens], texttemplate="%{text}",
        textfont={"size": 11, "color": INK},
        colorscale=PALE_DIVERGING, zmid=0, zmin=-limit, zmax=limit, xgap=1, ygap=1,
        customdata=[[[part, label(str(token))] for token in row] for part, row in zip(parts, tokens, strict=True)],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]} %{z:+.3f} logits<extra></extra>",
        colorbar={"title": {"text": "written into the logit", "side": "right"}},
    )  # fmt: skip
    fig.update_xaxes(
        tickvals=[(count - 1) / 2, count + (count - 1) / 2],
        ticktext=["against most", "for most"],
        showgrid=False,
        ticks="",
    )
    fig.update_yaxes(title="part", tickvals=list(range(len(parts))), ticktext=parts, showgrid=False)
    return fig
