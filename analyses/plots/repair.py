"""Self-repair as a waterfall: from what a head does by itself to what is lost without it, be that less or more."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.grid import chosen_prompt
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, where_read, which
from analyses.plots.theme import FAINT, INK, LINES, figure

SHOWN = 10
"""Later parts with a bar of their own; the rest share one."""


@draws("self_repair")
def plot_repair(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """The direct effect, what the final norm and each later part make up for (downward) or add (upward), and the total effect.

    Args:
        result: of `analyses.cascade.self_repair`.
        prompt: which; None is the only one, or the mean over prompts, with its 95 % interval where there is one.
    """
    number = chosen_prompt(result, prompt)
    one = result.mean("prompt") if number is None else result.isel(prompt=number)
    terms = one["term"].to_series()
    largest = terms.abs().nlargest(SHOWN).index
    largest = [name for name in terms.index if name in largest and terms[name] != 0]
    others = float(terms.drop(largest).sum())
    names = ["direct", "final norm", *largest, "other parts", "total"]
    steps = np.array([-float(one["norm_term"]), *(-terms[largest].to_numpy()), -others])
    start = float(one["direct"]) + np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    done = json.loads(result.attrs["parameters"])
    layer, head = done["head"]
    over = f"mean over {result.sizes['prompt']} prompts" if number is None else which(result, number) or "one prompt"
    fig = figure(
        f"From the direct to the total effect of head {layer}.{head} · {model_name(result)}<br><sup>on the answer"
        f"{where_read(done, number)}; {over}; a part downward makes up for the head, upward the head works through it</sup>",
        820, 420,
    )  # fmt: skip
    ends = {"direct": float(one["direct"]), "total": float(one["total"])}
    errors = {name: _error(result, name) for name in ends} if number is None else {}
    for name, value in ends.items():
        fig.add_bar(
            x=[name], y=[value], marker={"color": INK}, error_y=errors.get(name), showlegend=False,
            hovertemplate="%{x}<br>%{y:+.3f} logits<extra></extra>",
        )  # fmt: skip
    fig.add_bar(
        x=names[1:-1], y=steps, base=start, marker={"color": [LINES[1] if step > 0 else LINES[0] for step in steps]}, customdata=steps,
        showlegend=False, hovertemplate="%{x}<br>%{customdata:+.3f} logits<extra></extra>",
    )  # fmt: skip
    fig.add_hline(y=0, line={"color": FAINT, "width": 1})
    fig.update_xaxes(categoryorder="array", categoryarray=names, type="category", tickangle=-45, showgrid=False)
    fig.update_yaxes(title="logits")
    fig.update_layout(margin={"t": 90}, barmode="overlay")
    return fig


def _error(result: xr.Dataset, name: str) -> dict[str, object] | None:
    bounds = result.get(f"{name}_interval")
    if bounds is None or not np.isfinite(bounds).all():
        return None
    mean = float(result[f"{name}_mean"])
    return {
        "array": [float(bounds[1]) - mean],
        "arrayminus": [mean - float(bounds[0])],
        "color": FAINT,
        "thickness": 1.6,
    }
