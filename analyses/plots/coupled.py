"""Two coupled texts beside each other, and how far apart they are at each step."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.averaged import check_one, is_averaged, prompts_in
from analyses.plots.bands import band, interval
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, label, model_name, place, short
from analyses.plots.theme import FAINT, INK, LINES, TEMPLATE

WIDE = 12
"""Tokens in a line."""

MOST_LINES = 8


@draws("cascade_coupled")
def plot_coupled(result: xr.Dataset, *, prompt: int = 0, seed: int | None = None) -> go.Figure:
    """The clean text above the disturbed one, line by line, differing tokens coloured; beneath, KL and h over all texts.

    Args:
        result: of `analyses.cascade.coupled`.
        prompt: whose texts.
        seed: which of its draws; None is the first that parts, if one does.

    Of means over many prompts, the lower part alone.

    Lines of the lower part are means over prompts and seeds, bands 95 % intervals over prompts where there are any.
    """
    if is_averaged(result):
        check_one(result, prompt or None)
        return _means(result)
    place(result.sizes, "prompt", prompt)
    parted = result["damage"][prompt].to_numpy().any(-1)
    seed = int(parted.argmax()) if seed is None else place(result.sizes, "seed", seed)
    one = result.isel(prompt=prompt, seed=seed)
    steps = min(result.sizes["time"], WIDE * MOST_LINES)
    lines = -(-steps // WIDE)
    rows = 3 * lines - 1
    z, text = np.full((rows, WIDE), np.nan), np.full((rows, WIDE), "", dtype=object)
    hover = text.copy()
    differs = one["damage"].to_numpy()
    for time in range(steps):
        line, column = divmod(time, WIDE)
        for below, name in enumerate(("token", "other_token")):
            token = str(one[name].to_numpy()[time])
            z[3 * line + below, column] = differs[time] * (1 + below)
            text[3 * line + below, column] = label(short(token))
            kind = ("clean", "disturbed")[below]
            hover[3 * line + below, column] = f"step {time}, {kind}: {label(token)}<br>h {float(one['h'][time]):.3f}"
    share = (22 * rows + 10) / (22 * rows + 300)
    fig = make_subplots(2, 1, row_heights=[share, 1 - share], vertical_spacing=70 / (22 * rows + 420))
    fig.add_heatmap(
        z=z, text=text, texttemplate="%{text}", customdata=hover, hovertemplate="%{customdata}<extra></extra>", zmin=0, zmax=2,
        colorscale=[[0, "#f3f5f7"], [0.5, "#bfdcee"], [1, "#f6cfae"]], showscale=False, xgap=2, ygap=1, textfont={"size": 11, "color": INK},
        row=1, col=1,
    )  # fmt: skip
    ticks = [f"{WIDE * line} {name}" for line in range(lines) for name in ("clean", "disturbed")]
    at = [3 * line + below for line in range(lines) for below in range(2)]
    fig.update_yaxes(autorange="reversed", tickvals=at, ticktext=ticks, showgrid=False, row=1, col=1)
    fig.update_xaxes(showticklabels=False, showgrid=False, ticks="", row=1, col=1)
    _curves(fig, result, 2)
    prompts, draws = result.sizes["prompt"], result.sizes["seed"]
    cut = "" if steps == result.sizes["time"] else f"; first {steps} of {result.sizes['time']} tokens"
    fig.update_layout(
        template=TEMPLATE,
        title=f"Coupled texts · {model_name(result)}<br><sup>prompt {prompt}, seed {seed}{cut}; below, means over "
        f"{counted(prompts, 'prompt')}"
        f" of {draws} draws</sup>",
        width=1040,
        height=22 * rows + 420,
        margin={"t": 84, "b": 96},
        legend={"y": -60 / (22 * rows + 420) - 0.06, "yanchor": "top", "x": 0, "xanchor": "left"},
    )  # fmt: skip
    return fig


def _means(result: xr.Dataset) -> go.Figure:
    fig = make_subplots(1, 1)
    _curves(fig, result, 1)
    fig.update_layout(
        template=TEMPLATE,
        title=f"Coupled texts · {model_name(result)}<br><sup>means over {counted(prompts_in(result), 'prompt')} of "
        f"{result.sizes['seed']} draws</sup>",
        width=820,
        height=420,
        margin={"t": 84, "b": 96},
        legend={"y": -0.25, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    return fig


def _curves(fig: go.Figure, result: xr.Dataset, row: int) -> None:
    """KL and h at each step."""
    times = result["time"].to_numpy()
    for name, said, color in (("kl", "KL(clean || disturbed), nats", LINES[1]), ("h", "h: the draws differ", LINES[0])):
        if (bounds := interval(result, f"{name}_interval")) is not None:
            fig.add_trace(band(times, bounds, color), row=row, col=1)
        fig.add_scatter(
            x=times, y=result[name].mean(("prompt", "seed")).to_numpy(), mode="lines", name=said, line={"color": color, "width": 2},
            hovertemplate="step %{x}<br>%{y:.3g}<extra></extra>", row=row, col=1,
        )  # fmt: skip
    fig.add_hline(y=0, line={"color": FAINT, "width": 1}, row=row, col=1)
    fig.update_xaxes(title="generated token", row=row, col=1)
