"""A grid of patched cells as a heatmap: layer by position, layer by head, or head by position."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float

from analyses.averaged import LEFT_OUT, TOKENS, check_one, is_averaged, prompts_in
from analyses.from_end import FROM_END, unequal
from analyses.plots.labels import axis, label, place
from analyses.plots.theme import DIVERGING, TALLEST, WIDEST
from interp.errors import ResultError

STREAM = {"resid_pre": "stream entering layer", "resid_mid": "stream after attention, layer", "resid_post": "stream leaving layer",
          "attn_out": "attention output, layer", "mlp_out": "MLP output, layer"}  # fmt: skip
INNER = {"head": "head", "kv_head": "key-value head", "neuron": "neuron"}
SMALLEST_SCALE = 0.05
"""A colour scale of effects that are shares, 0 corrupt and 1 clean, reaches at least so far, so that noise does not look like one."""

ROUNDING = 1e-6
"""As much for what has a unit, logits or nats, where only rounding is surely nothing: of many parts each may do little."""

MOST_ROWS = 48
"""Heads by position beyond which only those are shown that move most."""

FEW = 40
"""Labels along an axis beyond which they are thinned out."""


@dataclass(frozen=True)
class Grid:
    """A heatmap's numbers and axes.

    Args:
        z: [row, column].
        names: [row, column], what each cell is.
        interval: [bound, row, column], where there is one.
        x, y: plotly axes.
        rows: what each row is called.
    """

    z: Float[np.ndarray, "row column"]
    names: Sequence[Sequence[str]]
    interval: Float[np.ndarray, "two row column"] | None
    x: dict[str, Any]
    y: dict[str, Any]
    rows: Sequence[str]

    @property
    def width(self) -> int:
        """Of a figure in pixels, at which cells are readable."""
        columns: int = self.z.shape[1]
        return min(WIDEST, 220 + (46 if columns <= 24 else 22) * columns if columns <= FEW else 260 + 6 * columns)

    @property
    def height(self) -> int:
        """As `width`."""
        rows: int = self.z.shape[0]
        return min(TALLEST - 100, 250 + 34 * rows if rows <= 16 else 250 + 14 * rows)

    @property
    def named_columns(self) -> bool:
        """Whether the columns are called by their tokens."""
        return "title" in self.x and str(self.x["title"]).startswith("token")

    @property
    def slant(self) -> int:
        """Of the labels of the columns, in degrees."""
        return -60 if self.named_columns else 0

    def reach(self, centre: float = 0.0) -> float:
        """How far a colour scale around the centre must reach."""
        return reach_of(self.z, centre)

    def most_moved(self, count: int, centre: float = 0.0) -> "Grid":
        """The rows whose strongest cell is furthest from the centre, in their order; itself where it has no more."""
        if len(self.z) <= count:
            return self
        reach = np.where(np.isfinite(self.z), np.abs(self.z - centre), -1.0).max(1)
        return self.chosen([self.rows[row] for row in np.sort(np.argsort(-reach, kind="stable")[:count])])

    def chosen(self, labels: Sequence[str]) -> "Grid":
        """The rows that are so called."""
        rows = [list(self.rows).index(name) for name in labels]
        return replace(
            self,
            z=self.z[rows],
            names=[self.names[row] for row in rows],
            interval=None if self.interval is None else self.interval[:, rows],
            y=self.y | _names(labels),
            rows=labels,
        )

    def strongest(self, count: int, centre: float = 0.0) -> list[tuple[int, int]]:
        """Row and column of the cells furthest from the centre, the furthest first."""
        distance = np.where(np.isfinite(self.z), np.abs(self.z - centre), -1.0).ravel()
        order = np.argsort(-distance, kind="stable")[: min(count, int((distance >= 0).sum()))]
        return [divmod(int(at), self.z.shape[1]) for at in order]

    def heatmap(self, what: str, centre: float, limit: float, **options: Any) -> go.Heatmap:
        """The trace, on a diverging scale around the value that means that nothing happened."""
        gap = 1 if max(self.z.shape) <= FEW else 0
        said = [
            [[text, _between(self.interval, r, c)] for c, text in enumerate(row)] for r, row in enumerate(self.names)
        ]
        return go.Heatmap(
            z=self.z,
            customdata=said,
            hovertemplate=f"%{{customdata[0]}}<br>{what} %{{z:.3f}}%{{customdata[1]}}<extra></extra>",
            colorscale=DIVERGING,
            zmid=centre,
            zmin=centre - limit,
            zmax=centre + limit,
            xgap=gap,
            ygap=gap,
            hoverongaps=False,
            **options,
        )


def reach_of(values: np.ndarray, centre: float = 0.0, units: str = "1") -> float:
    """How far a colour scale around the centre must reach: as far as any value, and beyond what noise alone would."""
    there = values[np.isfinite(values)]
    return max(SMALLEST_SCALE if units == "1" else ROUNDING, float(np.abs(there - centre).max(initial=0)))


def centre_of(parameters: Mapping[str, Any]) -> float:
    """The effect of a patch that does nothing: 1 where the clean run is patched, else 0."""
    return 1.0 if parameters["direction"] == "noising" else 0.0


def over_pairs(result: xr.Dataset, left_out: xr.DataArray | None = None) -> str:
    """What a mean over pairs is over, in words: how many, and from which end their positions are counted.

    Args:
        left_out: which pairs have no effect; None is what the result says of that.
    """
    pairs = prompts_in(result)
    out = result.get(LEFT_OUT, result.get("left_out")) if left_out is None else left_out
    without = 0 if out is None else int(out.sum())
    said = (
        f"mean over {pairs} pairs"
        if not without
        else f"mean over {pairs - without} of {pairs} pairs, the others' runs being equal"
    )
    if FROM_END not in result.sizes:
        return said
    lengths = token_counts(result)
    return f"{said} of {min(lengths)} to {max(lengths)} tokens, aligned at their ends"


def token_counts(result: xr.Dataset) -> list[int]:
    """Tokens of each prompt along the positions of a result; of one of means, the fewest and the most."""
    if is_averaged(result):
        return [int(tokens) for tokens in result[TOKENS]]
    for name in ("corrupt_token_id", "clean_token_id", "token_id"):
        if name in result.coords and "position" in result[name].dims:
            counts: list[int] = (result[name] >= 0).sum("position").to_numpy().tolist()
            return counts
    raise ResultError(
        "this result does not say the tokens of its prompts, so no mean over them by position can be drawn."
    )


def chosen_prompt(result: xr.Dataset, prompt: int | None) -> int | None:
    """The pair to show; None for the mean over several. Raises ResultError for one that is not there."""
    check_one(result, prompt)
    if is_averaged(result) or (prompt is None and result.sizes["prompt"] > 1):
        return None
    return place(result.sizes, "prompt", prompt or 0)


def grid(result: xr.Dataset, variable: str, prompt: int | None, site: str) -> Grid:
    """The cells of one pair, or their mean over pairs, whose positions then have numbers and no tokens.

    Raises ResultError where a mean over prompts of unequal length is by an index from the start, as releases before had it.
    """
    interval, ticks, tokens = None, None, None
    if prompt is None:
        values = result[f"{variable}_mean"] if f"{variable}_mean" in result else result[variable].mean("prompt")
        interval = result.get(f"{variable}_interval")
        if "position" in values.dims and unequal(token_counts(result)):
            raise ResultError(
                "the prompts of this result are of unequal length, so a mean over them by position mixes different tokens. Choose one of "
                "them (prompt=), or measure again: then positions are counted from the end."
            )
        if FROM_END in values.dims:  # as far back as every pair goes
            last = {FROM_END: slice(-min(token_counts(result)), None)}
            values, interval = values.isel(last), None if interval is None else interval.isel(last)
    else:
        one = result.isel(prompt=prompt)
        role = "corrupt" if "position" in one["corrupt_token_id"].dims else "clean"
        if "position" in one[f"{role}_token_id"].dims:
            one = one.isel(position=one[f"{role}_token_id"].to_numpy() >= 0)
        values, (ticks, tokens) = one[variable], _tokens(one, role)
    dims = [dim for dim in ("layer", *INNER, "position", FROM_END) if dim in values.dims]
    values = values.transpose(*dims)
    inner = next((dim for dim in dims if dim in INNER), None)
    layers = values["layer"].to_numpy()
    if "position" in dims:
        columns = values.sizes["position"]
        x = {"title": "position", **_numbers(columns)} if ticks is None else ticks
        across = [f"position {at}" if tokens is None else f"position {at} {tokens[at]}" for at in range(columns)]
    elif FROM_END in dims:
        columns = values.sizes[FROM_END]
        x = {"title": "position from the end", **_places(values[FROM_END].to_numpy().tolist())}
        across = [f"position {at} (from the end)" for at in values[FROM_END].to_numpy().tolist()]
    elif inner is None:
        columns, x, across = (
            1,
            {"title": "all positions together", "showticklabels": False, "ticks": ""},
            ["all positions"],
        )
    else:
        columns = values.sizes[inner]
        x = {"title": INNER[inner], **_numbers(columns)}
        across = [f"{INNER[inner]} {at}" for at in range(columns)]
    if inner is not None and dims[-1] in ("position", FROM_END):
        names = [f"{layer}.{head}" for layer in layers for head in range(values.sizes[inner])]
        y = {"title": f"layer.{INNER[inner]}", **_names(names)}
        rows = names
        down = [f"{INNER[inner]} {name}" for name in names]
    else:
        rows = [str(layer) for layer in layers]
        y = {"title": STREAM.get(site, "layer"), **_names(rows)}
        down = [f"layer {layer}" for layer in layers]
    z = values.to_numpy().reshape(len(down), columns)
    bounds = None if interval is None else interval.transpose("bound", *dims).to_numpy().reshape(2, *z.shape)
    return Grid(z, [[f"{d}, {a}" for a in across] for d in down], bounds, x, y, rows)


def by_head_and_position(cells: Grid, layers: int, centre: float) -> tuple[Grid, str]:
    """The grid as it can be read, and what is said of that: of very many heads by position those that move most."""
    if len(cells.z) <= max(MOST_ROWS, layers):
        return cells, ""
    return cells.most_moved(MOST_ROWS, centre), f"the {MOST_ROWS} of {len(cells.z):,} rows that move most"


def _between(interval: np.ndarray | None, row: int, column: int) -> str:
    if interval is None or not np.isfinite(interval[:, row, column]).all():
        return ""
    low, high = interval[:, row, column]
    return f"<br>95 % interval {low:.3f} to {high:.3f}"


def _tokens(one: xr.Dataset, role: str) -> tuple[dict[str, Any], list[str]]:
    """An axis with the tokens of the run that is patched, and their labels; where both runs have a token it shows how they differ."""
    title, tokens = "token", [label(str(token)) for token in one[f"{role}_token"].to_numpy()]
    ticks = axis(one[f"{role}_token"].to_numpy())
    if "position" in one["clean_token"].dims and "position" in one["corrupt_token"].dims:
        for at, (clean, corrupt) in enumerate(
            zip(one["clean_token"].to_numpy(), one["corrupt_token"].to_numpy(), strict=True)
        ):
            if clean != corrupt:
                title = "token (corrupt → clean where they differ)"
                tokens[at] = f"{label(str(corrupt))} → {label(str(clean))}"
                ticks["ticktext"][at] = f"<b>{tokens[at]}</b>"
    if "blurred" in one:
        title = "token (* blurred)"
        for at in np.flatnonzero(one["blurred"].to_numpy()).tolist():
            ticks["ticktext"][at] = f"<b>{tokens[at]}*</b>"
    return {"title": title, **ticks}, tokens


def _numbers(count: int) -> dict[str, Any]:
    return {"dtick": 1 if count <= FEW else max(1, count // 10), "showgrid": False}


def _places(places: Sequence[int]) -> dict[str, Any]:
    """As `_numbers`, of columns that are called by other numbers than their own."""
    step = 1 if len(places) <= FEW else len(places) // 10
    shown = [at for at in range(len(places)) if (len(places) - 1 - at) % step == 0]
    return {"tickvals": shown, "ticktext": [str(places[at]) for at in shown], "showgrid": False}


def _names(names: Sequence[str]) -> dict[str, Any]:
    step = 1 if len(names) <= 3 * FEW else len(names) // FEW
    return {"tickvals": list(range(0, len(names), step)), "ticktext": list(names[::step]), "showgrid": False}
