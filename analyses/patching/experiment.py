"""Pairs of runs with their answers, on which grids of changes are made through the sweep."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.answers import Tokens
from analyses.patching.metrics import Metric, MetricReadout, Truth
from analyses.patching.pairs import Pairs, read_answers, read_pairs
from analyses.patching.replacements import averages_for, changes, check_replacement, values_of
from analyses.patching.sites import Site
from interp.errors import InterpError, is_known
from interp.finite import not_finite
from interp.metrics import log_probabilities
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import sweep
from interp.sweep.interventions import Change, Row
from interp.sweep.readouts import Position
from interp.tokenizer import PAD
from interp.view import check_stream
from interp.whole_numbers import whole_number

DIRECTIONS = ("denoising", "noising")

Run = tuple[Int[Tensor, "pair _"], Float[Tensor, "pair _ d_model"] | None]
"""Tokens, and the stream that enters block 0 where it is not their embedding."""


@dataclass(frozen=True, eq=False)
class Method:
    """How a grid is patched."""

    site: Site
    direction: str
    replacement: str
    vector: Float[Tensor, " d_model"] | None = None

    @property
    def noising(self) -> bool:
        """Whether the clean run is the one that is changed."""
        return self.direction == "noising"

    @classmethod
    def of(
        cls,
        model: Transformer,
        site: str,
        *,
        who: str,
        direction: str | None = None,
        replacement: str = "resample",
        by_position: bool | None = None,
        layers: Sequence[int] | None = None,
        window: int = 1,
        vector: Tensor | None = None,
    ) -> "Method":
        """Check what a user asks for. Raises InterpError where it cannot be."""
        listed = None if layers is None else list(layers)
        where = Site.of(model, site, by_position=by_position, window=window, layers=listed, who=who)
        check_replacement(replacement, where, vector, model, who)
        if direction is None:
            direction = "denoising" if replacement == "resample" else "noising"
        if not is_known(direction, DIRECTIONS):
            raise InterpError(f"{who}: unknown direction {direction!r}; choose denoising or noising.")
        return cls(where, direction, replacement, vector)

    def parameters(self) -> dict[str, object]:
        """For a result's provenance."""
        site = self.site
        return {
            "site": site.name,
            "direction": self.direction,
            "replacement": self.replacement,
            "by_position": site.by_position,
            "window": site.window,
        }


