"""Pairs of runs between whose values edges are patched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.answers import Tokens
from analyses.circuits.edges import Destination, Edge, Source
from analyses.circuits.written import Written, averages, bytes_per_token
from analyses.patching.experiment import Experiment
from analyses.patching.metrics import Metric, MetricReadout, Truth
from analyses.patching.replacements import check_reference, check_used
from analyses.results import Variable
from interp.errors import InterpError, is_known, nearest
from interp.metrics import log_probabilities
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep.readouts import Position
from interp.tokenizer import PAD

REPLACEMENTS = ("resample", "zero", "mean", "mean_by_position")
DIRECTIONS = ("noising", "denoising")


@dataclass(frozen=True, eq=False)
class Batch:
    """Some pairs, both of whose prompts have been run.

    Args:
        pairs: which.
        tokens: [pair, position], what is run with changes.
        lengths: of those prompts.
        read_at: where the answer is read in them.
        own: what sources write in those runs.
        other: what they write in the others.
        readout: of the metric.
    """

    pairs: slice
    tokens: Int[Tensor, "pair position"]
    lengths: Sequence[int]
    read_at: list[int]
    own: Written
    other: Written
    readout: MetricReadout

    def read(self, runs: Written) -> Float[Tensor, " pair"]:
        """The metric of the runs that are changed, or of the others."""
        return self.readout.read(runs.model, runs.normed, torch.arange(len(runs.normed), device=runs.normed.device))[
            :, 0
        ]


@dataclass(frozen=True, eq=False)
class Together:
    """Edges into what the heads of a layer read, or into one MLP, or the logits.

    Args:
        into: those readers.
        numbers: of the edges.
        sources, readers: of each edge, as places in `moved` and in `into`.
        moved: [pair, source, position, d_model], what sources write in the other run less what they write in this one.
    """

    into: list[Destination]
    numbers: Int[Tensor, " edge"]
    sources: Int[Tensor, " edge"]
    readers: Int[Tensor, " edge"]
    moved: Float[Tensor, "pair source position d_model"]


@dataclass(frozen=True, eq=False)
class Plan:
    """Which sources some edges have; and by what they run into, their numbers, and the places of their sources and of their readers."""

    sources: list[Source]
    groups: list[tuple[list[Destination], Tensor, Tensor, Tensor]]

    @classmethod
    def of(cls, found: Sequence[Edge]) -> "Plan":
        """Made once for all batches."""
        place: dict[str, int] = {}
        sources: list[Source] = []
        into: dict[int, tuple[dict[str, tuple[int, Destination]], list[tuple[int, int, int]]]] = {}
        for number, edge in enumerate(found):
            if edge.source.name not in place:
                place[edge.source.name] = len(sources)
                sources.append(edge.source)
            end = edge.destination
            readers, rows = into.setdefault(2 * end.read + (end.part == "mlp"), ({}, []))
            at, _ = readers.setdefault(end.name, (len(readers), end))
            rows.append((number, place[edge.source.name], at))
        groups = [
            ([end for _, end in readers.values()], *torch.tensor(rows).unbind(1)) for readers, rows in into.values()
        ]
        return cls(sources, groups)  # type: ignore[arg-type]


class Runs:
    """Pairs, in one of which edges carry other values.

    Args:
        run: the pairs with their answers.
        noising: whether the clean run is the one that is changed.
        replacement: one of `REPLACEMENTS`.
        reference: prompts that means are taken over; None is those of the run that values would come from.

    Raises:
        InterpError: an unknown direction or replacement; reference prompts without a mean, or too short for one by position.
    """

    def __init__(
        self,
        run: Experiment,
        metric: Metric,
        direction: str,
        replacement: str,
        reference: Int[Tensor, "prompt position"] | None,
        sources: Sequence[Source],
    ) -> None:
        for what, given, known in (("direction", direction, DIRECTIONS), ("replacement", replacement, REPLACEMENTS)):
            if not is_known(given, known):
                raise InterpError(f"{run.who}: unknown {what} {given!r}. {nearest(given, known)}")
        check_used(reference, replacement, run.who)
        self.run, self.metric, self.noising = run, metric, direction == "noising"
        self._replacement, self._reference = replacement, reference
        self._means: dict[str, Tensor] | None = None
        self._planned: tuple[Sequence[Edge], Plan] | None = None
        if replacement.startswith("mean"):
            by_position, tokens = (
                replacement == "mean_by_position",
                self._sides()[1] if reference is None else reference,
            )
            if by_position:
                check_reference(tokens, max(self.lengths), run.who)
            self._means = averages(run.model, tokens, sources, by_position, run.max_bytes // 4)

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: Transformer,
        clean: Prompt,
        corrupt: Prompt,
        sources: Sequence[Source],
        *,
        answer: Tokens,
        wrong: Tokens | None,
        metric: Metric,
        position: Position,
        direction: str,
        replacement: str,
        reference: Prompt | None,
        bos: bool | None,
        max_bytes: int,
        who: str,
    ) -> "Runs":
        """From what users give; errors are those of `edge_patching`."""
        run = Experiment.of(
            model, clean, corrupt, answer=answer, wrong=wrong, metrics=[metric], position=position, bos=bos, align=None,
            max_bytes=max_bytes, who=who,
        )  # fmt: skip
        tokens = None if reference is None else model.to_tokens(reference, bos=bos)
        return cls(run, metric, direction, replacement, tokens, sources)

    @property
    def prompts(self) -> dict[str, Int[Tensor, "prompt position"]]:
        """What was run, by role, for provenance."""
        reference = {} if self._reference is None else {"reference": self._reference}
        return {"clean": self.run.pairs.clean, "corrupt": self.run.pairs.corrupt, **reference}

    def baseline_variables(self, baselines: Float[Tensor, "two pair"]) -> dict[str, Variable]:
        """The metric of the clean and of the corrupt run, as variables of a result."""
        said, units = self.metric.long_name, self.metric.units
        return {
            f"{role}_baseline": (("prompt",), baseline, f"{said} of the {role} run", units)
            for role, baseline in zip(("clean", "corrupt"), baselines, strict=True)
        }

    def _sides(self) -> tuple[Int[Tensor, "pair _"], Int[Tensor, "pair _"]]:
        clean, corrupt = self.run.pairs.clean, self.run.pairs.corrupt
        return (clean, corrupt) if self.noising else (corrupt, clean)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each prompt that is changed."""
        return self.run.pairs.lengths[0 if self.noising else 1]

    @property
    def width(self) -> int:
        """Tokens of the longest."""
        return self._sides()[0].shape[1]

    def batches(self, share: int = 1) -> Iterator[Batch]:
        """Pairs as many as fit into a quarter of the bound, at least one, batch by batch.

        Args:
            share: how many times as much each takes.
        """
        run, model = self.run, self.run.model
        base, other = self._sides()
        size = max(1, run.max_bytes // 4 // (share * 3 * bytes_per_token(model) * self.width))
        base_at, other_at = run.read_at if self.noising else run.read_at[::-1]
        for start in range(0, len(run.pairs), size):
            some = slice(start, min(start + size, len(run.pairs)))
            own, others = Written(model, base[some], base_at[some]), Written(model, other[some], other_at[some])
            log_p = None
            if self.metric.distribution:
                log_p = log_probabilities(model.to_logits((own if self.noising else others).normed)[:, 0])
            wrongs = None if run.wrongs is None else run.wrongs[some]
            truth = Truth(run.answers[some], wrongs, log_p, some.start)
            readout = MetricReadout([self.metric], truth, position=base_at[some])
            yield Batch(some, base[some], self.lengths[some], base_at[some], own, others, readout)

    def moved(self, batch: Batch, sources: Sequence[Source]) -> Float[Tensor, "source pair position d_model"]:
        """What sources write in the other run less what they write in this one; 0 beyond the end of a prompt."""
        pairs, positions = batch.tokens.shape
        width = self.run.model.config.d_model
        shape = pairs, len(sources), positions, width  # those of a pair side by side, as products read them
        found = batch.tokens.new_empty(shape, dtype=self.run.model.dtype).transpose(0, 1)
        begin = 0
        for (layer, of_heads), some in groupby(sources, key=lambda one: (one.layer, one.head is not None)):
            alike = list(some)
            into = found[begin : begin + len(alike)]
            if layer is not None and of_heads and self._replacement == "resample" and batch.own.is_linear:
                self._through(batch, layer, [cast(int, source.head) for source in alike], into)
            else:
                for place, source in zip(into, alike, strict=True):
                    own = batch.own.by(source)
                    place.copy_(self._new(batch, source, own) - own)
            begin += len(alike)
        return found.masked_fill_((batch.tokens == PAD)[:, :, None], 0.0)

    def _through(self, batch: Batch, layer: int, heads: list[int], into: Tensor) -> None:
        """The same of heads of a layer, where what they write is a linear function of what they read: that moves first."""
        own, other = (runs.read(layer)[:, :, heads] for runs in (batch.own, batch.other))
        difference = (other[:, : own.shape[1]] - own).permute(2, 0, 1, 3).flatten(1, 2)
        into.copy_((difference @ batch.own.output(layer)[heads]).view(into.shape))

    def _new(self, batch: Batch, source: Source, own: Tensor) -> Float[Tensor, "pair position d_model"]:
        """What one writes instead."""
        if self._replacement == "zero":
            return torch.zeros_like(own)
        if self._means is None:
            return batch.other.by(source)[:, : own.shape[1]]
        mean = self._means[source.name]
        return (mean if len(mean) == 1 else mean[: own.shape[1]]).expand_as(own)

    def all_moved(
        self, batch: Batch, found: Sequence[Edge], share: int = 1
    ) -> Iterator[tuple[list[Source], Float[Tensor, "source pair position d_model"]]]:
        """The same of all sources of some edges: as many as fit into a quarter of the bound, at least one, group by group.

        Args:
            share: how many times as much each takes.
        """
        every = self._plan(found).sources
        size = batch.tokens.numel() * self.run.model.config.d_model * self.run.model.W_E.element_size()
        together = max(1, self.run.max_bytes // 4 // (share * size))
        for begin in range(0, len(every), together):
            some = every[begin : begin + together]
            yield some, self.moved(batch, some)

    def together(self, batch: Batch, found: Sequence[Edge]) -> Iterator["Together"]:
        """Some edges by what they run into: the heads of a layer, its MLP, the logits; with what their sources write differently."""
        begin, plan = 0, self._plan(found)
        for some, moved in self.all_moved(batch, found):
            by_pair, end = moved.transpose(0, 1), begin + len(some)
            for into, numbers, sources, readers in plan.groups:
                here = ((sources >= begin) & (sources < end)).nonzero()[:, 0]
                if len(here):
                    place = sources[here] - begin
                    yield Together(into, numbers[here], place, readers[here], by_pair[:, : int(place.max()) + 1])
            begin = end

    def moved_into(
        self, batch: Batch, found: Sequence[Edge]
    ) -> Iterator[tuple[list[int], Destination, Float[Tensor, "edge pair position d_model"]]]:
        """The same by destination: the numbers of some edges into one, that, and what their sources write differently."""
        for some, moved in self.all_moved(batch, found):
            place = {source.name: number for number, source in enumerate(some)}
            into: dict[Destination, list[int]] = {}
            for number, edge in enumerate(found):
                if edge.source.name in place:
                    into.setdefault(edge.destination, []).append(number)
            for destination, numbers in into.items():
                yield numbers, destination, moved[[place[found[number].source.name] for number in numbers]]

    def _plan(self, found: Sequence[Edge]) -> "Plan":
        """Of these edges, which every batch asks for."""
        if self._planned is None or self._planned[0] is not found:
            self._planned = found, Plan.of(found)
        return self._planned[1]
