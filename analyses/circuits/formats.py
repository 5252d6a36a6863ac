"""Circuits in the formats of others: EAP-IG's JSON, the folder that MIB takes, networkx and GraphML.

Checked against a file that EAP-IG itself wrote. In its format every head has keys and values of its own: where ours share them, an edge
into shared ones is written as one into each head that shares them, with an equal part of its score, and read back as their sum.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from analyses.circuits.circuit import Circuit, graph, readers_of, shape_of
from analyses.circuits.edges import Shape, sources
from analyses.circuits.scores import Scores, scores_by_name
from interp.config import ModelConfig
from interp.errors import ConfigError, InterpError, ResultError
from interp.files import check_free, make_folder, regular, write_whole
from interp.model import Transformer
from interp.strict_json import parse

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Of all edges, in the nine circuits of a folder for MIB."""

IMPORTANCES = "importances.json"


def write_eap_ig(path: Path | str, circuit: Circuit, *, overwrite: bool = False) -> None:
    """Write a circuit, with its scores, as EAP-IG's `to_json` does (Hanna et al. 2024, arXiv 2403.17806); an edge without a score has 0.

    Raises:
        ConfigError: a model without MLPs, or whose width is not known, which the format cannot say. InterpError: the file exists, or cannot
            be written.
    """
    text = _as_eap_ig(circuit)
    write_whole(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"), overwrite=overwrite)


def _as_eap_ig(circuit: Circuit) -> str:
    shape = _checked(circuit, "write_eap_ig").shape
    if wrong := [name for name, score in circuit.scores.items() if not np.isfinite(score)]:
        raise InterpError(
            f"write_eap_ig: the score of {wrong[0]} is {circuit.scores[wrong[0]]}, which the format cannot hold."
        )
    if shape.mlp == "none":
        raise ConfigError("write_eap_ig: in this format every layer has an MLP; write GraphML instead.")
    if shape.d_model is None:
        raise ConfigError(
            "write_eap_ig: the format holds the model's width; take the circuit of a model, or give its shape a d_model."
        )
    edges, nodes = dict[str, dict[str, Any]](), set[str]()
    for name, edge in graph(shape).items():
        readers = readers_of(edge.destination, shape)
        inside, score = name in circuit, circuit.scores.get(name, 0.0) / len(readers)
        for reader in readers:
            part = f"<{edge.destination.part}>" if edge.destination.head is not None else ""
            edges[f"{edge.source.name}->{reader}{part}"] = {"score": float(score), "in_graph": inside}
        nodes |= {edge.source.name, *readers} if inside else set()
    every = [*(source.name for source in sources(shape)), "logits"]
    held = {
        "cfg": {"n_layers": shape.n_layers, "n_heads": shape.n_heads, "parallel_attn_mlp": shape.parallel, "d_model": shape.d_model},
        "nodes": {name: {"in_graph": name in nodes} for name in every},
        "edges": edges,
    }  # fmt: skip
    return json.dumps(held, allow_nan=False)


def _checked(circuit: Circuit, who: str) -> Circuit:
    """The circuit. Raises InterpError for what is none."""
    if not isinstance(circuit, Circuit):
        raise InterpError(f"{who}: a circuit is a Circuit, got {type(circuit).__name__}.")
    return circuit


def read_eap_ig(path: Path | str, *, model: "Transformer | ModelConfig | Shape | None" = None) -> Circuit:
    """Read a circuit that EAP-IG or `write_eap_ig` wrote, with the scores of all edges, also of those that are not in it.

    Args:
        model: that it is of; needed where heads share keys and values, which the file does not say. An edge into shared ones is in the
            circuit if one into any of the heads that share them is.

    Raises InterpError, which says what is wrong, for a file that is none, or one of another model.
    """
    who = f"read_eap_ig: {path}"
    try:
        held = parse(regular(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InterpError(f"{who} is no circuit in EAP-IG's format: {error}.") from error
    cfg, listed = (_part(held, name, who) for name in ("cfg", "edges"))
    n_layers, n_heads, d_model = (_whole(cfg, name, who) for name in ("n_layers", "n_heads", "d_model"))
    parallel = cfg.get("parallel_attn_mlp", False) is True
    shape = Shape(n_layers, n_heads, n_heads, parallel=parallel, d_model=d_model) if model is None else shape_of(model)
    said = (shape.n_layers, shape.n_heads, shape.parallel)
    if said != (n_layers, n_heads, parallel) or shape.mlp == "none":
        raise InterpError(f"{who} is of a model of {n_layers} layers of {n_heads} heads; this one's shape is {shape}.")
    if len(listed) != (expected := _edges_there(shape)):  # before they are all named, for a file may say any size
        raise InterpError(f"{who} has {len(listed):,} edges; a model of its shape has {expected:,}.")
    inside, scores = set[str](), dict[str, float]()
    for name, edge in graph(shape).items():
        total = 0.0
        for reader in readers_of(edge.destination, shape):
            part = f"<{edge.destination.part}>" if edge.destination.head is not None else ""
            one = _part(listed, theirs := f"{edge.source.name}->{reader}{part}", who)
            score = one.get("score", 0.0)
            if (
                isinstance(score, bool)
                or not isinstance(score, (int, float))
                or not isinstance(one.get("in_graph"), bool)
            ):
                raise InterpError(
                    f"{who}: the edge {theirs} has no score that is a number, or does not say whether it is in the graph."
                )
            total += score
            inside |= {name} if one["in_graph"] else set()
        scores[name] = total
    return Circuit(shape, frozenset(inside), scores)


def write_mib(
    folder: Path | str,
    task: str,
    model: Transformer,
    circuits: Scores | Sequence[Circuit],
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the folder of one task and model that MIB takes (Mueller et al. 2025, arXiv 2504.13151): scores of all edges, or nine circuits.

    Args:
        folder: that holds one folder a task and model.
        circuits: a result or numbers by edge, written as `importances.json`; or nine circuits, of at most the shares in `SHARES` of all
            edges, in that order.
        name: of the model there, such as `gpt2`; None is the model's own.

    Returns:
        The folder that was written.

    Raises:
        InterpError: another number of circuits, one that is larger than its share, or as `write_eap_ig`. ResultError: scores that are none.
    """
    for what, given in (("task", task), ("name", name or model.name)):
        if not given or Path(given).name != given:
            raise InterpError(f"write_mib: the {what} {given!r} cannot be part of a folder's name; say another.")
    target = Path(folder) / f"{task.replace('_', '-')}_{name or model.name}"
    if isinstance(circuits, Sequence):
        if len(circuits) != len(SHARES):
            raise InterpError(f"write_mib: MIB takes {len(SHARES)} circuits, of shares {SHARES}; got {len(circuits)}.")
        for share, one in zip(SHARES, circuits, strict=True):
            if len(one) > share * len(graph(one.shape)):
                raise InterpError(
                    f"write_mib: a circuit of {len(one)} edges is larger than {share:.1%} of {len(graph(one.shape))}."
                )
        files = {f"{share}.json": one for share, one in zip(SHARES, circuits, strict=True)}
    else:
        by_name = scores_by_name(circuits, model, "write_mib")
        if len(by_name) > 1:
            raise ResultError(
                f"write_mib: a result of several methods ({', '.join(by_name)}); give the scores of one, see edge_scores."
            )
        scores = next(iter(by_name.values()))
        files = {IMPORTANCES: Circuit(shape_of(model), frozenset(), dict(scores))}
    written = {file: _as_eap_ig(one) for file, one in files.items()}  # before anything is made
    make_folder(target)
    for file in files:
        check_free(target / file, overwrite=overwrite)
    for file, text in written.items():
        write_whole(target / file, partial(Path.write_text, data=text, encoding="utf-8"), overwrite=overwrite)
    return target


def read_mib(folder: Path | str, *, model: "Transformer | ModelConfig | Shape | None" = None) -> Mapping[str, Circuit]:
    """Read such a folder: each file's circuit by its name without `.json`; of `importances` the scores are what matters.

    Raises InterpError for a folder without such files, or that holds pickles, which are never read; and as `read_eap_ig`.
    """
    there = Path(folder)
    files = sorted(there.glob("*.json")) if there.is_dir() else []
    if not files:
        pickled = (
            " It holds pickled files (.pt), which may run any code and are not read." if any(there.glob("*.pt")) else ""
        )
        raise InterpError(f"read_mib: {folder} is no folder with circuits as .json.{pickled}")
    return {file.stem: read_eap_ig(file, model=model) for file in files}


def to_networkx(circuit: Circuit) -> "nx.MultiDiGraph":
    """A circuit as a graph of networkx: nodes with `kind`, `layer` and `head`, edges keyed by their names with `part` and, where there is
    one, `score`. An edge into keys or values that heads share runs to each of them that is in the circuit, with its whole score each."""
    made = nx.MultiDiGraph()
    within = _checked(circuit, "to_networkx").nodes
    every = {source.name: source for source in sources(circuit.shape)}
    for node in within:
        source = every.get(node)
        kind = (
            "logits"
            if source is None
            else "input"
            if source.layer is None
            else "mlp"
            if source.head is None
            else "head"
        )
        place = {} if source is None else {"layer": source.layer, "head": source.head}
        made.add_node(node, kind=kind, **{name: value for name, value in place.items() if value is not None})
    for edge in circuit.listed:
        about = {"score": float(circuit.scores[edge.name])} if edge.name in circuit.scores else {}
        for reader in readers_of(edge.destination, circuit.shape):
            if reader in within:
                made.add_edge(edge.source.name, reader, key=edge.name, part=edge.destination.part, **about)
    return made


def write_graphml(path: Path | str, circuit: Circuit, *, overwrite: bool = False) -> None:
    """Write a circuit as GraphML, which Gephi, yEd and Cytoscape open; see `to_networkx`."""
    made = to_networkx(circuit)
    write_whole(Path(path), lambda temporary: nx.write_graphml(made, temporary), overwrite=overwrite)


def _part(held: Any, name: str, who: str) -> Mapping[str, Any]:
    found = held.get(name) if isinstance(held, Mapping) else None
    if not isinstance(found, Mapping):
        raise InterpError(f"{who} is no circuit in EAP-IG's format: it has no {name!r}.")
    return found


def _edges_there(shape: Shape) -> int:
    """How many edges a model of that shape has in this format."""
    heads = shape.n_heads
    below = [1 + layer * (heads + 1) for layer in range(shape.n_layers + 1)]
    return sum((3 * heads + 1) * one + (0 if shape.parallel else heads) for one in below[:-1]) + below[-1]


def _whole(held: Mapping[str, Any], name: str, who: str) -> int:
    value = held.get(name)
    if type(value) is not int or not 1 <= value <= 10**5:
        raise InterpError(f"{who} is no circuit in EAP-IG's format: {name} is {value!r}.")
    return value
