"""Two more criteria of a circuit (Wang et al. 2022, arXiv 2211.00593, section 4): is anything missing, and is anything superfluous?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.answers import Tokens
from analyses.circuits.circuit import Circuit
from analyses.circuits.edges import chosen, sources
from analyses.circuits.faithfulness import run_all
from analyses.circuits.patching import pair_coords
from analyses.circuits.running import check_circuits
from analyses.circuits.runs import Runs
from analyses.intervals import over_prompts
from analyses.patching.metrics import Custom, Metric, metric_of
from analyses.results import Variable, make
from interp.errors import InterpError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

NodeSets = Sequence[Sequence[str]]


@torch.no_grad()
@takes_whole("draws", "seed", "max_bytes", least={"draws": 0, "max_bytes": 1})
def completeness(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    circuit: Circuit,
    knocked_out: NodeSets | None = None,
    draws: int = 10,
    seed: int = 0,
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    reference: Prompt | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Whether the circuit breaks as the whole model does when the same nodes are taken out of both.

    A circuit may be faithful while it lacks a backup that the model has: take out the same set K of its nodes from both, and the metrics
    of C less K and of M less K come apart (Wang et al. 2022, arXiv 2211.00593, section 4.1). A node is taken out with all edges out of it.

    Args:
        knocked_out: the sets, each a list of names or globs of nodes; None is every node of the circuit by itself, then random sets.
        draws: how many random sets, each node of the circuit in it with a chance of one half; seed: of those.
        The others: as in `faithfulness`.

    Returns:
        A Dataset over `knocked_out`: `circuit_value` and `model_value` (prompt, knocked_out), the metrics; `incompleteness`, the second
        less the first, 0 where the circuit is complete; the baselines; with several pairs means, standard errors and intervals.

    Raises:
        InterpError: a node that the model does not have, no nodes to take out, or as `faithfulness`.
    """
    who = "completeness"
    check_circuits(model, [circuit], who)
    sets = _sets(circuit, knocked_out, draws, seed, True, who)
    runs, chosen_metric, read = _runs(
        model, clean, corrupt, answer, wrong, replacement, metric, position, reference, bos, max_bytes, who
    )
    whole = Circuit.whole(model)
    every = [part.without(out) for out in sets for part in (circuit, whole)]
    values, baselines = run_all(runs, every, "completeness" if progress else None)
    mine, theirs = values[:, 0::2], values[:, 1::2]
    said = chosen_metric.long_name
    each = {
        "circuit_value": (mine, f"{said} of the circuit without the nodes"),
        "model_value": (theirs, f"{said} of the model without the nodes"),
        "incompleteness": (theirs - mine, f"{said} of the model less that of the circuit, both without the nodes"),
    }
    parameters = {"circuit": list(circuit), "draws": draws}
    return _result(
        "circuit_completeness", runs, chosen_metric, each, baselines, sets, parameters, read, replacement, bos, seed
    )