class Experiment:
    """Pairs with their answers, on which grids can be patched.

    Args:
        position: where the answer is read, see `Pairs.read_at`.
        max_bytes: bound on the memory of a sweep.
        who: the analysis, for error messages.
        corrupt_stream: what enters block 0 in the corrupt runs; None is the embedding of their tokens.
    """

    def __init__(
        self,
        model: Transformer,
        pairs: Pairs,
        answers: Int[Tensor, " pair"],
        wrongs: Int[Tensor, " pair"] | None,
        position: Position,
        max_bytes: int,
        who: str,
        corrupt_stream: Float[Tensor, "pair position d_model"] | None = None,
    ) -> None:
        self.model, self.pairs, self.answers, self.wrongs = model, pairs, answers, wrongs
        self.max_bytes = whole_number(max_bytes, f"{who}: max_bytes", InterpError, least=1)
        self.who, self._corrupt_stream = who, corrupt_stream
        if corrupt_stream is not None:
            check_stream(corrupt_stream, model, who, expected=pairs.corrupt.shape)
        self.read_at = pairs.read_at(position, who)

    @classmethod
    def of(
        cls,
        model: Transformer,
        clean: Prompt,
        corrupt: Prompt,
        *,
        answer: Tokens,
        wrong: Tokens | None,
        metrics: Sequence[Metric],
        position: Position,
        bos: bool | None,
        align: bool | None,
        max_bytes: int,
        who: str,
    ) -> "Experiment":
        """Read prompts and answers as a user gives them. Raises TokenError or InterpError where they do not fit together."""
        pairs = read_pairs(model, clean, corrupt, bos=bos, align=align, who=who)
        answers, wrongs = read_answers(model, answer, wrong, metrics, len(pairs), who)
        return cls(model, pairs, answers, wrongs, position, max_bytes, who)

    @torch.no_grad()
    def patch(
        self,
        method: Method,
        metrics: Sequence[Metric],
        reference: Int[Tensor, "reference position"] | None,
        progress: str | None,
        only: Collection[tuple[int, ...]] | None = None,
    ) -> tuple[Float[Tensor, "metric pair ..."], Float[Tensor, "metric two pair"]]:
        """The metrics of every cell of every pair, and of the clean and the corrupt run; NaN where a pair has no such cell.

        Args:
            reference: prompts that means are taken over; None is those of the run that values would come from.
            only: (pair, place in its grid); None is all.

        Raises:
            ResultError: a metric of a run that nothing is patched in is no number; it names the first hook point that is none.
        """
        model, site = self.model, method.site
        averages = self.averages(method, reference)
        dtype = torch.promote_types(model.dtype, torch.float32)  # of results, also of a model in half precision
        values = torch.full((len(metrics), len(self.pairs), *self.sizes(method)), torch.nan, dtype=dtype)
        baselines = torch.empty(len(metrics), 2, len(self.pairs), dtype=dtype)
        batches = list(self.batches(site.all_hooks()))
        for number, pairs in enumerate(batches):
            title = progress and (progress if len(batches) == 1 else f"{progress} {number + 1}/{len(batches)}")
            batch = self.prepare(method, metrics, pairs)
            rows, places = [], []
            for row, change in enumerate(self.changes(method, batch, averages)):
                for place, where in site.cells(self.into(method, pairs.start + row)):
                    if only is None or (pairs.start + row, *place) in only:
                        rows.append(Row(where.interventions(change), row))
                        places.append((pairs.start + row, *place))
            rows.append(Row())  # changes nothing: a batch in which no pair has a cell still has its baselines
            tokens, stream = batch.base
            swept = sweep(model, tokens, rows, batch.readout, residual=stream, max_bytes=self.max_bytes, progress=title)
            if places:
                index = tuple(torch.tensor(column) for column in zip(*places, strict=True))
                for m in range(len(metrics)):
                    values[m][index] = swept.values[:-1, m].cpu().to(dtype)
            both = (swept.base, batch.other) if method.noising else (batch.other, swept.base)
            for side, found in enumerate(both):
                baselines[:, side, pairs] = found.T.cpu().to(dtype)
        self.check_finite(metrics, baselines)
        return values, baselines

    def check_finite(self, metrics: Sequence[Metric], baselines: Float[Tensor, "metric two pair"]) -> None:
        """Raise ResultError where a baseline is NaN or infinite: no effect could be measured from it."""
        for metric, side, pair in (~torch.isfinite(baselines)).nonzero().tolist():
            role, tokens = ("clean", self.pairs.clean) if side == 0 else ("corrupt", self.pairs.corrupt)
            stream = None if side == 0 or self._corrupt_stream is None else self._corrupt_stream[pair : pair + 1]
            what = f"{self.who}: pair {pair}: the {metrics[metric].long_name} of the {role} run"
            raise not_finite(self.model, tokens[pair : pair + 1], what, residual=stream)

    @torch.no_grad()
    def prepare(self, method: Method, metrics: Sequence[Metric], pairs: slice) -> "Batch":
        """Run both prompts of some pairs."""
        model, names = self.model, method.site.all_hooks()
        base, source = self._sides(method, pairs)
        base_at, source_at = (side[pairs] for side in (self.read_at if method.noising else self.read_at[::-1]))
        bases, base_normed = values_of(model, *base, names, base_at)
        sources, other_normed = values_of(model, *source, names, source_at)
        log_p = None
        if any(metric.distribution for metric in metrics):
            log_p = log_probabilities(model.to_logits(base_normed if method.noising else other_normed)[:, 0])
        wrongs = None if self.wrongs is None else self.wrongs[pairs]
        readout = MetricReadout(metrics, Truth(self.answers[pairs], wrongs, log_p, pairs.start), position=base_at)
        other = readout.read(model, other_normed, torch.arange(len(other_normed), device=model.device))
        return Batch(pairs, base, base_at, bases, sources, readout, other)

    def sizes(self, method: Method) -> tuple[int, ...]:
        """Of the grid."""
        return method.site.sizes((self.pairs.clean if method.noising else self.pairs.corrupt).shape[1])

    def lengths(self, method: Method) -> list[int]:
        """Tokens of each prompt that is patched."""
        clean, corrupt = self.pairs.lengths
        return clean if method.noising else corrupt

    def into(self, method: Method, pair: int) -> list[int]:
        """The positions of a pair's run that may be changed."""
        return [clean if method.noising else corrupt for clean, corrupt in self.pairs.matched[pair]]

    def changes(
        self, method: Method, batch: "Batch", averages: dict[str, Tensor] | None
    ) -> Iterator[dict[str, Change]]:
        """What is done at each hook point to each of the pairs of a batch."""
        sources = batch.sources if averages is None else averages
        for row, tokens in enumerate(batch.base[0]):
            pair = self.pairs.matched[batch.pairs.start + row]
            matched = [(i, j) if method.noising else (j, i) for i, j in pair]
            length = int((tokens != PAD).sum())
            yield changes(method.replacement, batch.bases, sources, row, matched, length, method.vector)

    def _sides(self, method: Method, batch: slice) -> tuple[Run, Run]:
        """The runs that are changed, and those that values come from."""
        stream = None if self._corrupt_stream is None else self._corrupt_stream[batch]
        clean, corrupt = (self.pairs.clean[batch], None), (self.pairs.corrupt[batch], stream)
        return (clean, corrupt) if method.noising else (corrupt, clean)

    def averages(self, method: Method, reference: Int[Tensor, "reference position"] | None) -> dict[str, Tensor] | None:
        """The means that a method puts in, by hook name; None where it puts in none."""
        _, source = self._sides(method, slice(None))
        tokens, longest = source[0] if reference is None else reference, max(self.lengths(method))
        return averages_for(self.model, method.replacement, tokens, longest, method.site.all_hooks(), self.who)

    def batches(self, names: Sequence[str]) -> Iterator[slice]:
        """Pairs whose values at the hook points fit into a quarter of the bound, twice; always at least one."""
        config, length = self.model.config, max(self.pairs.clean.shape[1], self.pairs.corrupt.shape[1])
        axes = [self.model.hook_points[name].axes for name in names]
        width = {"d_mlp": config.d_mlp, "key": config.n_heads * length}
        per_token = sum(max([config.d_model, *(width.get(axis, 0) for axis in row)]) for row in axes)
        per_pair = 3 * per_token * length * self.model.W_E.element_size()
        size = max(1, self.max_bytes // 4 // per_pair)
        for start in range(0, len(self.pairs), size):
            yield slice(start, min(start + size, len(self.pairs)))


@dataclass(frozen=True, eq=False)
class Batch:
    """Some pairs, both of whose prompts have been run.

    Args:
        pairs: which.
        base: what is run with changes.
        read_at: where the answer is read in each of those.
        bases, sources: values at the hook points of the site, of those runs and of the others, by name.
        readout: of the metrics.
        other: [pair, metric], the metrics of the runs that values come from.
    """

    pairs: slice
    base: Run
    read_at: list[int]
    bases: dict[str, Tensor]
    sources: dict[str, Tensor]
    readout: MetricReadout
    other: Float[Tensor, "pair metric"]
