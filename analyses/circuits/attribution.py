"""Edge attribution: gradients rank all edges at once, then the sweep says what the best ones really do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float

from analyses.answers import Tokens
from analyses.circuits.edges import edges
from analyses.circuits.edges import sources as every_source
from analyses.circuits.estimates import chosen_methods, estimates
from analyses.circuits.patching import edge_coords, pair_coords, patch_edges
from analyses.circuits.runs import Runs
from analyses.intervals import over_prompts
from analyses.patching.methodology import rank_correlation
from analyses.patching.metrics import Custom, metric_of
from analyses.results import Variable, make
from interp.errors import InterpError
from interp.model import Transformer
from interp.modes import ordinary
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

WHO = "edge_attribution"


@ordinary()
@takes_whole("steps", "verify", several=["layers"])
def edge_attribution(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    method: str | Sequence[str] = "eap_ig_inputs",
    steps: int = 5,
    verify: int = 20,
    sources: Sequence[str] | str | None = None,
    destinations: Sequence[str] | str | None = None,
    layers: Sequence[int] | None = None,
    direction: str = "noising",
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    position: Position = -1,
    reference: Prompt | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Estimate the effect of every edge from gradients, and patch the edges that come first in earnest.

    The estimate is a slope of the metric by what the edge's reader reads, before its norm, times what its source writes in the other run
    less what it writes in this one, summed over positions. The methods differ in the slope:

    - `eap`: in the run that is patched (Syed et al. 2023, arXiv 2310.10348).
    - `eap_ig_inputs`: the mean over runs whose input goes from the other run's to this one's (Hanna et al. 2024, arXiv 2403.17806), which
      sees past a saturated softmax but may get the signs of small edges wrong.
    - `eap_ig_activations`: the mean over runs in which the input, or the heads of one layer, or one MLP, are set to something between.
    - `clean_corrupted`: the mean of those in the two runs.
    - `relp` (RelP, Rezaei Jafari et al. 2025, arXiv 2508.21258): in the run that is patched, made linear: norms divide by constants, the
      reader's own too; an activation and a soft cap of the logits are the line through zero and their value; of a gate and what it
      scales either gets half; patterns are constants, so that edges into queries and keys get exactly 0.
    - `atp_star` (AtP*, Kramár et al. 2024, arXiv 2403.00745, sections 3.1 and 3.2): as `eap`, but for edges into queries and keys what the
      head reads is computed anew, softmax and all, and how far that moves is multiplied by the slope by it. The size of every estimate
      is its mean size with no slope through what one block writes, over all blocks but the reader's own (GradDrop), so that effects
      which cancel are not missed; its sign is that with all blocks, positive where that estimate is 0. With no other block nothing is
      left out. A model whose norm of queries and keys ties all heads together cannot have it.

    Methods in one call share their runs. For each pair `eap` and `relp` need one run and its gradient, `eap_ig_inputs` `steps`,
    `eap_ig_activations` `steps` for each part, `clean_corrupted` two, and `atp_star` one run, a gradient for each block and one more, and
    a head for each edge into queries and keys.

    Args:
        method: one of these, or several.
        steps: runs of `eap_ig_inputs`, and of each part in `eap_ig_activations`. As in their code this run's share is k / steps, for inputs
            k = 0 to steps - 1, for activations 1 to steps.
        verify: how many edges to patch exactly, those with the largest estimates by size (mean over pairs); 0 is none. Of several
            methods, so many of each: together as many as differ.
        The others: as in `edge_patching`, but that the metric must have a gradient.

    Returns:
        A Dataset over `edge`, each with its `source` and `destination`. `estimate` (prompt, edge), the estimated change of the metric (a
        peer whose score is a change of the loss has the opposite sign); `change`, the exact one of the edges that were checked, NaN
        elsewhere, and `error`, estimate minus change. `rank_correlation`: Spearman's between their means over the edges that were checked
        (NaN for fewer than two). `clean_baseline`, `corrupt_baseline` (prompt). With several pairs also means, standard errors and
        intervals of `estimate` and `change`. With a list of methods `estimate`, `error`, `rank_correlation` and what is said of
        `estimate` over pairs are also by `estimator`; choose one by `result.sel(estimator="eap")`.

    Raises:
        InterpError: a method that is unknown or named twice, or none; a metric without a gradient, a number of steps below 1, a negative
            `verify`, or as `edge_patching`.
        ConfigError: as `edge_patching`; `atp_star` of a model with `qk_norm="whole"`.
        TokenError, ResultError: as `edge_patching`.
    """
    methods = chosen_methods(method, model.config, WHO)
    for what, given, least in (("steps", steps, 1), ("verify", verify, 0)):
        if given < least:
            raise InterpError(f"{WHO}: {what} must be {least} or more, got {given}.")
    read = given_position(position, WHO)
    chosen = metric_of(metric)
    found = edges(model.config, sources=sources, destinations=destinations, layers=layers, who=WHO)
    runs = Runs.of(
        model, clean, corrupt, every_source(model.config), answer=answer, wrong=wrong, metric=chosen, position=read,
        direction=direction, replacement=replacement, reference=reference, bos=bos, max_bytes=max_bytes, who=WHO,
    )  # fmt: skip
    with torch.no_grad(), progress_bar(progress):
        every, baselines = estimates(runs, found, methods, steps)
        estimate = every.numpy()  # [method, prompt, edge]
        best = np.flatnonzero(np.any([_largest(one, verify) for one in estimate], axis=0))
        values = baselines.new_empty(len(runs.run.pairs), 0)
        if len(best):
            values, _ = patch_edges(runs, [found[number] for number in best], False, progress)
    runs.run.check_finite([chosen], baselines[None])
    change = np.full(estimate.shape[1:], np.nan, dtype=estimate.dtype)
    change[:, best] = (values - baselines[0 if runs.noising else 1][:, None]).numpy()
    agreement = np.array([_agreement(one[:, best], change[:, best]) for one in estimate])
    several = not isinstance(method, str)
    by = ("estimator",) if several else ()
    shown: Any = slice(None) if several else 0
    said = f"first-order estimate: change of the {chosen.long_name}"
    said_change = f"exact, where checked: change of the {chosen.long_name}"
    variables: dict[str, Variable] = {
        "estimate": ((*by, "prompt", "edge"), estimate[shown], said, chosen.units),
        "change": (("prompt", "edge"), change, said_change, chosen.units),
        "error": (
            (*by, "prompt", "edge"), (estimate - change)[shown], "estimate minus exact change, where checked", chosen.units,
        ),
        "rank_correlation": (by, agreement[shown], "Spearman correlation over the checked edges", "1"),
    }  # fmt: skip
    if len(runs.run.pairs) > 1:
        first = estimate.swapaxes(0, 1) if several else estimate[0]
        variables |= over_prompts("estimate", first, (*by, "edge"), said, chosen.units)
        variables |= over_prompts("change", change, ("edge",), said_change, chosen.units)
    variables |= runs.baseline_variables(baselines)
    return make(
        "edge_attribution",
        variables,
        edge_coords(found) | pair_coords(runs, ("edge",)) | ({"estimator": methods} if several else {}),
        model=model,
        prompts=runs.prompts,
        parameters={
            "method": methods if several else method, "steps": steps, "verify": verify, "direction": direction, "replacement": replacement,
            "metric": chosen.name, "position": read, "sources": sources, "destinations": destinations, "layers": layers, "bos": bos,
        },
    )  # fmt: skip


def _largest(estimate: Float[np.ndarray, "pair edge"], count: int) -> Bool[np.ndarray, " edge"]:
    """Whether an edge is among so many with the largest estimates by size; one that has none for some pair is not."""
    size = np.where(np.isfinite(estimate).all(0), np.abs(estimate.mean(0)), -1.0)
    first = np.argsort(-size, kind="stable")[:count]
    largest = np.zeros(len(size), dtype=bool)
    largest[first] = size[first] >= 0
    return largest


def _agreement(estimate: Float[np.ndarray, "pair edge"], change: Float[np.ndarray, "pair edge"]) -> float:
    """Spearman's correlation between means over pairs, over the edges that have both."""
    both = np.stack([estimate.mean(0), change.mean(0)])
    both = both[:, np.isfinite(both).all(0)]
    return float(rank_correlation(both)[0, 1]) if both.shape[1] > 1 else np.nan
