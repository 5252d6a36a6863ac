"""Paths from one sender at a time: heads layer by layer, and beside them the MLPs."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.plots.grid import chosen_prompt, over_pairs, reach_of
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, named, where_read, which
from analyses.plots.theme import BESIDE_TITLE, DIVERGING, INK, TEMPLATE, TITLE_LETTER, WIDEST

SMALLEST = 560
"""Pixels across."""

MOST_NAMED = 40
"""Letters of the receivers that a title holds."""


@draws("path_patching")
def plot_paths(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """The change of the metric by each sender: heads layer by head, in a column beside them the MLPs; what the input changes is said above.

    Blank is what was no sender. Over pairs a dot marks a mean whose 95 % interval excludes 0.

    Args:
        result: of `analyses.path_patching`.
        prompt: which pair; None is the only pair, or the mean over pairs.
    """
    done = json.loads(result.attrs["parameters"])
    config = json.loads(result.attrs["model_config"])
    number = chosen_prompt(result, prompt)
    values = (result["change_mean"] if number is None else result["change"].isel(prompt=number)).to_numpy()
    bounds = result["change_interval"].to_numpy() if number is None else np.full((2, len(values)), np.nan)
    layers, heads = config["n_layers"], config["n_heads"]
    units = "" if result["change"].attrs["units"] == "1" else f" {named(result['change'].attrs['units'])}"
    wide = 22 if heads <= 16 else 14
    high = max(12, min(30, 420 // layers))
    at = result["source_layer"].to_numpy(), result["source_head"].to_numpy()
    panels, widths = [(at[1] >= 0, heads)], [max(200, wide * heads)]
    if config["mlp"] != "none":
        panels.append(((at[0] >= 0) & (at[1] < 0), 1))
        widths.append(46)
    fig = make_subplots(
        1, len(panels), column_widths=[w / sum(widths) for w in widths], horizontal_spacing=0.03, shared_yaxes=True
    )
    drawn = at[0] >= 0
    reach = reach_of(values[drawn], units=str(result["change"].attrs["units"]))
    beyond = drawn & ((bounds[0] > 0) | (bounds[1] < 0))
    for column, (some, across) in enumerate(panels, start=1):
        rows, columns = at[0][some], np.maximum(at[1][some], 0)
        grid, said = np.full((layers, across), np.nan), np.full((layers, across, 2), "", dtype=object)
        grid[rows, columns] = values[some]
        said[rows, columns, 0] = [named(name) for name in result["source"].to_numpy()[some]]
        said[rows, columns, 1] = [_between(*ends) for ends in bounds[:, some].T]
        fig.add_heatmap(
            z=grid, customdata=said, coloraxis="coloraxis", xgap=1, ygap=1, hoverongaps=False,
            hovertemplate=f"%{{customdata[0]}}<br>%{{z:.3f}}{units}%{{customdata[1]}}<extra></extra>", row=1, col=column,
        )  # fmt: skip
        dotted = beyond[some]
        fig.add_scatter(
            x=columns[dotted], y=rows[dotted], mode="markers", hoverinfo="skip", showlegend=False, name="interval excludes 0",
            marker={"size": 5, "color": "white", "line": {"color": INK, "width": 1}}, row=1, col=column,
        )  # fmt: skip
    fig.update_xaxes(
        title={"text": "head", "standoff": 6}, showgrid=False, range=[-0.5, heads - 0.5], **_steps(heads), row=1, col=1
    )
    fig.update_yaxes(showgrid=False, range=[-0.5, layers - 0.5], **_steps(layers))
    if len(panels) > 1:
        fig.update_xaxes(tickvals=[0], ticktext=["MLP"], showgrid=False, range=[-0.5, 0.5], row=1, col=2)
        fig.update_yaxes(ticks="", row=1, col=2)
    fig.update_yaxes(title="layer", row=1, col=1)
    lines = [
        f"Paths to {_receivers(done['receivers'])} · {model_name(result)}",
        *_said(result, done, number, values, beyond, units),
    ]
    letters = len(re.sub("<.*?>", "", lines[0]))
    tall = max(330, 190 + high * layers)
    fig.update_layout(
        template=TEMPLATE,
        title=f"{lines[0]}<br><sup>{'<br>'.join(lines[1:])}</sup>",
        coloraxis={"colorscale": DIVERGING, "cmid": 0, "cmin": -reach, "cmax": reach,
                   "colorbar": {"title": {"text": f"change of the {named(done['metric'].replace('_', ' '))}", "side": "right"},
                                "thickness": 14}},
        width=max(SMALLEST, min(WIDEST, max(190 + sum(widths), BESIDE_TITLE + round(TITLE_LETTER * letters)))),
        height=tall,
        margin={"t": 96},
    )  # fmt: skip
    return fig


def _steps(count: int) -> dict[str, Any]:
    """Ticks at whole numbers."""
    return {"dtick": 1, "tick0": 0} if count > 1 else {"tickvals": [0], "ticktext": ["0"]}


def _receivers(given: Sequence[str] | str) -> str:
    """Their names as they were asked for, cut to what a title holds."""
    names = [given] if isinstance(given, str) else list(given)
    shown = [name for end, name in enumerate(names, start=1) if len(", ".join(names[:end])) <= MOST_NAMED] or names[:1]
    more = len(names) - len(shown)
    said = ", ".join("the logits" if name == "logits" else named(name) for name in shown)
    return said + (f" and {more} more" if more else "")


def _said(
    result: xr.Dataset,
    done: dict[str, Any],
    number: int | None,
    values: np.ndarray,
    beyond: np.ndarray,
    units: str,
) -> list[str]:
    """What was done, and what the input changes."""
    way = "through MLPs" if done["through_mlps"] else "direct"
    norms = "norms recomputed" if done["norm"] == "recompute" else "norms frozen"
    where = "" if done["positions"] is None else f", positions {', '.join(map(str, done['positions']))}"
    how = f"{done['direction']}, {done['replacement'].replace('_', ' ')}; {way}, {norms}{where}"
    read = where_read(done, number).strip()
    over = over_pairs(result.drop_vars("left_out", errors="ignore")) if number is None else ""  # a change has no gap
    dots = "dot: 95 % interval excludes 0" if beyond.any() else ""
    given = [f"{float(values[at]):+.3f}{units}" for at in np.flatnonzero(result["source"].to_numpy() == "input")]
    entered = f"input {given[0]}" if given else ""
    over = over or which(result, number, "pair")
    return [how, "; ".join(part for part in (entered, f"read {read}" if read else "", over, dots) if part)]


def _between(low: float, high: float) -> str:
    return f"<br>95 % interval {low:.3f} to {high:.3f}" if np.isfinite([low, high]).all() else ""
