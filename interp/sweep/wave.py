"""Rows of a sweep on their way up through the layers, beside the run in which nothing is changed."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import HookError, is_known, nearest
from interp.hooks import HookPoint
from interp.model import Block, Transformer
from interp.names import block_axes, block_name
from interp.sweep.inputs import ChangedInputs, HeadAlone, all_inputs, input_of, is_input, needed_for, reads_late
from interp.sweep.interventions import Edit
from interp.sweep.packing import Group, Pack, PackedAttention
from interp.sweep.readouts import EachLayer, Readout, measured, read
from interp.tokenizer import PAD
from interp.view import View

Packed = tuple[Pack, Tensor]
"""Values [place, ...], and what stands at each place."""


@dataclass(frozen=True)
class Base:
    """The run in which nothing is changed, of some prompts.

    Args:
        values: by hook name; [prompt, position, ...], or [prompt, head, query, key].
        normed: [prompt, read, d_model], the final stream after the final norm, where the readout reads it.
        reads: [prompt, read], those positions.
        read: [prompt, ...], what the readout reads there; of `EachLayer`, [prompt, layer, position, ...].
        first: the number of the first of these prompts in the whole sweep, by which the readout knows them.
    """

    tokens: Int[Tensor, "prompt position"]
    lengths: Sequence[int]
    values: dict[str, Tensor]
    normed: Tensor
    reads: Int[Tensor, "prompt read"]
    read: Tensor
    first: int

    @classmethod
    def of(
        cls,
        model: Transformer,
        tokens: Int[Tensor, "prompt position"],
        lengths: Sequence[int],
        sites: Sequence[str],
        readout: Readout | EachLayer,
        residual: Float[Tensor, "prompt longer d_model"] | None = None,
        first: int = 0,
    ) -> "Base":
        width, longest = tokens.shape[1], max(lengths)
        tokens = tokens[:, :longest]
        real = tokens != PAD
        inputs = [name for name in sites if is_input(name)]
        sites = [name for name in sites if name not in inputs]
        sites += [needed for name in inputs for needed in needed_for(model, name)]
        names = {*sites, *(name for layer in range(model.config.n_layers) for name in _kept(model, layer))}
        with model.capture([name for name in model.hook_points if name in names]) as values:
            entering = model.embed(tokens) if residual is None else residual[:, :longest]
            final = model.run_blocks(entering, real=None if bool(real.all()) else real)
            normed = model.ln_final(final)
        values["final"] = final
        values |= {name: input_of(model, values, name) for name in inputs}
        if isinstance(readout, EachLayer):
            streams = [values[_kept(model, layer)[0]] for layer in range(model.config.n_layers)]
            found = [
                _spread(measured(readout, stream[real], stream[real]), real, width) for stream in [*streams, final]
            ]
            return cls(tokens, lengths, values, normed[:, :0], tokens[:, :0], torch.stack(found, dim=1), first)
        read_at = [list(readout.positions(length, first + number)) for number, length in enumerate(lengths)]
        reads = torch.tensor(read_at, device=tokens.device)
        rows = torch.arange(len(tokens), device=tokens.device)
        there = normed[rows[:, None], reads]
        return cls(tokens, lengths, values, there, reads, read(readout, model, there, first + rows), first)


def _kept(model: Transformer, layer: int) -> list[str]:
    """What every sweep needs of a block of the base run: the stream that enters, keys, values, and what the heads read."""
    normed = "attn.k_norm.hook_out" if model.config.qk_norm != "none" else "attn.hook_k"
    keys = "attn.hook_rot_k" if model.config.positions == "rotary" else normed
    return [block_name(layer, point) for point in ("hook_resid_pre", keys, "attn.hook_v", "attn.hook_z")]


def _spread(values: Tensor, places: Bool[Tensor, "prompt position"], width: int) -> Tensor:
    """Values [place, ...] of the chosen places as [prompt, position, ...], `width` positions long; NaN elsewhere."""
    spread = values.new_full((len(places), width, *values.shape[1:]), torch.nan)
    spread[:, : places.shape[1]][places] = values
    return spread


def stage_of(model: Transformer, name: str) -> int:
    """When a hook point is reached: 0, the embedding; 1 + 2l and 2 + 2l, the halves of block l; then the final norm.

    Raises HookError for a name that the model does not have.
    """
    inputs = all_inputs(model)
    if is_known(name, inputs):
        return 1 + 2 * int(name.split(".")[1]) + reads_late(name)
    if not is_known(name, model.hook_points):
        raise HookError(f"sweep: there is no hook point {name!r}. {nearest(name, [*model.hook_points, *inputs])}")
    if not name.startswith("blocks."):
        return 1 + 2 * model.config.n_layers if name.startswith("ln_final") else 0
    _, layer, point = name.split(".", 2)
    order = list(block_axes(model.config))
    return 1 + 2 * int(layer) + (order.index(point) >= order.index("attn.hook_z"))


@dataclass(frozen=True)
class Member:
    """A row of a chunk: its number among all rows, its prompt in the group, and its edits by the stage at which they act."""

    number: int
    prompt: int
    length: int
    always: bool
    edits: dict[int, list[Edit]]


class Wave:
    """One chunk of rows on its way up.

    Args:
        max_bytes: bound on the keys and values that attention puts together at once.
    """

    def __init__(
        self,
        model: Transformer,
        base: Base,
        chunk: Sequence[Member],
        readout: Readout | EachLayer,
        max_bytes: int,
    ) -> None:
        self.model, self.base, self.readout, self.max_bytes = model, base, readout, max_bytes
        self.config, self.device = model.config, base.tokens.device
        self.prompts, self.lengths = (
            torch.tensor([getattr(member, name) for member in chunk], device=self.device)
            for name in ("prompt", "length")
        )
        self.grid = torch.arange(base.tokens.shape[1], device=self.device)
        self.mask = torch.zeros(len(chunk), len(self.grid), dtype=torch.bool, device=self.device)
        self.always = [member.always for member in chunk]
        self.traced = base.read[self.prompts] if isinstance(readout, EachLayer) else None
        self.edits: dict[int, list[tuple[int, Edit]]] = defaultdict(list)
        for number, member in enumerate(chunk):
            for stage, edits in member.edits.items():
                self.edits[stage] += [(number, edit) for edit in edits]

    def run(self) -> Tensor:
        """What the readout reads of each row: [row, ...]."""
        stream = self._embed()
        for layer in range(self.config.n_layers):
            stream = self._block(layer, stream)
        if self.traced is None:
            return self._read(stream)
        self._trace(self.config.n_layers, stream, self.base.values["final"])
        return self.traced

    def _embed(self) -> Packed | None:
        self._admit(0)
        if not bool(self.mask.any()):
            return None
        pack = self._pack()
        tokens = self.base.tokens[self.prompts[pack.rows], pack.positions]
        with self._hooks(0, pack, None):
            return pack, self.model.embed(tokens[None], pack.positions[None])[0]

    def _block(self, layer: int, stream: Packed | None) -> Packed | None:
        """The stream that leaves a block, of the rows that have joined; None before the first."""
        block, halves = cast(Block, self.model.blocks[layer]), (1 + 2 * layer, 2 + 2 * layer)
        base_x, base_k, base_v, base_z = (self.base.values[name] for name in _kept(self.model, layer))
        self._read_alone(layer)
        self._admit(halves[0])
        heads = None
        if bool(self.mask.any()):
            self._complete()
            pack = self._pack()
            x = pack.gather(stream, base_x, self.prompts)
            scores = any(edit.attention for _, edit in self.edits[halves[0]])
            shared = PackedAttention(self.config, self._groups(), base_k, base_v, self.max_bytes, scores)
            view = View(pack.positions[None], len(self.grid), None, None, shared=shared)
            with self._hooks(halves[0], pack, shared):
                x = block.hook_resid_pre(x[None])
                self._trace(layer, (pack, x[0]), base_x)
                stream, heads = (pack, x[0]), (pack, block.attend(x, view)[0])
        self._admit(halves[1])
        if layer == self.config.n_layers - 1 and self.traced is None:
            self._narrow(halves[1])
        if not bool(self.mask.any()):
            return None
        pack = self._pack()
        x = pack.gather(stream, base_x, self.prompts)
        z = pack.gather(heads, base_z, self.prompts)
        with self._hooks(halves[1], pack, None, x):
            return pack, block.finish(x[None], z[None])[0]

    def _trace(self, layer: int, stream: Packed | None, base: Tensor) -> None:
        """Read the stream on its way, where that is what is read."""
        if self.traced is None or stream is None or not isinstance(self.readout, EachLayer):
            return
        pack, x = stream
        before = base[self.prompts[pack.rows], pack.positions]
        self.traced[pack.rows, layer, pack.positions] = measured(self.readout, x, before)

    def _read(self, stream: Packed | None) -> Tensor:
        """The readout of each row; of one that nothing reached, the base run's."""
        assert not isinstance(self.readout, EachLayer)
        stage = 1 + 2 * self.config.n_layers
        self._admit(stage)
        self._narrow(stage)
        values = self.base.read[self.prompts].clone()
        reached = self.mask.any(1).nonzero()[:, 0]
        if len(reached) == 0:
            return values
        pack = self._pack()
        x = pack.gather(stream, self.base.values["final"], self.prompts)
        with self._hooks(stage, pack, None):
            normed = self.model.ln_final(x[None])[0]
        prompts = self.prompts[reached]
        reads = self.base.reads[prompts]
        slots = pack.slots[reached[:, None], reads]
        there = self.base.normed[prompts]
        there[slots >= 0] = normed[slots[slots >= 0]]
        touched = (slots >= 0).any(1)
        values[reached[touched]] = read(self.readout, self.model, there[touched], self.base.first + prompts[touched])
        return values

    def _read_alone(self, layer: int) -> None:
        """Where a row first differs from the base run in what one head of a block reads, only that head is computed: what it makes of
        it then changes the row at the next half block, ahead of the row's other edits there."""
        stage = 1 + 2 * layer
        joined, of_row = self.mask.any(1).tolist(), defaultdict(list)
        for row, edit in self.edits[stage]:
            of_row[row].append(edit)
        alone = {
            row
            for row, edits in of_row.items()
            if not joined[row] and not self.always[row] and HeadAlone.possible(self.config, edits)
        }
        if not alone:
            return
        heads = HeadAlone(self.model, layer, self.base.values, self.max_bytes)
        edits = [(row, edit) for row, edit in self.edits[stage] if row in alone]
        self.edits[stage] = [(row, edit) for row, edit in self.edits[stage] if row not in alone]
        self.edits[stage + 1] = heads.read(edits, self.prompts, self.lengths) + self.edits[stage + 1]

    def _admit(self, stage: int) -> None:
        """Take into the mask what the edits of a stage change; a row joins only where a value differs from the base run's."""
        of_row = defaultdict(list)
        for row, edit in self.edits[stage]:
            of_row[row].append(edit)
        joined = self.mask.any(1).tolist()
        for row, edits in of_row.items():
            changed = [] if joined[row] else [self._changed(row, edit) for edit in edits]
            if joined[row] or any(len(positions) for positions in changed):
                alone = len(edits) == 1 and not joined[row] and edits[0].local
                for positions in changed if alone else [edit.positions for edit in edits]:
                    self.mask[row, positions] = True

    def _changed(self, row: int, edit: Edit) -> Tensor:
        """The positions at which an edit changes the base run's value."""
        value = self.base.values[edit.name][self.prompts[row]]
        if edit.attention:
            length = int(self.lengths[row])
            value = value.transpose(0, 1)[:, :, :length]
        if self.always[row] or len(edit.positions) == 0:
            return edit.positions
        before = edit.select(value, edit.positions)
        differs = (edit.new(before) != before).reshape(len(before), -1).any(1)
        return edit.positions[differs]

    def _complete(self) -> None:
        """Through attention a change reaches all later positions, and without a causal mask all."""
        joined = self.mask.any(1, keepdim=True)
        first = self.mask.to(torch.int8).argmax(1, keepdim=True) if self.config.causal else 0
        self.mask = joined & (self.grid >= first) & (self.grid < self.lengths[:, None])

    def _narrow(self, stage: int) -> None:
        """Keep the positions that are read, and those that an edit from here on takes together."""
        reads = torch.zeros_like(self.mask)
        reads[torch.arange(len(reads), device=self.device)[:, None], self.base.reads[self.prompts]] = True
        for later, edits in self.edits.items():
            for row, edit in edits:
                if later >= stage and not edit.local:
                    reads[row, edit.positions] = True
        self.mask = self.mask & reads

    def _order(self) -> Int[Tensor, " ordered"]:
        """The rows in the mask; those that attend together follow each other."""
        first = self.mask.to(torch.int8).argmax(1)
        order = (self.lengths * (len(self.grid) + 1) + first).argsort(stable=True)
        return order[self.mask[order].any(1)]

    def _pack(self) -> Pack:
        return Pack(self.mask, self._order())

    def _groups(self) -> list[Group]:
        order = self._order()
        ends = torch.stack([self.mask.to(torch.int8).argmax(1), self.lengths], dim=1)[order]
        kinds, counts = torch.unique_consecutive(ends, dim=0, return_counts=True)
        groups, place = [], 0
        for (first, length), rows in zip(kinds.tolist(), torch.split(order, counts.tolist()), strict=True):
            stop = place + len(rows) * (length - first)
            groups.append(Group(rows, self.prompts[rows], place, stop, first, length))
            place = stop
        return groups

    @contextmanager
    def _hooks(
        self, stage: int, pack: Pack, shared: PackedAttention | None, stream: Tensor | None = None
    ) -> Iterator[None]:
        """The edits of a stage, as hooks on packed values.

        Args:
            stream: [place, d_model], what enters the second half of a block.
        """
        by_name: dict[str, list[tuple[int, Edit]]] = defaultdict(list)
        for row, edit in self.edits[stage]:
            by_name[edit.name].append((row, edit))
        inputs = {name: by_name.pop(name) for name in list(by_name) if is_input(name)}
        with ExitStack() as stack:
            if inputs:
                block = cast(Block, self.model.blocks[(stage - 1) // 2])
                changed = ChangedInputs(block, inputs, pack, stream)
                stack.enter_context(self.model.hooks(changed.hooks()))
            if by_name:
                stack.enter_context(
                    self.model.hooks(
                        {
                            name: partial(_edit_scores, edits, shared)
                            if edits[0][1].attention and shared is not None
                            else partial(_edit_places, edits, pack)
                            for name, edits in by_name.items()
                        }
                    )
                )
            if inputs and changed.arrives_at is not None:
                stack.enter_context(self.model.hooks({changed.arrives_at: changed.arrive}))
            yield


def _edit_places(edits: Sequence[tuple[int, Edit]], pack: Pack, value: Tensor, hook: HookPoint) -> None:
    """Make the edits in packed values [1, place, ...]."""
    for row, edit in edits:
        edit.put_there(value[0], pack.slots[row, edit.positions])


def _edit_scores(edits: Sequence[tuple[int, Edit]], shared: PackedAttention, value: Tensor, hook: HookPoint) -> None:
    """Make the edits in the scores or the pattern [row, head, query, key] of the rows that attend just now."""
    group = shared.group
    of_row = {row: number for number, row in enumerate(group.rows.tolist())}
    for row, edit in edits:
        if row in of_row:
            edit.put_there(value[of_row[row]].transpose(0, 1), edit.positions - group.first)