@torch.no_grad()
@takes_whole("draws", "seed", "max_bytes", least={"draws": 0, "max_bytes": 1})
def minimality(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    circuit: Circuit,
    knocked_out: NodeSets | None = None,
    draws: int = 5,
    seed: int = 0,
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    reference: Prompt | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Whether every node of the circuit matters: how far the metric moves when it goes too, once some others are gone.

    A node that another one backs up matters only where that one is gone as well, so the change is measured in the circuit less each of
    several sets K, and the largest counts (Wang et al. 2022, arXiv 2211.00593, section 4.2).

    Args:
        knocked_out: the sets K; None is the empty set, then random ones. A set that has the node already says nothing about it.
        draws, seed: as in `completeness`. The others: as in `faithfulness`.

    Returns:
        A Dataset over `source`, the nodes that write in the circuit. `change` (prompt, knocked_out, source), the metric of C less K and the
        node, less that of C less K, NaN where K has it; `largest` (source), the mean over pairs that is largest by size, and
        `largest_knocked_out`, the set that it is found with; the baselines; with several pairs means, standard errors and intervals.

    Raises:
        InterpError: as `completeness`.
    """
    who = "minimality"
    check_circuits(model, [circuit], who)
    if not (nodes := _writers(circuit)):
        raise InterpError(f"{who}: there are no nodes to take out: the circuit has no edges.")
    sets = _sets(circuit, knocked_out, draws, seed, False, who)
    runs, chosen_metric, read = _runs(
        model, clean, corrupt, answer, wrong, replacement, metric, position, reference, bos, max_bytes, who
    )
    remaining = [circuit.without(out) if out else circuit for out in sets]
    every = [*remaining, *(left.without(node) for left in remaining for node in nodes)]
    values, baselines = run_all(runs, every, "minimality" if progress else None)
    before, after = values[:, : len(sets)], values[:, len(sets) :].reshape(-1, len(sets), len(nodes))
    there = torch.tensor([[node in out for node in nodes] for out in sets], dtype=torch.bool)
    change = (after - before[:, :, None]).masked_fill(there, torch.nan)
    mean = np.nan_to_num(change.mean(0).numpy(), nan=0.0)
    best = np.abs(mean).argmax(0)
    said = f"change of the {chosen_metric.long_name} of the circuit where the node goes too"
    result = _result(
        "circuit_minimality", runs, chosen_metric, {"change": (change, said)}, baselines, sets,
        {"circuit": list(circuit), "draws": draws}, read, replacement, bos, seed, nodes,
    )  # fmt: skip
    labels = result["knocked_out"].to_numpy()
    result["largest"] = (
        ("source",),
        mean[best, np.arange(len(nodes))],
        {"long_name": f"largest mean {said}", "units": chosen_metric.units},
    )
    result["largest_knocked_out"] = (("source",), labels[best], {"long_name": "what else is gone then", "units": "1"})
    return result


def _writers(circuit: Circuit) -> list[str]:
    """The nodes with edges out of them, in the order of the forward pass."""
    writing = {edge.source.name for edge in circuit.listed}
    return [source.name for source in sources(circuit.shape) if source.name in writing]


def _sets(
    circuit: Circuit, given: NodeSets | None, draws: int, seed: int, each: bool, who: str
) -> list[tuple[str, ...]]:
    """Sets of nodes to take out: those given, else each by itself (or the empty one), then random ones."""
    if given is not None:
        if isinstance(given, str) or any(isinstance(one, str) for one in given):
            raise InterpError(f"{who}: knocked_out is a list of lists of nodes, such as [['a3.h1', 'm2']].")
        found = [
            tuple(node.name for node in chosen(sources(circuit.shape), one, "node", who)) if one else ()
            for one in given
        ]
    else:
        nodes, rng = _writers(circuit), np.random.default_rng(seed % 2**64)
        found = [(node,) for node in nodes] if each else [()]
        found += [
            tuple(node for node, out in zip(nodes, rng.random(len(nodes)) < 0.5, strict=True) if out)
            for _ in range(draws)
        ]
    found = list(dict.fromkeys(found))
    if not found or (each and not any(found)):
        raise InterpError(f"{who}: there are no nodes to take out.")
    return [one for one in found if one or not each]


def _runs(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    answer: Tokens,
    wrong: Tokens | None,
    replacement: str,
    metric: str | Custom,
    position: Position,
    reference: Prompt | None,
    bos: bool | None,
    max_bytes: int,
    who: str,
) -> tuple[Runs, Metric, Any]:
    found, read = metric_of(metric), given_position(position, who)
    runs = Runs.of(
        model, clean, corrupt, sources(model.config), answer=answer, wrong=wrong, metric=found, position=read, direction="noising",
        replacement=replacement, reference=reference, bos=bos, max_bytes=max_bytes, who=who,
    )  # fmt: skip
    return runs, found, read


def _result(
    kind: str,
    runs: Runs,
    metric: Metric,
    each: dict[str, tuple[Tensor, str]],
    baselines: Float[Tensor, "two pair"],
    sets: Sequence[tuple[str, ...]],
    parameters: dict[str, Any],
    read: Any,
    replacement: str,
    bos: bool | None,
    seed: int,
    nodes: Sequence[str] | None = None,
) -> xr.Dataset:
    dims = ("knocked_out",) if nodes is None else ("knocked_out", "source")
    variables: dict[str, Variable] = {
        name: (("prompt", *dims), value, said, metric.units) for name, (value, said) in each.items()
    }
    if len(runs.run.pairs) > 1:
        for name, (value, said) in each.items():
            variables |= over_prompts(name, value.numpy(), dims, said, metric.units)
    variables |= runs.baseline_variables(baselines)
    coords: dict[Any, Any] = {
        "knocked_out": np.array([" ".join(one) or "nothing" for one in sets], dtype=object),
        "n_nodes": ("knocked_out", [len(one) for one in sets]),
    }
    coords |= {} if nodes is None else {"source": np.array(list(nodes), dtype=object)}
    return make(
        kind,
        variables,
        coords | pair_coords(runs, ()),
        model=runs.run.model,
        prompts=runs.prompts,
        parameters={"replacement": replacement, "metric": metric.name, "position": read, "bos": bos, **parameters},
        seed=seed,
    )
