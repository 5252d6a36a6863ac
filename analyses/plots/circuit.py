"""A circuit as a graph: layer upon layer, what writes below what reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float
from plotly.colors import sample_colorscale, unlabel_rgb

from analyses.circuits.circuit import Circuit, graph, readers_of
from analyses.circuits.edges import Edge, Shape
from analyses.circuits.scores import Scores, edge_scores, shape_of_result
from analyses.plots.labels import named
from analyses.plots.markup import as_text, plain
from analyses.plots.theme import DIVERGING, FAINT, GRID, INK, figure
from interp.errors import ResultError

WHO = "plot_circuit"
COLUMN, NARROWEST, ABOVE, AROUND = 46, 34, 76, 176
"""Pixels of a head's column and where there are many, above the drawing, and above and below it."""

TALLEST, LOWEST, ALL_ROWS = 72, 26, 620
"""Pixels of a layer at most and at least, and of all of them where these allow it."""

HALF = 9
"""Pixels from the middle of a node's label to its edge."""

PORTS = {"q": -10, "k": 0, "v": 10}
"""Where lines reach a head, in pixels from its middle."""

PARTS = {"q": ("triangle-up", "into q"), "k": ("square", "into k"), "v": ("circle", "into v")}
BINS, THINNEST, THICKEST = 6, 0.7, 6.0
"""Widths of lines, in pixels."""

POINTS = np.linspace(0, 1, 41)
"""Of a line, as a share of it."""

NAMED = 12
"""Edges that are listed on hover."""

FILLS = {"input": "#FBE3B0", "head": "#F2F4F6", "mlp": "#F0D9E6", "logits": "#CDEBE0"}
BORDERS = {"input": "#E69F00", "head": INK, "mlp": "#CC79A7", "logits": "#009E73"}


@dataclass(frozen=True)
class Line:
    """An edge as it is drawn, into one of those that read it.

    Args:
        score: None where nothing is known of it.
        reader: the node that it runs into.
    """

    edge: Edge
    score: float | None
    reader: str
    path: Float[np.ndarray, "two point"]


