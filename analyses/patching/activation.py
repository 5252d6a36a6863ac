"""Activation patching over a grid of cells: put one value into a run at a time, and read how far the answer moves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.intervals import over_prompts
from analyses.patching.metrics import Custom, Metric, MetricReadout, Truth, metric_of
from analyses.patching.pairs import Pairs, Tokens, answer_ids, read_pairs
from analyses.patching.replacements import changes, check_replacement, means, values_of
from analyses.patching.sites import Site
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError, ResultError
from interp.interventions import Row
from interp.metrics import log_probabilities
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.tokenizer import PAD

WHO = "activation_patching"
DIRECTIONS = ("denoising", "noising")


def activation_patching(
    model: Transformer,
    clean: Prompt,
    corrupt: Prompt,
    *,
    answer: Tokens,
    wrong: Tokens | None = None,
    site: str = "resid_pre",
    direction: str | None = None,
    replacement: str = "resample",
    metric: str | Custom = "logit_difference",
    by_position: bool | None = None,
    layers: Sequence[int] | None = None,
    window: int = 1,
    reference: Prompt | None = None,
    vector: Float[Tensor, " d_model"] | None = None,
    align: bool = False,
    smallest_gap: float | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Change one value of a run at a time and read how far the answer moves, for a grid of places.

    Denoising puts the clean run's value into the corrupt run (Meng et al. 2022, arXiv 2202.05262, with the corrupt prompt of Wang et al.
    2022, arXiv 2211.00593) and finds what suffices; noising puts the corrupt run's value, or a replacement, into the clean run and finds
    what is necessary (Heimersheim and Nanda 2024, arXiv 2404.15255). The logit difference is the metric that Zhang and Nanda 2023
    (arXiv 2309.16042) recommend. It assumes prompts that are aligned position by position.

    Args:
        clean, corrupt: one prompt each, or as many; each pair of equal token length, unless `align`.
        answer: the token that is right for the clean prompt: text that is one token, or an id; one for all pairs or one per pair.
        wrong: what it is compared with; the logit difference needs it.
        site: `resid_pre`, `resid_mid`, `resid_post`, `attn_out`, `mlp_out`: the grid is layer x position; `z`, `q`, `k`, `v`,
            `pattern`: layer x head; `mlp_post`: layer x neuron.
        direction: `denoising` or `noising`; None is denoising for `resample`, and noising for the others.
        replacement: `resample`, the other run's value; `zero`; `mean`, over all positions of the reference prompts, or
            `mean_by_position`; `add`, the value itself with `vector` added.
        metric: `logit_difference`, `logit`, `probability`, `log_probability`, `cross_entropy`, `kl` (from the clean run's
            distribution), `rank`; or a function of logits [row, vocab] and the pair of each row [row] that returns [row].
        by_position: patch heads, patterns (by query) and neurons one position at a time; None and False: all positions together.
        layers: only these; None is all.
        window: patch this many adjacent layers together, centred on the cell's layer.
        reference: prompts over which the means are taken; None is those of the run that values would come from.
        vector: [d_model], for `add`.
        align: match pairs of unequal length by their common tokens and patch only matched positions, which the result names.
        smallest_gap: least difference of the baselines, in the metric's units, that an effect is normalised by.
        bos: see `Transformer.to_tokens`.
        max_bytes: bound on the memory of the sweep.
        progress: show a progress bar with the time left on standard error.

    Returns:
        A Dataset. `value` (prompt, layer, ...), the metric of the patched run, and `effect`, the same normalised: 0 at the corrupt
        baseline, 1 at the clean one. `clean_baseline` and `corrupt_baseline` (prompt). With several pairs also `effect_mean`,
        `effect_standard_error` and `effect_interval`, 95 % bootstrap over pairs. Dim `prompt` numbers the pairs; where a shorter
        pair has no position, or one is not matched, there is NaN.

    Raises:
        TokenError: a pair of unequal length (both token rows are shown), an answer of several tokens or out of range.
        ResultError: baselines too close together to normalise by.
        InterpError: a site, direction, replacement, metric, layer or window that cannot be.
    """
    method = _checked(model, site, direction, replacement, by_position, layers, window, vector)
    chosen = metric_of(metric)
    if chosen.name == "logit_difference" and wrong is None:
        raise InterpError(f"{WHO}: the logit difference needs wrong=, the answer to compare with.")
    pairs = read_pairs(model, clean, corrupt, bos=bos, align=align, who=WHO)
    if align and method.site.name == "pattern" and any(len(set(p)) != 1 for row in pairs.matched for p in row):
        raise InterpError(f"{WHO}: patterns of prompts of unequal length cannot be aligned.")
    answers = answer_ids(model, "answer", answer, len(pairs), WHO)
    wrongs = None if wrong is None else answer_ids(model, "wrong", wrong, len(pairs), WHO)
    reference_tokens = None if reference is None else model.to_tokens(reference, bos=bos)
    run = Experiment(model, pairs, answers, wrongs, max_bytes)
    values, baselines = run.patch(method, [chosen], reference_tokens, "patching" if progress else None)
    gap = smallest_gap if smallest_gap is not None else chosen.smallest_gap
    return _result(run, method, chosen, values[0], baselines[0], gap, {"bos": bos, "align": align})


