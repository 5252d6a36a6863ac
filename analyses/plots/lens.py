"""A lens as a heatmap: the top token of every layer and position."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float
from plotly.subplots import make_subplots

from analyses.averaged import check_one, is_averaged
from analyses.plots.kinds import draws
from analyses.plots.labels import axis, label, model_name, named, place, short, subtitled, which
from analyses.plots.lens_curves import plot_lens_curves
from analyses.plots.markup import as_text
from analyses.plots.theme import INK, PALE, PALE_REVERSED, TEMPLATE, WIDEST, figure
from interp.errors import ResultError, is_known, nearest
from interp.whole_numbers import is_one, whole_numbers

Color = Literal["probability", "entropy", "rank", "kl"]
TITLES = {"logit_lens": "Logit lens", "tuned_lens": "Tuned lens"}

CELL = 58
"""Width of a cell in pixels."""

BESIDE = 900
"""Pixels of cells beyond which two lenses stand one above the other."""

MOST, ROWS = 16, 52
"""Positions of a long prompt that are shown at once, and layers of a deep model."""

LEAST_KL = 1e-3
"""Below this a KL is drawn as this: its scale is logarithmic."""


@draws("logit_lens", "tuned_lens")
def plot_lens(
    result: xr.Dataset, *, prompt: int = 0, color: str = "probability", start: int | None = None
) -> go.Figure:
    """Layer by position; each cell names the most probable next token. Of means over many prompts, `plot_lens_curves`.

    Of a long prompt 16 positions at once, of a deep model no more layers than can be read.

    Args:
        result: of `analyses.logit_lens` or `analyses.tuned_lens`.
        prompt: which of its prompts.
        color: what the colour says: `probability` of that token, `entropy` (nats), `rank` of the final prediction or `kl` to the final
            distribution (nats); the last two on a logarithmic scale.
        start: the first position shown of a long prompt; None shows its end.

    Raises:
        ResultError: a prompt, position or colour that is not there.
    """
    if is_averaged(result):
        check_one(result, prompt or None)
        return plot_lens_curves({TITLES[result.attrs["kind"]]: result})
    one, said = _window(_one(result, prompt), start, ROWS)
    fig = figure(
        subtitled(f"{TITLES[result.attrs['kind']]} · {model_name(result)}", which(result, prompt), *said),
        max(520, 170 + CELL * one.sizes["position"]),
        150 + _row(one.sizes["layer"]) * one.sizes["layer"],
    )
    trace, bar = _trace(one, color), _scale(color, [one])
    fig.add_trace(
        trace.update(colorscale=bar["colorscale"], zmin=bar["cmin"], zmax=bar["cmax"], colorbar=bar["colorbar"])
    )
    fig.update_xaxes(title="token read so far", **axis(one["token"].to_numpy()))
    fig.update_yaxes(**_layers(one))
    return fig


@as_text
def plot_lens_pair(
    first: xr.Dataset,
    second: xr.Dataset,
    *,
    names: Sequence[str] | None = None,
    prompt: int | tuple[int, int] = 0,
    color: str = "probability",
    start: int | None = None,
) -> go.Figure:
    """Two lenses on one prompt, or one lens on two prompts, beside or above each other on one scale, at the layers that both have.

    Args:
        first, second: of `analyses.logit_lens` or `analyses.tuned_lens`.
        names: what each is called; default, the kind of lens.
        prompt: which of their prompts, of each or of both.
        color, start: see `plot_lens`.

    Raises:
        ResultError: a prompt, position or colour that is not there, or no layer in common.
    """
    chosen = whole_numbers(prompt, "plot_lens_pair: a prompt", ResultError) * (2 if is_one(prompt) else 1)
    shared = np.intersect1d(first["layer"], second["layer"])
    if len(shared) == 0:
        raise ResultError("plot_lens_pair: the results have no layer in common.")
    ones = [_one(result, at).sel(layer=shared) for result, at in zip((first, second), chosen, strict=True)]
    titles = names or [TITLES[result.attrs["kind"]] for result in (first, second)]
    windows = [_window(one, start, ROWS // 2) for one in ones]
    ones, said = [one for one, _ in windows], dict.fromkeys(line for _, left_out in windows for line in left_out)
    columns = [one.sizes["position"] for one in ones]
    layers = ones[0].sizes["layer"]
    beside, rows = CELL * sum(columns) <= BESIDE, _row(layers) * layers
    several = [
        f"{named(title)}: {line}"
        for title, result, at in zip(titles, (first, second), chosen, strict=True)
        if (line := which(result, at))
    ]
    shape = (1, 2) if beside else (2, 1)
    fig = make_subplots(
        *shape, shared_yaxes=beside, horizontal_spacing=0.03, vertical_spacing=130 / (2 * rows + 130),
        column_widths=[count / sum(columns) for count in columns] if beside else None,
        subplot_titles=[named(title) for title in titles],
    )  # fmt: skip
    for number, one in enumerate(ones, start=1):
        at = {"row": 1 if beside else number, "col": number if beside else 1}
        fig.add_trace(_trace(one, color).update(coloraxis="coloraxis"), **at)
        fig.update_xaxes(**axis(one["token"].to_numpy()), **at)
        if number == 1 or not beside:
            fig.update_yaxes(**_layers(one), **at)
    fig.update_layout(
        template=TEMPLATE,
        title=subtitled(f"Two lenses · {model_name(first)}", *several, *said),
        coloraxis=_scale(color, ones),
        width=min(WIDEST, max(620, 190 + CELL * (sum(columns) if beside else max(columns)))),
        height=190 + rows if beside else 260 + 2 * rows,
        margin={"t": 84},
    )
    fig.update_annotations(font={"size": 13})
    return fig


def _one(result: xr.Dataset, prompt: int) -> xr.Dataset:
    one = result.isel(prompt=place(result.sizes, "prompt", prompt))
    return one.isel(position=one["token_id"].to_numpy() >= 0)


def _row(layers: int) -> int:
    """Pixels of a layer."""
    return 34 if layers < 10 else 26 if layers < 20 else 20


def _window(one: xr.Dataset, start: int | None, rows: int) -> tuple[xr.Dataset, list[str]]:
    """So many positions and layers as can be read, and what was left out."""
    said, count = [], one.sizes["position"]
    first = max(0, count - MOST) if start is None else place(one.sizes, "position", start)
    if first > 0 or count > MOST:
        one = one.isel(position=slice(first, first + MOST))
        places = one["position"].to_numpy()
        said.append(f"positions {places[0]} to {places[-1]} of {count}")
    layers = one["layer"].to_numpy()
    if len(layers) > rows:
        whole = np.flatnonzero(layers == layers.astype(int))
        step = -(-len(whole) // rows)
        kept = whole[::-1][::step][::-1]  # the output stays
        one = one.isel(layer=kept)
        said.append("every layer's stream" if step == 1 else f"the stream of one layer in {step}")
    return one, said


def check_color(color: str) -> None:
    """Raise ResultError for a colour that no lens has."""
    if not is_known(color, get_args(Color)):
        raise ResultError(f"a lens has no colour {color!r}. {nearest(color, get_args(Color))}")


def _values(one: xr.Dataset, color: str) -> Float[np.ndarray, "layer position"]:
    check_color(color)
    if color == "probability":
        found = one["top_probability"].to_numpy()[..., 0]
    elif color == "entropy":
        found = one["entropy"].to_numpy()
    elif color == "rank":
        found = np.log10(1 + one["final_rank"].to_numpy())
    else:
        found = np.log10(np.maximum(one["kl"].to_numpy(), LEAST_KL))
    return np.asarray(found, dtype=float)


def _scale(color: str, ones: Sequence[xr.Dataset]) -> dict[str, Any]:
    """A colour axis that holds the values of all results."""
    shown = np.concatenate([_values(one, color).ravel() for one in ones])
    highest = float(shown[np.isfinite(shown)].max(initial=0))
    if color == "probability":
        return {"colorscale": PALE, "cmin": 0, "cmax": 1, "colorbar": _bar("probability")}
    if color == "entropy":
        return {"colorscale": PALE_REVERSED, "cmin": 0, "cmax": highest, "colorbar": _bar("entropy (nats)")}
    if color == "rank":
        ranks = [1, 2, *(10**power for power in range(1, 6))]
        bar = _bar("rank of the final prediction (1 leads)") | {
            "tickvals": [np.log10(rank) for rank in ranks],
            "ticktext": [f"{rank:,}" for rank in ranks],
        }
        return {"colorscale": PALE_REVERSED, "cmin": 0, "cmax": max(highest, np.log10(2)), "colorbar": bar}
    powers = list(range(-3, 3))
    bar = _bar("KL to the final distribution (nats)") | {
        "tickvals": powers,
        "ticktext": [f"{10.0**p:g}" for p in powers],
    }
    bar["ticktext"][0] = f"≤ {LEAST_KL:g}"
    return {"colorscale": PALE_REVERSED, "cmin": -3, "cmax": max(highest, 0), "colorbar": bar}


def _bar(title: str) -> dict[str, Any]:
    return {"title": {"text": title, "side": "right"}}


def _trace(one: xr.Dataset, color: str) -> go.Heatmap:
    names, probability = one["top_token"].to_numpy(), one["top_probability"].to_numpy()
    steps, positions = one["step"].to_numpy(), one["position"].to_numpy()
    hover = [
        [
            f"stream after {steps[i]}, position {positions[j]}<br>"
            + "<br>".join(f"{label(str(t))}  {p:.3f}" for t, p in zip(names[i, j], probability[i, j], strict=True))
            + f"<br>entropy {float(one['entropy'][i, j]):.2f} nats, KL to final {float(one['kl'][i, j]):.2f} nats"
            + f"<br>rank of the final prediction {1 + float(one['final_rank'][i, j]):.0f}"
            for j in range(len(positions))
        ]
        for i in range(len(steps))
    ]
    return go.Heatmap(
        z=_values(one, color),
        text=[[label(short(str(name))) for name in row] for row in names[..., 0]],
        texttemplate="%{text}",
        textfont={"size": 11, "color": INK},
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        xgap=1,
        ygap=1,
    )


def _layers(one: xr.Dataset) -> dict[str, Any]:
    layers = one["layer"].to_numpy()
    ticks = [f"{layer:.0f}" if layer == int(layer) else f"{int(layer)} + attention" for layer in layers[:-1]] + [
        "output"
    ]
    return {
        "title": "stream entering layer",
        "tickvals": list(range(len(layers))),
        "ticktext": ticks,
        "showgrid": False,
    }
