"""Pairs of runs with their answers, on which grids of changes are made through the sweep."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.patching.metrics import Metric, MetricReadout, Truth
from analyses.patching.pairs import Pairs, Tokens, read_answers, read_pairs
from analyses.patching.replacements import changes, check_replacement, means, values_of
from analyses.patching.sites import Site
from interp.errors import InterpError
from interp.interventions import Change, Row
from interp.metrics import log_probabilities
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import sweep
from interp.tokenizer import PAD

DIRECTIONS = ("denoising", "noising")

Run = tuple[Int[Tensor, "pair position"], Float[Tensor, "pair position d_model"] | None]
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
        if direction not in DIRECTIONS:
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
        max_bytes: int,
        who: str,
        corrupt_stream: Float[Tensor, "pair position d_model"] | None = None,
    ) -> None:
        self.model, self.pairs, self.answers, self.wrongs = model, pairs, answers, wrongs
        self.max_bytes, self.who, self._corrupt_stream = max_bytes, who, corrupt_stream

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
        bos: bool | None,
        align: bool,
        max_bytes: int,
        who: str,
    ) -> "Experiment":
        """Read prompts and answers as a user gives them. Raises TokenError or InterpError where they do not fit together."""
        pairs = read_pairs(model, clean, corrupt, bos=bos, align=align, who=who)
        answers, wrongs = read_answers(model, answer, wrong, metrics, len(pairs), who)
        return cls(model, pairs, answers, wrongs, max_bytes, who)

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
            only: places in the grid; None is all.
        """
        model, site = self.model, method.site
        averages = self.averages(method, reference)
        values = torch.full((len(metrics), len(self.pairs), *self.sizes(method)), torch.nan, dtype=model.dtype)
        baselines = torch.empty(len(metrics), 2, len(self.pairs), dtype=model.dtype)
        batches = list(self.batches(site.all_hooks()))
        for number, batch in enumerate(batches):
            title = progress and (progress if len(batches) == 1 else f"{progress} {number + 1}/{len(batches)}")
            base, source = self._sides(method, batch)
            readout = self.readout(metrics, batch)
            rows, places = [], []
            for row, change in enumerate(self.changes(method, batch, averages)):
                for place, where in site.cells(self.into(method, batch.start + row)):
                    if only is None or place in only:
                        rows.append(Row(where.interventions(change), row))
                        places.append((batch.start + row, *place))
            rows.append(Row())  # changes nothing: a batch in which no pair has a cell still has its baselines
            swept = sweep(model, base[0], rows, readout, residual=base[1], max_bytes=self.max_bytes, progress=title)
            if places:
                index = tuple(torch.tensor(column) for column in zip(*places, strict=True))
                for m in range(len(metrics)):
                    values[m][index] = swept.values[:-1, m].cpu()
            other = readout.read(model, last_normed(model, *source), torch.arange(len(source[0]), device=model.device))
            for side, found in enumerate((swept.base, other) if method.noising else (other, swept.base)):
                baselines[:, side, batch] = found.T.cpu()
        return values, baselines

    def sizes(self, method: Method) -> tuple[int, ...]:
        """Of the grid."""
        return method.site.sizes((self.pairs.clean if method.noising else self.pairs.corrupt).shape[1])

    def into(self, method: Method, pair: int) -> list[int]:
        """The positions of a pair's run that may be changed."""
        return [clean if method.noising else corrupt for clean, corrupt in self.pairs.matched[pair]]

    def changes(self, method: Method, batch: slice, averages: dict[str, Tensor] | None) -> Iterator[dict[str, Change]]:
        """What is done at each hook point to each of the pairs of a batch."""
        names, noising = method.site.all_hooks(), method.noising
        base, source = self._sides(method, batch)
        bases = values_of(self.model, *base, names)
        sources = averages if averages is not None else values_of(self.model, *source, names)
        for row, tokens in enumerate(base[0]):
            matched = [(i, j) if noising else (j, i) for i, j in self.pairs.matched[batch.start + row]]
            length = int((tokens != PAD).sum())
            yield changes(method.replacement, bases, sources, row, matched, length, method.vector)

    @torch.no_grad()
    def readout(self, metrics: Sequence[Metric], batch: slice) -> MetricReadout:
        """How the metrics are read in a batch of pairs."""
        clean = last_normed(self.model, self.pairs.clean[batch])
        log_p = log_probabilities(self.model.to_logits(clean)[:, 0])
        wrongs = None if self.wrongs is None else self.wrongs[batch]
        return MetricReadout(metrics, Truth(self.answers[batch], wrongs, log_p, batch.start))

    def _sides(self, method: Method, batch: slice) -> tuple[Run, Run]:
        """The runs that are changed, and those that values come from."""
        stream = None if self._corrupt_stream is None else self._corrupt_stream[batch]
        clean, corrupt = (self.pairs.clean[batch], None), (self.pairs.corrupt[batch], stream)
        return (clean, corrupt) if method.noising else (corrupt, clean)

    def averages(self, method: Method, reference: Int[Tensor, "reference position"] | None) -> dict[str, Tensor] | None:
        """The means that a method puts in, by hook name; None where it puts in none."""
        if not method.replacement.startswith("mean"):
            return None
        base, source = self._sides(method, slice(None))
        tokens, by_position = source[0] if reference is None else reference, method.replacement == "mean_by_position"
        if by_position and tokens.shape[1] < base[0].shape[1]:
            raise InterpError(
                f"{self.who}: the longest reference prompt has {tokens.shape[1]} tokens, so there is no mean at position "
                f"{tokens.shape[1]}; use 'mean', or longer references."
            )
        return means(self.model, tokens, method.site.all_hooks(), by_position)

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


def last_normed(
    model: Transformer,
    tokens: Int[Tensor, "batch position"],
    residual: Float[Tensor, "batch position d_model"] | None = None,
) -> Float[Tensor, "batch one d_model"]:
    """The final stream of each row's last token, after the final norm; `residual` is what enters block 0, if not the embedding."""
    real = model.check_tokens(tokens)
    stream = model.run_blocks(model.embed(tokens) if residual is None else residual, real=real)
    last = (tokens != PAD).sum(1) - 1
    normed: Tensor = model.ln_final(stream[torch.arange(len(tokens), device=tokens.device), last][:, None])
    return normed
