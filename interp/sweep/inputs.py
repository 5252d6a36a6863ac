"""What one reader of the stream reads, changed for that reader alone: the input of a head's queries, keys or values, or of an MLP.

A sweep knows these inputs by TransformerLens' names, `hook_q_input`, `hook_k_input`, `hook_v_input` and `hook_mlp_in`, also where they are
no hook points of the model: an input is the stream before the reader's norm, and a change there leaves the stream to all others.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from interp.config import ModelConfig
from interp.errors import HookError
from interp.hooks import HookFunction, HookPoint
from interp.model import Attention, Block, Transformer
from interp.names import HEAD_INPUTS, MLP_INPUT, block_name, input_axes
from interp.norms import Norm
from interp.positions import alibi_bias, turned, turns_at
from interp.sweep.interventions import Edit, Intervention, Row, Set
from interp.sweep.packing import Pack
from interp.view import View


def reads_late(name: str) -> bool:
    """Whether the reader stands in the second half of its block."""
    return name.endswith(MLP_INPUT)


def is_input(name: str) -> bool:
    """Whether a name is that of an input, not of a hook point."""
    return name.rpartition(".")[2] in (*HEAD_INPUTS, MLP_INPUT)


def all_inputs(model: Transformer) -> dict[str, tuple[str, ...]]:
    """Every input of a model by its full name, with the axes of its value."""
    axes = input_axes(model.config)
    return {block_name(layer, name): value for layer in range(model.config.n_layers) for name, value in axes.items()}


def axes_of(model: Transformer, name: str) -> tuple[str, ...]:
    """The axes of the value of a hook point or an input."""
    return input_axes(model.config)[name.rpartition(".")[2]] if is_input(name) else model.hook_points[name].axes


def check_norms(model: Transformer, rows: Sequence[Row]) -> None:
    """Raises HookError for a row that changes both an input and the norm through which its reader reads it: which is first is not said."""
    if "reads" not in model.config.norms:
        return
    for number, row in enumerate(rows):
        names = [change.name for change in row.interventions]
        for name in filter(is_input, names):
            norm = f"{name.rpartition('.')[0]}.{'ln2' if reads_late(name) else 'ln1'}.hook_"
            if found := [other for other in names if other.startswith(norm)]:
                raise HookError(
                    f"sweep: row {number} changes {name} and also {found[0]}, the norm behind it; change one of the two."
                )


def needed_for(model: Transformer, name: str) -> list[str]:
    """The hook points of the base run from which an input, and what its reader makes of it, are known."""
    block, _, point = name.rpartition(".")
    if point == MLP_INPUT:
        return [f"{block}.{'hook_resid_pre' if model.config.parallel else 'hook_resid_mid'}"]
    return [f"{block}.{hook}" for hook in ("hook_resid_pre", "attn.hook_q", "attn.hook_k", "attn.hook_v")]


def input_of(model: Transformer, values: dict[str, Tensor], name: str) -> Tensor:
    """The value of an input in a run of which `needed_for` is kept: the stream, a view for each head."""
    stream = values[needed_for(model, name)[0]]
    point = name.rpartition(".")[2]
    if point == MLP_INPUT:
        return stream
    heads = model.config.n_heads if point == "hook_q_input" else model.config.kv_heads
    return stream[:, :, None].expand(-1, -1, heads, -1)


Moved = dict[int | None, tuple[Tensor, Tensor, Tensor]]
"""By head, None of an MLP: places [place] of a pack, and the input there [place, d_model] before and after its changes."""


def _moved(edits: Sequence[tuple[int, Edit]], pack: Pack, stream: Tensor) -> Moved:
    """The changed inputs of one kind, of all rows, from the stream [place, d_model]; each row's changes in their order."""
    of_row: dict[int, list[Edit]] = defaultdict(list)
    for row, edit in edits:
        of_row[row].append(edit)
    parts: dict[int | None, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
    for row, changes in of_row.items():
        places = pack.slots[row]
        positions = (places >= 0).nonzero()[:, 0]
        places = places[positions]
        within = torch.full_like(pack.slots[row], -1)
        within[positions] = torch.arange(len(positions), device=within.device)
        before = stream[places]
        heads = sorted({head for edit in changes for head in edit.heads})
        after = before[:, None].expand(-1, len(heads) or 1, -1).clone() if heads else before.clone()
        for edit in changes:
            edit.put_there(after, within[edit.positions], heads)
        for number, head in enumerate(heads):
            parts[head].append((places, before, after[:, number]))
        if not heads:
            parts[None].append((places, before, after))
    return {
        head: tuple(torch.cat(column) for column in zip(*found, strict=True))  # type: ignore[misc]
        for head, found in parts.items()
    }


class ChangedInputs:
    """Changes of inputs, in one half of a block, of rows that are computed there anyway: as hooks on what the readers make of them.

    Args:
        edits: of inputs of one half of the block, by name.
        stream: [place, d_model], what enters the second half of the block.

    Attributes:
        arrives_at: the hook point at which what the readers read passes, where `arrive` is to be attached after all others; None where it
            has passed already.
    """

    def __init__(
        self, block: Block, edits: dict[str, list[tuple[int, Edit]]], pack: Pack, stream: Tensor | None
    ) -> None:
        self._block, self._layer, self._edits, self._pack = block, block.attn.layer, edits, pack
        self._stream, self._mlp = stream, cast(tuple[Tensor, Tensor] | None, None)
        late = any(reads_late(name) for name in edits)
        passes = None if late and block.parallel else "hook_resid_mid" if late else "hook_resid_pre"
        self.arrives_at = None if passes is None else block_name(self._layer, passes)

    def arrive(self, value: Tensor, hook: HookPoint) -> None:
        """Keep what the readers read."""
        self._stream = value[0]

    def _all_moved(self, edits: Sequence[tuple[int, Edit]]) -> Moved:
        assert self._stream is not None
        return _moved(edits, self._pack, self._stream)

    def hooks(self) -> dict[str, HookFunction]:
        """By hook point; to be attached before all others."""
        made: dict[str, HookFunction] = {}
        attention, mlp = self._block.attn, self._block.mlp
        for name, edits in self._edits.items():
            point = name.rpartition(".")[2]
            if point == MLP_INPUT:
                assert mlp is not None
                gate = mlp.input if mlp.gate is None else mlp.gate
                made[block_name(self._layer, "mlp.hook_pre")] = self._neurons(edits, gate.weight)
                if mlp.gate is not None:
                    made[block_name(self._layer, "mlp.hook_pre_linear")] = self._neurons(edits, mlp.input.weight)
            else:
                part = point.removeprefix("hook_").removesuffix("_input")
                made[block_name(self._layer, f"attn.hook_{part}")] = self._heads(edits, weights(attention, part))
        return made

    def _heads(self, edits: Sequence[tuple[int, Edit]], weight: Tensor) -> HookFunction:
        def hook(value: Tensor, point: HookPoint) -> None:
            for head, (places, before, after) in self._all_moved(edits).items():
                assert head is not None
                value[0, places, head] += self._block.inputs.moved(before, after, late=False) @ weight[head]

        return hook

    def _neurons(self, edits: Sequence[tuple[int, Edit]], weight: Tensor) -> HookFunction:
        def hook(value: Tensor, point: HookPoint) -> None:
            if self._mlp is None:  # a gated MLP asks twice
                places, before, after = self._all_moved(edits)[None]
                self._mlp = places, self._block.inputs.moved(before, after, late=True)
            places, moved = self._mlp
            value[0, places] += moved @ weight.mT

        return hook


def weights(attention: Attention, part: str) -> Tensor:
    """[head, d_model, d_head], of the queries ("q"), keys or values."""
    return cast(Tensor, getattr(attention, f"W_{part.upper()}"))


@dataclass(frozen=True)
class _Job:
    """A row in which one head's input alone has changed.

    Args:
        first, stop: the queries whose result it may change.
        moved: [position, d_head], how far the head's queries, keys or values move at `positions` [position].
    """

    row: int
    prompt: int
    first: int
    stop: int
    length: int
    positions: Tensor
    moved: Tensor


class HeadAlone:
    """Rows that differ from the base run in the input of one head's queries, keys or values and in nothing else so far.

    Only what that head reads is computed (of keys and values, what the heads that share them read); all rows together.

    Args:
        values: of the base run, by name.
        max_bytes: bound on the keys and values that are put together at once.
    """

    def __init__(self, model: Transformer, layer: int, values: dict[str, Tensor], max_bytes: int) -> None:
        self._config, self._layer, self._values, self._max_bytes = model.config, layer, values, max_bytes
        self._block = cast(Block, model.blocks[layer])
        self._attention = self._block.attn

    @classmethod
    def possible(cls, config: ModelConfig, edits: Sequence[Edit]) -> bool:
        """Whether a row with these changes in the first half of a block is of that kind."""
        if len(edits) != 1 or config.qk_norm == "whole":  # that norm ties all heads together
            return False
        return edits[0].name.rpartition(".")[2] in HEAD_INPUTS and len(edits[0].heads) == 1

    def read(self, edits: Sequence[tuple[int, Edit]], prompts: Tensor, lengths: Tensor) -> list[tuple[int, Edit]]:
        """What the heads read in each row, as changes of `hook_z`; of rows in which nothing moves, none.

        Args:
            prompts, lengths: of each row, by its number.
        """
        by_reader: dict[tuple[str, int], list[tuple[int, Edit]]] = defaultdict(list)
        for row, edit in edits:
            by_reader[edit.name, edit.heads[0]].append((row, edit))
        found = []
        for (name, head), some in by_reader.items():
            part = name.rpartition(".")[2].removeprefix("hook_").removesuffix("_input")
            together: dict[tuple[int, int, int], list[_Job]] = defaultdict(list)
            for job in self._jobs(name, part, head, some, prompts, lengths):
                together[job.first, job.stop, job.length].append(job)
            for jobs in together.values():
                found += self._attend(part, head, jobs)
        return found

    def _jobs(
        self, name: str, part: str, head: int, edits: Sequence[tuple[int, Edit]], prompts: Tensor, lengths: Tensor
    ) -> list[_Job]:
        where = prompts.tolist(), lengths.tolist()
        base = self._values[name]
        before = [base[where[0][row]][edit.positions, head] for row, edit in edits]
        after = [
            edit.new(value if edit.one_head else value[:, None]).reshape(value.shape)
            for value, (_, edit) in zip(before, edits, strict=True)
        ]
        change = (
            self._block.inputs.moved(torch.cat(before), torch.cat(after), late=False)
            @ weights(self._attention, part)[head]
        )
        jobs = []
        differs = (change != 0).any(1) | change.isnan().any(1)
        counts = [len(value) for value in before]
        for (row, edit), moved, there in zip(
            edits, torch.split(change, counts), torch.split(differs, counts), strict=True
        ):
            positions = edit.positions[there]
            if len(positions) == 0:
                continue
            length = where[1][row]
            first, stop = int(positions.min()), int(positions.max()) + 1
            if part != "q":
                first, stop = first if self._config.causal else 0, length
            jobs.append(_Job(row, where[0][row], first, stop, length, positions, moved[there]))
        return jobs

    def _attend(self, part: str, head: int, jobs: Sequence[_Job]) -> list[tuple[int, Edit]]:
        """All of jobs that attend alike."""
        config = self._config
        group = config.n_heads // config.kv_heads
        heads = [head] if part == "q" else list(range(head * group, (head + 1) * group))
        kv = head // group if part == "q" else head
        first, stop, length = jobs[0].first, jobs[0].stop, jobs[0].length
        queries, keys = torch.arange(first, stop), torch.arange(length)
        device = self._values[block_name(self._layer, "attn.hook_v")].device
        queries, keys = queries.to(device), keys.to(device)
        view = self._view(heads, queries, keys)
        numbers = length * (2 * len(heads) + 2) * config.d_head + 3 * len(heads) * (stop - first) * length
        size = max(1, self._max_bytes // (numbers * self._block.attn.qkv.weight.element_size()))
        name = block_name(self._layer, "attn.hook_z")
        like = self._values[name]
        found = []
        for begin in range(0, len(jobs), size):
            some = jobs[begin : begin + size]
            q, k, v = self._gathered(part, heads, kv, some)
            z = self._attention.weigh(*self._placed(q, k, queries, keys), v, view)
            for job, value in zip(some, z, strict=True):
                change = Intervention(name, Set(value), slice(first, stop), heads)
                found.append(
                    (job.row, Edit(change, ("batch", "position", "head", "d_head"), like.shape[2:], length, like))
                )
        return found

    def _gathered(self, part: str, heads: list[int], kv: int, jobs: Sequence[_Job]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [row, query, head, d_head], keys and values [row, key, 1, d_head], as they come from their maps."""
        first, stop, length = jobs[0].first, jobs[0].stop, jobs[0].length
        prompts = [job.prompt for job in jobs]
        values = {name: self._values[block_name(self._layer, f"attn.hook_{name}")] for name in "qkv"}
        found = {
            "q": values["q"][:, first:stop, heads[0] : heads[-1] + 1][prompts],
            "k": values["k"][:, :length, kv : kv + 1][prompts],
            "v": values["v"][:, :length, kv : kv + 1][prompts],
        }
        start = first if part == "q" else 0
        rows = torch.cat([torch.full_like(job.positions, number) for number, job in enumerate(jobs)])
        positions = torch.cat([job.positions for job in jobs])
        found[part][rows, positions - start, 0] += torch.cat([job.moved for job in jobs])
        return found["q"], found["k"], found["v"]

    def _placed(self, q: Tensor, k: Tensor, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Normed and turned, as the model does."""
        attention = self._attention
        q, k = (
            norm.fused(x) if isinstance(norm, Norm) else x for norm, x in ((attention.q_norm, q), (attention.k_norm, k))
        )
        if attention.rotary is None:
            return q, k
        turn: Callable[[Tensor, Tensor], Tensor] = lambda x, at: turned(  # noqa: E731
            x,
            *turns_at(at[None], len(keys), attention.rotary, x.dtype),  # type: ignore[arg-type]
        )
        return turn(q, queries), turn(k, keys)

    def _view(self, heads: list[int], queries: Tensor, keys: Tensor) -> View:
        config = self._config
        allowed = (keys <= queries[:, None])[None, None] if config.causal else None
        bias = None
        if config.positions == "alibi":
            dtype = self._values[block_name(self._layer, "attn.hook_v")].dtype
            bias = alibi_bias(config.n_heads, queries[None], keys[None], dtype)[:, heads]
        return View(queries[None], len(keys), allowed, bias)
