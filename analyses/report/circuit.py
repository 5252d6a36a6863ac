"""The circuit behind an answer: what `interp circuit` and the report compute and show."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from rich.table import Table
from rich.text import Text

from analyses.circuits import (
    Circuit,
    circuit_stability,
    compare_methods,
    edge_attribution,
    edge_patching,
    edge_scores,
    faithfulness,
    faithfulness_curve,
)
from analyses.circuits.edges import edges
from analyses.circuits.estimates import METHODS, chosen_methods
from analyses.circuits.runs import REPLACEMENTS
from analyses.circuits.scores import helping, shape_of_result
from analyses.intervals import FEWEST_PROMPTS
from analyses.patching.metrics import metric_of
from analyses.plots import plot, plot_circuit
from analyses.report.section import Shown, shown
from analyses.report.steps import Step
from interp.errors import InterpError, is_known, nearest
from interp.model import Transformer
from interp.sweep.readouts import given_position

EXACT = "exact"
WHO = "circuit"
SHOWN = 10

EDGES = 50
"""Of a circuit, before it is pruned, where nobody says how many."""

READ = {
    "circuit_edges": (
        "The edges with the largest effects: how far the answer moves when one reader reads one source as it is in the corrupt run, "
        "everything else staying as it was."
    ),
    "circuit": (
        "The edges of the circuit, layers upward. Width is the size of an edge's score, colour whether it helps or hurts the answer; "
        "edges that lie on no path from the input to the logits are left out."
    ),
    "circuit_faithfulness": (
        "How much of the metric is left when only these edges carry the clean run: 1 is all of it. Beside it random circuits of as many "
        "edges, and each pair by itself, for a mean may hide what cancels."
    ),
    "circuit_curve": (
        "The same for circuits of every size. CPR is the area under the curve of edges ranked by signed score, CMD the area between 1 "
        "and the curve of edges ranked by size."
    ),
    "circuit_stability": "How often an edge is chosen when the pairs are drawn anew: what of a circuit is the model's, what the sample's.",
    "circuit_methods": "Every approximation beside the exact effects, edge by edge.",
}
"""Each result, in the order in which they are shown, and how to read it. `circuit` is drawn from the edges."""


def check_circuit(
    model: Transformer, *, method: str, count: int, replacement: str, metric: str, position: int, verify: int
) -> None:
    """Raise InterpError, before the model runs, for a circuit that cannot be looked for."""
    if method != EXACT:
        if not is_known(method, METHODS):
            raise InterpError(f"{WHO}: unknown method {method!r}. {nearest(method, [EXACT, *METHODS])}")
        chosen_methods(method, model.config, WHO)
        if not metric_of(metric).differentiable:
            raise InterpError(
                f"{WHO}: the metric {metric} has no gradient, which {method} follows; take --method exact."
            )
    metric_of(metric)
    if not is_known(replacement, REPLACEMENTS):
        raise InterpError(f"{WHO}: unknown replacement {replacement!r}. {nearest(replacement, list(REPLACEMENTS))}")
    given_position(position, WHO)
    every = count_of(model)
    if not 1 <= count <= every:
        raise InterpError(f"{WHO}: {count} edges asked for; the model has {every:,}.")
    if not 0 <= verify <= every:
        raise InterpError(f"{WHO}: {verify} edges to verify; the model has {every:,}.")


def count_of(model: Transformer) -> int:
    """How many edges the model has."""
    return len(edges(model.config, who=WHO))


def usual_count(model: Transformer) -> int:
    """How many edges make a circuit where nobody says so."""
    return min(EDGES, count_of(model))


def circuit_steps(
    model: Transformer,
    pairs: Mapping[str, Any],
    results: dict[str, xr.Dataset],
    *,
    method: str = EXACT,
    count: int = 50,
    signed: bool = False,
    verify: int = 20,
    compare: bool = False,
    options: Mapping[str, Any] | None = None,
    keep: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> list[Step]:
    """How to get every result of `READ`, in order.

    Args:
        pairs: `clean`, `corrupt`, `answer` and `wrong`.
        results: where the earlier steps' results will be.
        method: `exact`, or a method of `edge_attribution`, of which the first `verify` edges are patched exactly.
        count: of edges in the circuit, before it is pruned; signed: ranked by signed score instead of size.
        compare: all methods beside each other too.
        options: `replacement`, `metric`, `position`.
        keep: a folder for the finished parts of exact effects.
    """
    asked: dict[str, Any] = {**pairs, **(options or {}), "progress": progress}
    several = not isinstance(pairs["clean"], str) and len(pairs["clean"]) > 1

    def ranked() -> xr.Dataset:
        if method == EXACT:
            return edge_patching(model, **asked, keep=keep)
        return edge_attribution(model, **asked, method=method, verify=verify)

    def kept() -> xr.Dataset:
        return faithfulness(model, **asked, circuits={WHO: circuit_of(results, count, signed)}, seed=seed)

    steps: list[Step] = [
        ("circuit_edges", ranked),
        ("circuit_faithfulness", kept),
        ("circuit_curve", lambda: faithfulness_curve(model, **asked, scores=results["circuit_edges"], seed=seed)),
    ]
    if several:
        stable = partial(circuit_stability, count=count, absolute=not signed, seed=seed)
        steps.append(("circuit_stability", lambda: stable(results["circuit_edges"])))
    if compare:
        steps.append(("circuit_methods", lambda: compare_methods(model, **asked, keep=keep, seed=seed)))
    return steps


def circuit_of(results: Mapping[str, xr.Dataset], count: int, signed: bool) -> Circuit:
    """The circuit that the edges make, pruned. Raises InterpError where nothing is left of it."""
    found = Circuit.from_scores(results["circuit_edges"], count=count, absolute=not signed).pruned()
    if not found:
        raise InterpError(
            f"{WHO}: none of the first {count} edges lies on a path of them from the input to the logits; ask for more (--edges)."
        )
    return found


def shown_circuit(results: Mapping[str, xr.Dataset]) -> Circuit:
    """The circuit whose faithfulness was measured, with the scores of its edges."""
    edges_of = json.loads(results["circuit_faithfulness"].attrs["parameters"])["circuits"][WHO]
    scores = edge_scores(results["circuit_edges"])
    return Circuit(
        shape_of_result(results["circuit_edges"]), frozenset(edges_of), {name: scores[name] for name in edges_of}
    )


def figures(results: Mapping[str, xr.Dataset]) -> list[Shown]:
    """The figures of these results, each with how to read it; in the place of one that could not be computed stands why."""

    def graph() -> go.Figure:
        found = results["circuit_edges"]
        exact = found if found.attrs["kind"] == "edge_patching" else None
        return plot_circuit(shown_circuit(results), exact=exact, title=f"circuit · {found.attrs['model']}")

    found: list[Shown] = []
    for name, read in READ.items():
        if name == "circuit":
            found += shown(results, name, read, lambda *_: graph(), "circuit_edges", "circuit_faithfulness")
        else:
            found += shown(results, name, read, plot)
    return found


def circuit_sentence(edges_found: xr.Dataset, kept: xr.Dataset) -> str:
    """The size of the circuit, how faithful it is beside random ones, and its strongest edges."""
    scores = edge_scores(edges_found)
    best = sorted(scores, key=lambda name: -abs(scores[name]))[:3]
    units = edges_found["clean_baseline"].attrs["units"]
    units = "" if units == "1" else f" {units}"
    value = float(kept["faithfulness_of_means"][0])
    low, high = kept["faithfulness_of_means_interval"][:, 0].to_numpy()
    between = f" (95 % interval {low:.2f} to {high:.2f})" if np.isfinite(low) else ""
    at_random = kept["random_faithfulness"].to_numpy()[:, 0]
    how = "exactly patched" if edges_found.attrs["kind"] == "edge_patching" else "estimated"
    strongest = ", ".join(f"{name} ({scores[name]:+.2f}{units})" for name in best)
    return (
        f"{int(kept['n_edges'][0])} of {edges_found.sizes['edge']:,} edges keep {_two(value)} of the {_metric(kept)}{between}"
        f"{_beside_random(value, at_random)}; the strongest, {how}, where positive ones help the answer: {strongest}."
    )


def _beside_random(value: float, at_random: np.ndarray) -> str:
    """How the share that a circuit keeps stands beside the mean of random circuits, if some were drawn: whether it is closer to 1."""
    drawn = at_random[np.isfinite(at_random)]
    if not len(drawn) or not np.isfinite(value):
        return ""
    mean = float(drawn.mean())
    better = abs(value - 1) < abs(mean - 1)
    return f", where random circuits of as many edges keep {_two(mean)} on the mean" + (
        "" if better else ", which is no worse"
    )


def _two(value: float) -> str:
    """Two digits, without a sign before nothing."""
    return f"{round(value, 2) + 0.0:.2f}"


def _metric(kept: xr.Dataset) -> str:
    return str(kept["clean_baseline"].attrs["long_name"]).removesuffix(" of the clean run")


def rows(results: Mapping[str, xr.Dataset]) -> Table:
    """The strongest edges: score, with pairs enough its interval, and what was found exactly where scores are estimates."""
    found = results["circuit_edges"]
    scores = edge_scores(found)
    estimated = found.attrs["kind"] == "edge_attribution"
    table = Table("edge", title="strongest edges (positive: helps)", title_justify="left")
    table.add_column("estimate" if estimated else "effect", justify="right")
    change = found["change"].mean("prompt").to_numpy()
    several = found.sizes["prompt"] >= FEWEST_PROMPTS
    checked = estimated and bool(np.isfinite(change).any())
    if checked:
        table.add_column("exact", justify="right")
    if several and not estimated:
        table.add_column("95 % interval", justify="right")
    names = found["edge"].to_numpy().tolist()
    sign = helping(found)
    for name in sorted(scores, key=lambda one: -abs(scores[one]))[:SHOWN]:
        at = names.index(name)
        row: Sequence[str | Text] = [Text(name), f"{scores[name]:+.3f}"]
        if checked:
            row = [*row, "" if np.isnan(change[at]) else f"{sign * change[at]:+.3f}"]
        elif several and not estimated:
            low, high = sorted(sign * found["change_interval"].to_numpy()[:, at])
            row = [*row, f"{low:+.3f} to {high:+.3f}" if np.isfinite(low) else ""]
        table.add_row(*row)
    return table
