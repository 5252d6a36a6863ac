"""How faithful a circuit is: how much of the metric the model keeps when everything else carries another run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.answers import Tokens
from analyses.circuits.circuit import Circuit
from analyses.circuits.edges import sources
from analyses.circuits.patching import pair_coords
from analyses.circuits.running import check_circuits, logits_of_circuit, values_of_circuits
from analyses.circuits.runs import Runs
from analyses.intervals import over_prompts, resampled
from analyses.patching.grid import check_gap, left_out, left_out_variable, normalised
from analyses.patching.metrics import Custom, metric_of
from analyses.results import Variable, make
from interp.errors import InterpError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

Circuits = Circuit | Sequence[Circuit] | Mapping[str, Circuit]


@torch.no_grad()
@takes_whole("max_bytes", least={"max_bytes": 1})
def run_circuit(
    model: Transformer,
    circuit: Circuit,
    clean: Prompt,
    corrupt: Prompt,
    *,
    replacement: str = "resample",
    reference: Prompt | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
) -> Float[Tensor, "pair position vocab"]:
    """The logits of the model in which only the edges of a circuit carry the clean run.

    Every reader reads, from each source whose edge to it is in the circuit, what that source writes in this very run; from every other
    source, what it writes in the corrupt run (or the replacement's value). Norms, heads and MLPs are computed anew. With all edges this is
    the model on the clean prompt, with none the model on the corrupt one.

    Args:
        clean, corrupt: one prompt each, or as many; each pair of equal token length.
        replacement, reference, bos, max_bytes: as in `edge_patching`.

    Returns:
        Logits at every position, NaN beyond the end of a prompt.

    Raises:
        InterpError: what is no circuit, or one of a model of another shape; a replacement that cannot be. TokenError: as `edge_patching`.
    """
    who = "run_circuit"
    check_circuits(model, [circuit], who)
    pairs = len(model.to_tokens(clean, bos=bos))
    runs = Runs.of(
        model, clean, corrupt, sources(model.config), answer=torch.zeros(pairs, dtype=torch.long), wrong=None,
        metric=metric_of("logit"), position=-1, direction="noising", replacement=replacement, reference=reference, bos=bos,
        max_bytes=max_bytes, who=who,
    )  # fmt: skip
    return logits_of_circuit(runs, circuit)


@torch.no_grad()
@takes_whole("random", "seed", "max_bytes", least={"random": 0, "max_bytes": 1})
def faithfulness(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    circuits: Circuits,
    random: int = 10,
    seed: int = 0,
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    reference: Prompt | None = None,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """How much of the metric is left when only the edges of a circuit carry the clean run, see `run_circuit`.

    f = (m(C) - m(none)) / (m(whole) - m(none)), with m the metric: 1 where the circuit does what the model does, 0 where it does no more
    than no edges at all, above 1 where it leaves out what works against the answer. A mean near 1 may hide prompts far from it on either
    side (Miller et al. 2024, arXiv 2407.08734), so it is given prompt by prompt, beside random circuits of the same number of edges.

    Args:
        clean, corrupt, answer, wrong, replacement, metric, position, reference, smallest_gap, bos, max_bytes, progress: as in
            `edge_patching`, in the direction of noising.
        circuits: one, several, or by name.
        random: how many random circuits of as many edges to set beside each.
        seed: of those.

    Returns:
        A Dataset over `circuit`, each with its `n_edges` and `n_nodes`. `value` (prompt, circuit), the metric of its run; `faithfulness`
        (prompt, circuit); `faithfulness_of_means` (circuit), the same of the means over pairs, as benchmarks have it (Mueller et al. 2025,
        arXiv 2504.13151), with its 95 % bootstrap interval over pairs; `random_faithfulness` (draw, circuit), that of random circuits;
        `clean_baseline`, `corrupt_baseline`, `none_baseline` (prompt), the last of the circuit without edges, and `left_out`. With several
        pairs also means, standard errors and intervals of `faithfulness`.

    Raises:
        InterpError, ResultError, TokenError, ConfigError: as `edge_patching`, and for what is no circuit of this model.
    """
    who = "faithfulness"
    check_gap(smallest_gap, who)
    given = named(circuits, who)
    check_circuits(model, list(given.values()), who)
    chosen, read = metric_of(metric), given_position(position, who)
    runs = Runs.of(
        model, clean, corrupt, sources(model.config), answer=answer, wrong=wrong, metric=chosen, position=read, direction="noising",
        replacement=replacement, reference=reference, bos=bos, max_bytes=max_bytes, who=who,
    )  # fmt: skip
    drawn = [Circuit.random(model, len(one), seed + number) for number in range(random) for one in given.values()]
    values, baselines = run_all(runs, [*given.values(), *drawn, Circuit.none(model)], "circuits" if progress else None)
    ends = torch.stack([baselines[0], values[:, -1]])
    effect = normalised(values[:, : len(given)], ends, chosen, smallest_gap, who)
    said = f"share of the {chosen.long_name} that the circuit keeps"
    variables: dict[str, Variable] = {
        "value": (
            ("prompt", "circuit"),
            values[:, : len(given)],
            f"{chosen.long_name} of the circuit's run",
            chosen.units,
        ),
        "faithfulness": (("prompt", "circuit"), effect, said, "1"),
    }
    whole = np.concatenate([values.numpy(), baselines[0].numpy()[:, None]], axis=1)
    of_means, bounds = ratio(whole), resampled(whole[:, [*range(len(given)), -2, -1]], ratio)
    mean_said = f"{said}, of the means over pairs"
    variables |= {
        "faithfulness_of_means": (("circuit",), of_means[: len(given)], mean_said, "1"),
        "faithfulness_of_means_interval": (("bound", "circuit"), bounds, f"95 % interval over pairs: {mean_said}", "1"),
        "random_faithfulness": (
            ("draw", "circuit"),
            of_means[len(given) :].reshape(random, len(given)),
            f"{mean_said}, of random circuits of as many edges",
            "1",
        ),
    }
    if len(runs.run.pairs) > 1:
        variables |= over_prompts("faithfulness", effect.numpy(), ("circuit",), said, "1", kept=~left_out(ends).numpy())
    variables["left_out"] = left_out_variable(ends)
    variables |= runs.baseline_variables(baselines)
    variables["none_baseline"] = (
        ("prompt",),
        ends[1],
        f"{chosen.long_name} of the circuit without edges",
        chosen.units,
    )
    coords: dict[Any, Any] = {
        "circuit": list(given),
        "n_edges": ("circuit", [len(one) for one in given.values()]),
        "n_nodes": ("circuit", [len(one.nodes) for one in given.values()]),
        "bound": ["lower", "upper"],
    }
    return make(
        "circuit_faithfulness",
        variables,
        coords | pair_coords(runs, ()),
        model=model,
        prompts=runs.prompts,
        parameters={
            "replacement": replacement, "metric": chosen.name, "position": read, "random": random, "bos": bos,
            "circuits": {name: list(one) for name, one in given.items()},
        },
        seed=seed,
    )  # fmt: skip


def named(circuits: Circuits, who: str) -> dict[str, Circuit]:
    """Circuits by name. Raises InterpError for what are none."""
    if isinstance(circuits, Mapping):
        return {str(name): one for name, one in circuits.items()}
    if isinstance(circuits, Circuit):
        return {"circuit": circuits}
    if isinstance(circuits, (str, bytes)) or not isinstance(circuits, Sequence):
        raise InterpError(f"{who}: give a Circuit, a list of them, or circuits by name; got {type(circuits).__name__}.")
    return {f"circuit {number + 1}": one for number, one in enumerate(circuits)}


def run_all(
    runs: Runs, circuits: Sequence[Circuit], progress: str | None
) -> tuple[Float[Tensor, "pair circuit"], Float[Tensor, "two pair"]]:
    """The metric of every circuit on every pair, those of equal edges run once; and the baselines, which are checked."""
    once = {one.edges: one for one in circuits if isinstance(one, Circuit)}
    values, baselines = values_of_circuits(runs, list(once.values()), progress)
    runs.run.check_finite([runs.metric], baselines[None])
    place = {edges: number for number, edges in enumerate(once)}
    return values[:, [place[one.edges] for one in circuits]], baselines


def ratio(whole: Float[np.ndarray, "prompt many"]) -> Float[np.ndarray, " fewer"]:
    """How faithful circuits are on the mean, from their metrics, then that of no edges, then that of the whole model."""
    mean = whole.mean(0)
    gap = mean[-1] - mean[-2]
    found: np.ndarray = (mean[:-2] - mean[-2]) / (gap if gap else np.nan)
    return found
