"""How faithful circuits of every size are, and the areas that sum it up."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy import integrate

from analyses.answers import Tokens
from analyses.circuits.circuit import Circuit, counted, graph, shape_of
from analyses.circuits.edges import sources
from analyses.circuits.faithfulness import ratio, run_all
from analyses.circuits.patching import pair_coords
from analyses.circuits.runs import Runs
from analyses.circuits.scores import Scores, scores_by_name
from analyses.intervals import resampled
from analyses.patching.grid import check_gap
from analyses.patching.metrics import Custom, metric_of
from analyses.results import Variable, make
from interp.errors import InterpError, ResultError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

WHO = "faithfulness_curve"
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of all edges, as in MIB (Mueller et al. 2025, arXiv 2504.13151)."""

RANKINGS = ("signed", "absolute")


@torch.no_grad()
@takes_whole("random", "seed", "max_bytes", least={"random": 0, "max_bytes": 1})
def faithfulness_curve(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    scores: "Scores | Mapping[str, Scores]",
    shares: Sequence[float] = SHARES,
    greedy: bool = False,
    random: int = 3,
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
    """How faithful the circuits are that the edges with the largest scores make, from few edges to all, and the areas CPR and CMD.

    As in MIB (Mueller et al. 2025, arXiv 2504.13151): CPR, the integrated circuit performance ratio, is the area under f where edges are
    ranked by signed score; CMD, the integrated circuit-model distance, the area of |1 - f| where they are ranked by size; each by
    trapezoids over the shares on a linear axis, f of the means over pairs (see `faithfulness`). As there, every circuit is pruned before it
    runs, random ones too, which with zeros or means may change what it computes (`Circuit.pruned`).

    Args:
        scores: a result of `edge_patching` or `edge_attribution` (one of several methods gives a curve for each), scores by edge, or
            several of these by name.
        shares: of all edges of the model, rounded down to a number of edges, rising, from 0 to 1; at least two.
        greedy: choose from the logits on, see `Circuit.from_scores`.
        random: how many random rankings to set beside them, and seed: of those.
        The others: as in `faithfulness`.

    Returns:
        A Dataset. `faithfulness` (estimator, ranking, share), with its 95 % bootstrap interval over pairs; `value` (prompt, estimator,
        ranking, share), the metric of each circuit's run; `n_edges` (estimator, ranking, share), how many are left after pruning; `cpr`
        and `cmd` (estimator) with intervals; `random_faithfulness` (draw, share), `random_cpr` and `random_cmd` (draw); and the baselines,
        as `faithfulness` has them.

    Raises:
        InterpError: shares that are none, or of more edges than have a score. ResultError: scores that are none, or a gap between the
        mean baselines below `smallest_gap`. The others: as `faithfulness`.
    """
    check_gap(smallest_gap, WHO)
    every = len(graph(shape_of(model)))
    counts = _counts(shares, every)
    chosen, read = metric_of(metric), given_position(position, WHO)
    by_method = scores_by_name(scores, model, WHO)
    runs = Runs.of(
        model, clean, corrupt, sources(model.config), answer=answer, wrong=wrong, metric=chosen, position=read, direction="noising",
        replacement=replacement, reference=reference, bos=bos, max_bytes=max_bytes, who=WHO,
    )  # fmt: skip
    circuits = [
        Circuit.from_scores(one, model=model, count=count, absolute=ranking == "absolute", greedy=greedy).pruned()
        for one in by_method.values()
        for ranking in RANKINGS
        for count in counts
    ]
    draws = [_random_scores(model, seed + number) for number in range(random)]
    at_random = [Circuit.from_scores(one, model=model, count=count).pruned() for one in draws for count in counts]
    values, baselines = run_all(
        runs, [*circuits, *at_random, Circuit.none(model)], "faithfulness" if progress else None
    )
    whole = np.concatenate([values.numpy(), baselines[0].numpy()[:, None]], axis=1).astype(np.float64)
    _check_gap_of_means(whole, chosen.smallest_gap if smallest_gap is None else smallest_gap)
    sizes = (len(by_method), len(RANKINGS), len(counts))
    dims = ("estimator", "ranking", "share")
    mine = whole[:, [*range(len(circuits)), -2, -1]]

    def areas(some: Float[np.ndarray, "prompt many"]) -> Float[np.ndarray, "two estimator"]:
        f = ratio(some).reshape(sizes)
        return np.stack([area(f[:, 0], shares), area(np.abs(1 - f[:, 1]), shares)])

    f, (cpr, cmd) = ratio(mine).reshape(sizes), areas(mine)
    bounds, area_bounds = resampled(mine, ratio).reshape(2, *sizes), resampled(mine, areas)
    f_random = ratio(whole)[len(circuits) :].reshape(random, len(counts))
    said = f"share of the {chosen.long_name} that the circuit keeps, of the means over pairs"
    variables: dict[str, Variable] = {
        "faithfulness": (dims, f, said, "1"),
        "faithfulness_interval": (("bound", *dims), bounds, f"95 % interval over pairs: {said}", "1"),
        "value": (
            ("prompt", *dims),
            mine[:, :-2].reshape(-1, *sizes),
            f"{chosen.long_name} of the circuit's run",
            chosen.units,
        ),
        "n_edges": (dims, np.array([len(one) for one in circuits]).reshape(sizes), "edges left after pruning", "1"),
        "cpr": (("estimator",), cpr, "CPR: area under the faithfulness, edges ranked by signed score", "1"),
        "cmd": (("estimator",), cmd, "CMD: area of |1 - faithfulness|, edges ranked by size", "1"),
        "cpr_interval": (("bound", "estimator"), area_bounds[:, 0], "95 % interval over pairs: CPR", "1"),
        "cmd_interval": (("bound", "estimator"), area_bounds[:, 1], "95 % interval over pairs: CMD", "1"),
        "random_faithfulness": (("draw", "share"), f_random, f"{said}, of random circuits", "1"),
        "random_cpr": (("draw",), area(f_random, shares), "CPR of random rankings", "1"),
        "random_cmd": (("draw",), area(np.abs(1 - f_random), shares), "CMD of random rankings", "1"),
    }
    variables |= runs.baseline_variables(baselines)
    variables["none_baseline"] = (
        ("prompt",),
        values[:, -1],
        f"{chosen.long_name} of the circuit without edges",
        chosen.units,
    )
    coords: dict[Any, Any] = {
        "estimator": list(by_method),
        "ranking": list(RANKINGS),
        "share": [float(share) for share in shares],
        "bound": ["lower", "upper"],
    }
    return make(
        "faithfulness_curve",
        variables,
        coords | pair_coords(runs, ()),
        model=model,
        prompts=runs.prompts,
        parameters={
            "replacement": replacement, "metric": chosen.name, "position": read, "random": random, "bos": bos, "greedy": greedy,
        },
        seed=seed,
    )  # fmt: skip


def area(values: Float[np.ndarray, "*many share"], shares: Sequence[float]) -> Float[np.ndarray, "*many"]:
    """By trapezoids, from the first share to the last."""
    return np.asarray(integrate.trapezoid(values, np.asarray(shares, float), axis=-1))


def _counts(shares: Sequence[float], every: int) -> list[int]:
    listed = list(shares)
    counts = [counted(None, share, every) for share in listed]
    if len(listed) < 2 or any(a >= b for a, b in pairwise(listed)):
        raise InterpError(f"{WHO}: shares must rise, and be two at least; got {listed}.")
    return counts


def _random_scores(model: Transformer, seed: int) -> dict[str, float]:
    """A rank for every edge, each order as likely as any other."""
    every = list(graph(shape_of(model)))
    return dict(zip(every, np.random.default_rng(seed % 2**64).random(len(every)).tolist(), strict=True))


def _check_gap_of_means(whole: Float[np.ndarray, "prompt many"], smallest: float) -> None:
    """Raise ResultError where the means of the whole model and of no edges are nearly the same: nothing can be said between them."""
    nothing, everything = whole[:, -2].mean(), whole[:, -1].mean()
    if not abs(everything - nothing) >= smallest or everything == nothing:
        raise ResultError(
            f"{WHO}: the mean metric of the whole model and of no edges are nearly the same ({everything:.4f} and {nothing:.4f}), so "
            "no circuit lies between them. Use prompts, or an answer, on which the model differs, or set smallest_gap."
        )
