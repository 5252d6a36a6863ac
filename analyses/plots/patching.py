"""Activation patching and causal tracing as heatmaps."""

import json

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.grid import Grid, by_head_and_position, centre_of, chosen_prompt, grid, over_pairs
from analyses.plots.kinds import draws
from analyses.plots.labels import model_name, subtitled, where_read, which
from analyses.plots.theme import FAINT, LINES, figure

SITES = {
    "resid_pre": "the stream", "resid_mid": "the stream", "resid_post": "the stream", "attn_out": "attention outputs",
    "mlp_out": "MLP outputs", "z": "heads (z)", "q": "queries", "k": "keys", "v": "values", "pattern": "attention patterns",
    "mlp_post": "neurons",
}  # fmt: skip


BARS = 30


@draws("activation_patching", "causal_tracing")
def plot_patching(result: xr.Dataset, *, prompt: int | None = None) -> go.Figure:
    """The effect of every patch: 0 is the corrupt run, 1 the clean one. White is where a patch does nothing.

    Layer by position, layer by head, or head by position, as the result is; of neurons the strongest, as bars. With several
    pairs an interval shows on hover.

    Args:
        result: of `analyses.activation_patching` or `analyses.causal_tracing`.
        prompt: which pair; None is the only pair, or the mean over pairs, whose positions then have no tokens and, where the pairs are of
            unequal length, are counted from the end.
    """
    done = json.loads(result.attrs["parameters"])
    number = chosen_prompt(result, prompt)
    cells = grid(result, "effect", number, done["site"])
    centre = centre_of(done)
    title = subtitled(f"{_title(result, done)} · {model_name(result)}", _subtitle(result, done, number))
    if "neuron" in result["effect"].dims:
        return _bars(cells, centre, title)
    cells, shown = by_head_and_position(cells, result.sizes["layer"], centre)
    title = title.replace("</sup>", f"; {shown}</sup>") if shown else title
    fig = figure(title, max(720, cells.width), cells.height)
    fig.add_trace(
        cells.heatmap(
            "effect", centre, cells.reach(centre), colorbar={"title": {"text": "0 corrupt, 1 clean", "side": "right"}}
        )
    )
    fig.update_xaxes(tickangle=cells.slant, **cells.x)
    fig.update_yaxes(autorange="reversed" if len(cells.z) > result.sizes["layer"] else True, **cells.y)
    return fig


def _bars(cells: Grid, centre: float, title: str) -> go.Figure:
    """Bars of the neurons that move the answer most: a heatmap of thousands could not be read."""
    places = cells.strongest(BARS, centre)
    names = [cells.names[row][column] for row, column in places]
    effect = np.array([cells.z[place] for place in places])
    error = None
    if cells.interval is not None:
        low, high = (np.array([cells.interval[(bound, *place)] for place in places]) for bound in (0, 1))
        error = {"array": high - effect, "arrayminus": effect - low, "color": FAINT, "thickness": 1.2}
    fig = figure(
        title.replace("</sup>", f"; the {len(names)} strongest of {cells.z.size:,}</sup>"), 720, 190 + 20 * len(names)
    )
    fig.add_bar(
        x=effect - centre, y=names, base=centre, orientation="h", marker={"color": LINES[0]}, error_x=error, name="effect",
        hovertemplate="%{y}<br>effect %{x:.4f}<extra></extra>",
    )  # fmt: skip
    fig.add_vline(x=centre, line={"color": FAINT, "width": 1})
    fig.update_xaxes(title="effect: 0 corrupt, 1 clean")
    fig.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return fig


def what(done: dict[str, object]) -> str:
    """What a method does, in words."""
    if done["replacement"] != "resample":
        run = "clean" if done["direction"] == "noising" else "corrupt"
        return f"{str(done['replacement']).replace('_', ' ')} into the {run} run"
    return (
        "corrupt values into the clean run" if done["direction"] == "noising" else "clean values into the corrupt run"
    )


def _title(result: xr.Dataset, done: dict[str, object]) -> str:
    window = f", {done['window']} layers at a time" if done["window"] != 1 else ""
    if result.attrs["kind"] == "causal_tracing":
        return f"Restoring {SITES[str(done['site'])]} after noise on the subject (*){window}"
    return f"Patching {SITES[str(done['site'])]}: {what(done)}{window}"


def _subtitle(result: xr.Dataset, done: dict[str, object], prompt: int | None) -> str:
    metric = str(done["metric"]).replace("_", " ") + where_read(done, prompt)
    if prompt is None:
        return f"{metric}, {over_pairs(result)}"
    one = result.isel(prompt=prompt)
    clean, corrupt = float(one["clean_baseline"]), float(one["corrupt_baseline"].mean())
    said = f"{metric} {corrupt:.2f} in the corrupt run, {clean:.2f} in the clean one"
    return "; ".join(one for one in (which(result, prompt, "pair"), said) if one)