@dataclass(frozen=True, eq=False)
class Method:
    """How a grid is patched."""

    site: Site
    direction: str
    replacement: str
    vector: Float[Tensor, " d_model"] | None = None


def _checked(
    model: Transformer,
    site: str,
    direction: str | None,
    replacement: str,
    by_position: bool | None,
    layers: Sequence[int] | None,
    window: int,
    vector: Tensor | None,
) -> Method:
    listed = None if layers is None else list(layers)
    where = Site.of(model, site, by_position=by_position, window=window, layers=listed, who=WHO)
    check_replacement(replacement, where, vector, model, WHO)
    if direction is None:
        direction = "denoising" if replacement == "resample" else "noising"
    if direction not in DIRECTIONS:
        raise InterpError(f"{WHO}: unknown direction {direction!r}; choose denoising or noising.")
    return Method(where, direction, replacement, vector)


class Experiment:
    """Pairs with their answers, on which grids can be patched."""

    def __init__(
        self,
        model: Transformer,
        pairs: Pairs,
        answers: Int[Tensor, " pair"],
        wrongs: Int[Tensor, " pair"] | None,
        max_bytes: int,
    ) -> None:
        self.model, self.pairs, self.answers, self.wrongs, self.max_bytes = model, pairs, answers, wrongs, max_bytes

    def patch(
        self,
        method: Method,
        metrics: Sequence[Metric],
        reference: Int[Tensor, "reference position"] | None,
        progress: str | None,
    ) -> tuple[Float[Tensor, "metric pair ..."], Float[Tensor, "metric two pair"]]:
        """The metrics of every cell of every pair, and of the clean and the corrupt run."""
        model, pairs, site = self.model, self.pairs, method.site
        noising = method.direction == "noising"
        base, source = (pairs.clean, pairs.corrupt) if noising else (pairs.corrupt, pairs.clean)
        matched = [[(i, j) if noising else (j, i) for i, j in row] for row in pairs.matched]
        names = site.all_hooks()
        averages = None
        if method.replacement.startswith("mean"):
            averages = self._means(method, source if reference is None else reference, names, base)
        values = torch.full((len(metrics), len(pairs), *site.sizes(base.shape[1])), torch.nan, dtype=model.dtype)
        baselines = torch.empty(len(metrics), 2, len(pairs), dtype=model.dtype)
        batches = list(self._batches(names))
        for number, batch in enumerate(batches):
            title = progress and (progress if len(batches) == 1 else f"{progress} {number + 1}/{len(batches)}")
            readout, other = self._readout(metrics, batch, base, source, noising)
            bases = values_of(model, base[batch], names)
            sources = averages if averages is not None else values_of(model, source[batch], names)
            rows, places = [], []
            for row, pair in enumerate(range(batch.start, batch.stop)):
                length = int((base[pair] != PAD).sum())
                change = changes(method.replacement, bases, sources, row, matched[pair], length, method.vector)
                for place, where in site.cells([at for at, _ in matched[pair]]):
                    rows.append(Row(where.interventions(change), row))
                    places.append((pair, *place))
            swept = sweep(model, base[batch], rows, readout, max_bytes=self.max_bytes, progress=title)
            index = tuple(torch.tensor(column) for column in zip(*places, strict=True))
            for m in range(len(metrics)):
                values[m][index] = swept.values[:, m].cpu()
            pair_of = (other, swept.base) if not noising else (swept.base, other)
            for side, found in enumerate(pair_of):
                baselines[:, side, batch] = found.T.cpu()
        return values, baselines

    def _readout(
        self,
        metrics: Sequence[Metric],
        batch: slice,
        base: Int[Tensor, "pair position"],
        source: Int[Tensor, "pair other"],
        noising: bool,
    ) -> tuple[MetricReadout, Float[Tensor, "pair metric"]]:
        """How the metrics are read in a batch of pairs, and what they are in the runs that nothing is put into."""
        model = self.model
        there, here = _last_normed(model, source[batch]), _last_normed(model, base[batch])
        log_p = log_probabilities(model.to_logits(here if noising else there)[:, 0])
        wrongs = None if self.wrongs is None else self.wrongs[batch]
        readout = MetricReadout(metrics, Truth(self.answers[batch], wrongs, log_p, batch.start))
        return readout, readout.read(model, there, torch.arange(len(there), device=there.device))

    def _means(
        self, method: Method, reference: Int[Tensor, "reference position"], names: list[str], base: Tensor
    ) -> dict[str, Tensor]:
        by_position = method.replacement == "mean_by_position"
        if by_position and reference.shape[1] < base.shape[1]:
            raise InterpError(
                f"{WHO}: the longest reference prompt has {reference.shape[1]} tokens, so there is no mean at position "
                f"{reference.shape[1]}; use 'mean', or longer references."
            )
        return means(self.model, reference, names, by_position)

    def _batches(self, names: Sequence[str]) -> Iterator[slice]:
        """Pairs whose values at the hook points fit into a quarter of the bound, twice; always at least one."""
        config, length = self.model.config, max(self.pairs.clean.shape[1], self.pairs.corrupt.shape[1])
        axes = [self.model.hook_points[name].axes for name in names]
        width = {"d_mlp": config.d_mlp, "key": config.n_heads * length}
        per_token = sum(max([config.d_model, *(width.get(axis, 0) for axis in row)]) for row in axes)
        per_pair = 3 * per_token * length * self.model.W_E.element_size()
        size = max(1, self.max_bytes // 4 // per_pair)
        for start in range(0, len(self.pairs), size):
            yield slice(start, min(start + size, len(self.pairs)))


@torch.no_grad()
def _last_normed(model: Transformer, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch one d_model"]:
    real = model.check_tokens(tokens)
    stream = model.run_blocks(model.embed(tokens), real=real)
    last = (tokens != PAD).sum(1) - 1
    normed: Tensor = model.ln_final(stream[torch.arange(len(tokens), device=tokens.device), last][:, None])
    return normed


def _result(
    run: Experiment,
    method: Method,
    metric: Metric,
    values: Float[Tensor, "pair ..."],
    baselines: Float[Tensor, "two pair"],
    smallest_gap: float,
    options: dict[str, Any],
) -> xr.Dataset:
    """The Dataset of a patched grid."""
    site, pairs = method.site, run.pairs
    gap = baselines[0] - baselines[1]
    check_gap(baselines, metric, smallest_gap, WHO)
    shape = (-1, *[1] * (values.ndim - 1))
    effect = (values - baselines[1].reshape(shape)) / gap.reshape(shape)
    at = ("prompt", *site.dims)
    share = f"share of the way from the corrupt to the clean {metric.long_name}"
    variables: dict[str, Variable] = {
        "effect": (at, effect, share, "1"),
        "value": (at, values, f"{metric.long_name} of the patched run", metric.units),
        "clean_baseline": (("prompt",), baselines[0], f"{metric.long_name} of the clean run", metric.units),
        "corrupt_baseline": (("prompt",), baselines[1], f"{metric.long_name} of the corrupt run", metric.units),
    }
    coords: dict[Any, Any] = {"layer": list(site.layers)}
    if site.inner_dim:
        coords[site.inner_dim] = np.arange(site.inner)
    if len(pairs) > 1:
        variables |= over_prompts("effect", effect.numpy(), site.dims, share, "1")
        coords["bound"] = ["lower", "upper"]
    return make(
        "activation_patching",
        variables,
        coords | pair_coords(run, method.direction),
        model=run.model,
        prompts={"clean": pairs.clean, "corrupt": pairs.corrupt},
        parameters={
            "site": site.name,
            "direction": method.direction,
            "replacement": method.replacement,
            "metric": metric.name,
            "by_position": site.by_position,
            "window": site.window,
            **options,
        },
    )


def pair_coords(run: Experiment, direction: str) -> dict[Any, Any]:
    """Coordinates: the tokens of both prompts, the answers, and, where lengths differ, which position belongs to which."""
    pairs, model = run.pairs, run.model
    base, other = ("clean", "corrupt") if direction == "noising" else ("corrupt", "clean")
    tokens = {"clean": pairs.clean, "corrupt": pairs.corrupt}
    equal = all(i == j for row in pairs.matched for i, j in row)
    coords: dict[Any, Any] = {"position": np.arange(tokens[base].shape[1])}
    for role in (base, other):
        dim = "position" if role == base or (equal and tokens[role].shape == tokens[base].shape) else f"{role}_position"
        coords |= token_coords(model, tokens[role], dim, f"{role}_")
    if not equal:
        matched = np.full(tokens[base].shape, -1)
        for number, row in enumerate(pairs.matched):
            for i, j in row:
                at, there = (i, j) if direction == "noising" else (j, i)
                matched[number, at] = there
        coords["matched_position"] = (("prompt", "position"), matched)
    ids = {"answer": run.answers} | ({} if run.wrongs is None else {"wrong": run.wrongs})
    return coords | {f"{role}_id": (("prompt",), values.cpu().numpy()) for role, values in ids.items()}


def check_gap(baselines: Float[Tensor, "two pair"], metric: Metric, smallest: float, who: str) -> None:
    """Raises ResultError where the clean and corrupt runs hardly differ, or are not numbers."""
    gap = baselines[0] - baselines[1]
    for number in (~(gap.abs() >= smallest)).nonzero().flatten().tolist():
        clean, corrupt = baselines[:, number].tolist()
        raise ResultError(
            f"{who}: pair {number}: the {metric.long_name} of the clean and the corrupt run are nearly the same ({clean:.4f} and "
            f"{corrupt:.4f} {metric.units if metric.units != '1' else ''}), so an effect between them means nothing. Use prompts, or an "
            "answer, on which the model differs, or set smallest_gap."
        )
