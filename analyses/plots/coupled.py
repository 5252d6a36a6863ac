"""Two coupled texts beside each other, and how far apart they are at each step."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from analyses.averaged import check_one, is_averaged, prompts_in
from analyses.plots.bands import band, interval
from analyses.plots.kinds import draws
from analyses.plots.labels import counted, label, model_name, place, short, subtitled
from analyses.plots.theme import INK, LINES, TEMPLATE

WIDE = 12
"""Tokens in a line."""

MOST_LINES = 8

GAP, CURVES = 84, 210
"""Pixels between the texts and the curves, and of these."""

PANELS = (
    ("kl", "KL(clean || disturbed)", "nats", LINES[1]),
    ("h", "h: the draws differ", "probability", LINES[0]),
)
"""Each on an axis of its own: they have no unit in common."""


@draws("cascade_coupled")
def plot_coupled(result: xr.Dataset, *, prompt: int | None = None, seed: int | None = None) -> go.Figure:
    """The clean text above the disturbed one, line by line, differing tokens coloured; beneath, KL and h over all texts.

    The texts are those with the median number of changed tokens, where none are chosen. Curves are means over prompts and seeds, bands 95 %
    intervals over prompts where there are any. Of means over many prompts, the curves alone.

    Args:
        result: of `analyses.cascade.coupled`.
        prompt: whose texts; None chooses among all.
        seed: which of its draws; None chooses among all.
    """
    if is_averaged(result):
        check_one(result, prompt)
        return _means(result)
    prompt, seed, chosen = _median(result, prompt, seed)
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
    text_height, inside = 22 * rows + 10, 22 * rows + 10 + GAP + CURVES
    fig = make_subplots(
        2, 2, specs=[[{"colspan": 2}, None], [{}, {}]], row_heights=[text_height, CURVES], vertical_spacing=GAP / inside,
        horizontal_spacing=0.09, subplot_titles=["", *(said for _, said, _, _ in PANELS)],
    )  # fmt: skip
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
        title=subtitled(f"Coupled texts · {model_name(result)}", f"{chosen}{cut}", f"below, means over {counted(prompts, 'prompt')} of "
                        f"{counted(draws, 'draw')}"),
        width=1040,
        height=inside + 150,
        margin={"t": 84, "b": 66},
    )  # fmt: skip
    fig.update_annotations(font={"size": 13})
    return fig


def _median(result: xr.Dataset, prompt: int | None, seed: int | None) -> tuple[int, int, str]:
    """The texts that are shown, and which they are: of those that are not ruled out the one with the median number of changed tokens."""
    prompts = range(result.sizes["prompt"]) if prompt is None else [place(result.sizes, "prompt", prompt)]
    seeds = range(result.sizes["seed"]) if seed is None else [place(result.sizes, "seed", seed)]
    changed = result["damage"].sum("time").to_numpy()
    runs = sorted((int(changed[p, s]), p, s) for p in prompts for s in seeds)
    count, p, s = runs[len(runs) // 2]
    what = f"prompt {p}, seed {s}: {counted(count, 'changed token')}"
    return p, s, what if len(runs) == 1 else f"{what}, the median of {len(runs)} runs"


def _means(result: xr.Dataset) -> go.Figure:
    fig = make_subplots(1, 2, horizontal_spacing=0.09, subplot_titles=[said for _, said, _, _ in PANELS])
    _curves(fig, result, 1)
    fig.update_layout(
        template=TEMPLATE,
        title=subtitled(
            f"Coupled texts · {model_name(result)}",
            f"means over {counted(prompts_in(result), 'prompt')} of {counted(result.sizes['seed'], 'draw')}",
        ),
        width=1040,
        height=380,
        margin={"t": 84, "b": 66},
    )
    fig.update_annotations(font={"size": 13})
    return fig


def _curves(fig: go.Figure, result: xr.Dataset, row: int) -> None:
    """KL and h at each step."""
    times = result["time"].to_numpy()
    for column, (name, said, units, color) in enumerate(PANELS, start=1):
        if (bounds := interval(result, f"{name}_interval")) is not None:
            fig.add_trace(band(times, bounds, color), row=row, col=column)
        fig.add_scatter(
            x=times, y=result[name].mean(("prompt", "seed")).to_numpy(), mode="lines", name=said, line={"color": color, "width": 2},
            hovertemplate="step %{x}<br>%{y:.3g}<extra></extra>", showlegend=False, row=row, col=column,
        )  # fmt: skip
        fig.update_yaxes(title=units, rangemode="tozero", row=row, col=column)
    fig.update_xaxes(title="generated token", row=row)