@as_text
def plot_circuit(
    circuit: Circuit,
    *,
    scores: Scores | None = None,
    exact: Scores | None = None,
    title: str | None = None,
) -> go.Figure:
    """The nodes of a circuit in their places, and its edges between them: red where they help the answer and blue where they hurt it.

    Layers go upward from the input to the logits, heads side by side, the MLP at the right. Lines into a head's queries, keys and values
    end in signs of their own; where heads share keys and values, there is a line to each of those in the circuit.

    Args:
        scores: what width and colour say of each edge, see `analyses.edge_scores`; default, what the circuit was chosen by. Edges without
            one are grey.
        exact: a result of `analyses.edge_patching`, or exact scores by edge, which are said on hover beside the others.
        title: instead of how many edges there are.

    Raises:
        ResultError: scores of a model of another shape, `exact` that is an estimate, or as `analyses.edge_scores`.
    """
    shape = circuit.shape
    values, checked = _scores(circuit, scores, "scores"), _scores(circuit, exact, "exact")
    places, row = _places(shape), min(TALLEST, max(LOWEST, ALL_ROWS // (shape.n_layers + 2)))
    width = max(520, 150 + max(NARROWEST, min(COLUMN, 950 // (shape.n_heads + 2))) * (shape.n_heads + 2))
    lines = _lines(circuit, values, places, ((width - 90) / (shape.n_heads + 2.2), float(row)))
    largest = max((abs(line.score) for line in lines if line.score is not None), default=0.0) or 1.0
    fig = figure(
        _title(circuit, values, title, exact if scores is None else scores), width, AROUND + row * (shape.n_layers + 2)
    )
    there = set(circuit.nodes)
    rest = [place for name, place in places.items() if name not in there]
    fig.add_scatter(
        x=[x for x, _ in rest], y=[y for _, y in rest], mode="markers", marker={"size": 4, "color": GRID}, name="not in the circuit",
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    _draw_lines(fig, lines, largest)
    _draw_ports(fig, lines)
    _say_edges(fig, lines, values, checked)
    _draw_nodes(fig, circuit, values, places)
    _axes(fig, shape, row)
    return fig


def _scores(circuit: Circuit, given: Any, what: str) -> dict[str, float]:
    """Of the circuit's edges, by name; those that are no numbers are left out."""
    if isinstance(given, xr.Dataset):
        if "model_config" in given.attrs and (of := shape_of_result(given)) != circuit.shape:
            raise ResultError(
                f"{WHO}: {what} are of a model of another shape: {of}, where the circuit's is {circuit.shape}."
            )
        if what == "exact" and given.attrs.get("kind") == "edge_attribution":
            raise ResultError(f"{WHO}: exact is a result of edge_patching; edge_attribution only estimates.")
        return _of_circuit(circuit, edge_scores(given, who=WHO), what)
    if given is None:
        return _of_circuit(circuit, circuit.scores if what == "scores" else {}, what)
    if not isinstance(given, Mapping):
        raise ResultError(f"{WHO}: {what} are a result or numbers by edge, not {type(given).__name__}.")
    return _of_circuit(circuit, given, what)


def _of_circuit(circuit: Circuit, scores: Mapping[str, float], what: str) -> dict[str, float]:
    by_name = {plain(str(name)): float(value) for name, value in scores.items()}
    known = graph(circuit.shape)
    if wrong := [name for name in by_name if name not in known]:
        raise ResultError(f"{WHO}: {what} has {wrong[0]!r}, which is no edge of this model.")
    return {name: by_name[name] for name in circuit if np.isfinite(by_name.get(name, np.nan))}


def _places(shape: Shape) -> dict[str, tuple[float, float]]:
    """Of every node: its column and its row, in layers. An MLP stands above the heads that it reads."""
    middle, above = (shape.n_heads - 1) / 2, 0.0 if shape.parallel else 0.5
    places = {"input": (middle, -1.0)}
    for layer in range(shape.n_layers):
        places |= {f"a{layer}.h{head}": (float(head), float(layer)) for head in range(shape.n_heads)}
        places |= {} if shape.mlp == "none" else {f"m{layer}": (shape.n_heads + 0.3, layer + above)}
    return places | {"logits": (middle, float(shape.n_layers) + 0.15)}


def _lines(
    circuit: Circuit,
    values: Mapping[str, float],
    places: Mapping[str, tuple[float, float]],
    cell: tuple[float, float],
) -> list[Line]:
    """Every line, those that score least first, so that the others are drawn upon them. `cell` is a column and a row in pixels."""
    there = set(circuit.nodes)
    found = []
    for edge in circuit.listed:
        readers = [name for name in readers_of(edge.destination, circuit.shape) if name in there]
        for reader in readers:
            end = places[reader]
            port = PORTS.get(edge.destination.part, 0) / cell[0]
            path = _path(
                places[edge.source.name], (end[0] + port, end[1] - (HALF + 4) / cell[1]), circuit.shape.n_heads
            )
            found.append(Line(edge, values.get(edge.name), reader, path))
    return sorted(found, key=lambda line: abs(line.score or 0.0))


def _path(start: tuple[float, float], end: tuple[float, float], heads: int) -> Float[np.ndarray, "two point"]:
    """A line that leaves upward and arrives from below; bent aside where nodes of the same column stand between."""
    across, up = end[0] - start[0], end[1] - start[1]
    side = 1.0 if start[0] >= (heads - 1) / 2 else -1.0
    bend = side * min(1.2, 0.22 * up) * max(0.0, 1 - abs(across)) if up > 1.2 else 0.0
    reach = max(0.35, 0.42 * up)
    corners = np.array(
        [start, (start[0] + bend, start[1] + reach), (end[0] + bend, end[1] - reach), end]
    ).T  # of a cubic Bézier curve
    t = POINTS
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return corners @ weights


def _draw_lines(fig: go.Figure, lines: Sequence[Line], largest: float) -> None:
    """A trace for each sign and width, the thin ones first."""
    by_look: dict[tuple[int, int], list[Line]] = {}
    for line in lines:
        share = 0.25 if line.score is None else (abs(line.score) / largest) ** 0.5
        sign = 0 if line.score is None else 1 if line.score >= 0 else -1
        by_look.setdefault((min(BINS - 1, int(share * BINS)), sign), []).append(line)
    said = {1: "helps", -1: "hurts", 0: "no score"}
    for (bin_, sign), alike in sorted(by_look.items()):
        share = (bin_ + 0.5) / BINS
        x, y = (np.concatenate([[*line.path[axis], np.nan] for line in alike]) for axis in (0, 1))
        fig.add_scatter(
            x=x, y=y, mode="lines", name=said[sign], legendgroup=said[sign], showlegend=False, hoverinfo="skip",
            line={"color": _colour(sign, 0.3 + 0.65 * share), "width": THINNEST + (THICKEST - THINNEST) * share, "simplify": False},
        )  # fmt: skip
    for sign in (1, -1, 0):
        if any(of == sign for _, of in by_look):
            fig.add_scatter(
                x=[None], y=[None], mode="lines", name=said[sign], legendgroup=said[sign],
                line={"color": _colour(sign, 0.9), "width": 4},
            )  # fmt: skip


def _colour(sign: int, opacity: float) -> str:
    """Of the ends of the scale that heatmaps of signed values have."""
    if sign == 0:
        return f"rgba(107, 119, 133, {opacity:.2f})"
    red, green, blue = unlabel_rgb(sample_colorscale(DIVERGING, 0.9 if sign > 0 else 0.1)[0])
    return f"rgba({red:.0f}, {green:.0f}, {blue:.0f}, {opacity:.2f})"


def _draw_ports(fig: go.Figure, lines: Sequence[Line]) -> None:
    for part, (symbol, said) in PARTS.items():
        if into := [line for line in lines if line.edge.destination.part == part]:
            signs = [0 if line.score is None else 1 if line.score >= 0 else -1 for line in into]
            fig.add_scatter(
                x=[line.path[0, -1] for line in into], y=[line.path[1, -1] for line in into], mode="markers", name=said,
                hoverinfo="skip", showlegend=False,
                marker={"symbol": symbol, "size": 6, "color": [_colour(sign, 1.0) for sign in signs]},
            )  # fmt: skip
            fig.add_scatter(
                x=[None], y=[None], mode="markers", name=said, marker={"symbol": symbol, "size": 8, "color": FAINT}
            )


def _say_edges(
    fig: go.Figure, lines: Sequence[Line], values: Mapping[str, float], checked: Mapping[str, float]
) -> None:
    """Points along the lines that are not seen, and say what a line is."""
    at = [10, 20, 30]
    fig.add_scatter(
        x=np.concatenate([line.path[0, at] for line in lines]) if lines else [],
        y=np.concatenate([line.path[1, at] for line in lines]) if lines else [],
        mode="markers", marker={"size": 10, "opacity": 0}, name="edges", showlegend=False,
        customdata=[_said(line.edge.name, values, checked) for line in lines for _ in at],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def _said(name: str, values: Mapping[str, float], checked: Mapping[str, float]) -> str:
    said = named(name) + (f"<br>score {values[name]:.4g}" if name in values else "<br>no score")
    return said + (f"<br>exact {checked[name]:.4g}" if name in checked else "")


def _draw_nodes(
    fig: go.Figure, circuit: Circuit, values: Mapping[str, float], places: Mapping[str, tuple[float, float]]
) -> None:
    """A label in the place of each node, upon the lines; beneath it a point that says what runs in and out."""
    nodes, said = circuit.nodes, []
    labels = [_label(name, *places[name]) for name in nodes]
    fig.update_layout(annotations=[*fig.layout.annotations, *labels])  # one by one, plotly looks at all that are there
    for name in nodes:
        into = [edge.name for edge in circuit.listed if name in readers_of(edge.destination, circuit.shape)]
        out = [edge.name for edge in circuit.listed if edge.source.name == name]
        said.append(f"<b>{name}</b>{_listed('in', into, values)}{_listed('out', out, values)}")
    fig.add_scatter(
        x=[places[name][0] for name in nodes], y=[places[name][1] for name in nodes], mode="markers", name="nodes", showlegend=False,
        marker={"size": 20, "opacity": 0}, customdata=said, hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def _label(name: str, x: float, y: float) -> dict[str, Any]:
    kind = name if name in ("input", "logits") else "mlp" if name.startswith("m") else "head"
    return {
        "x": x, "y": y, "text": name.replace("a", "").replace("h", "") if kind == "head" else name, "showarrow": False,
        "font": {"size": 10, "color": INK}, "bgcolor": FILLS[kind], "bordercolor": BORDERS[kind], "borderwidth": 1, "borderpad": 2,
    }  # fmt: skip


def _listed(what: str, names: Sequence[str], values: Mapping[str, float]) -> str:
    """So many edges, those that score most first."""
    first = sorted(names, key=lambda name: -abs(values.get(name, 0.0)))
    shown = [f"{named(name)}  {values[name]:.4g}" if name in values else named(name) for name in first[:NAMED]]
    more = [f"and {len(first) - NAMED} more"] if len(first) > NAMED else []
    return "".join(f"<br>{line}" for line in [f"{len(names)} {what}", *shown, *more])


def _title(circuit: Circuit, values: Mapping[str, float], title: str | None, result: Scores | None) -> str:
    every = len(graph(circuit.shape))
    size = f"{len(circuit):,} of {every:,} edges, {len(circuit.nodes)} nodes"
    first = max(values, key=lambda name: abs(values[name]), default=None)
    units = _units(result) if isinstance(result, xr.Dataset) else ""
    width = "" if first is None else f"width: root of size, largest {values[first]:.3g}{units} at {named(first)}"
    lines = [one for one in (size if title is not None else "", width) if one]
    return (f"Circuit of {size}" if title is None else named(title)) + (
        f"<br><sup>{'; '.join(lines)}</sup>" if lines else ""
    )


def _units(result: xr.Dataset) -> str:
    units = str(result["clean_baseline"].attrs["units"])
    return "" if units == "1" else f" {units}"


def _axes(fig: go.Figure, shape: Shape, row: int) -> None:
    heads, mlps = shape.n_heads, shape.mlp != "none"
    ticks = [(float(head), str(head)) for head in range(heads)]
    ticks += [(heads + 0.3, "MLP")] if mlps else []
    fig.update_xaxes(
        title="head", showgrid=False, ticks="", showline=False, range=[-0.9, heads + (1.3 if mlps else -0.1)],
        tickvals=[at for at, _ in ticks], ticktext=[said for _, said in ticks], tickangle=0,
    )  # fmt: skip
    fig.update_yaxes(
        title="layer", showgrid=False, ticks="", showline=False, range=[-1.5, shape.n_layers + 0.65],
        tickvals=list(range(shape.n_layers)), ticktext=[str(layer) for layer in range(shape.n_layers)],
    )  # fmt: skip
    fig.update_layout(
        margin={"t": ABOVE, "b": 100}, hovermode="closest",
        legend={"y": -54 / (row * (shape.n_layers + 2)), "yanchor": "top", "x": 0.5, "xanchor": "center", "font": {"size": 12}},
    )  # fmt: skip
