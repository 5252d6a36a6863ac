"""The one engine for everything that intervenes: many changed runs of the same prompts, as one wave through the layers.

A row of a sweep is a run in which something is changed. The base run's stream, keys and values are kept. Going up, each row joins the
wave at the half block where it first differs from the base run; only its positions that differ are computed; rows of all prompts
and lengths are packed into one, so that every matrix product is a large one; at the top only what the readout reads is computed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from interp.errors import HookError
from interp.generation import left_aligned, left_order
from interp.hooks import attached_hooks
from interp.model import Transformer
from interp.progress import progress_bar
from interp.sweep.inputs import axes_of, check_norms, is_input
from interp.sweep.interventions import Edit, Intervention, Row
from interp.sweep.readouts import EachLayer, Readout
from interp.sweep.wave import Base, Member, Wave, stage_of
from interp.view import check_stream
from interp.whole_numbers import sliced, takes_whole, whole_numbers

MAX_BYTES = 512 * 2**20
"""Default bound on the memory that a sweep takes above the model's."""

LARGEST_PACK = 4096
"""Places beyond which a larger pack is no faster."""


@dataclass(frozen=True)
class Swept:
    """What a sweep read.

    Args:
        values: [row, ...], of each row.
        base: [prompt, ...], of the runs in which nothing is changed.
    """

    values: Tensor
    base: Tensor


@takes_whole("max_bytes", least={"max_bytes": 1})
@torch.no_grad()
def sweep(
    model: Transformer,
    tokens: Integer[Tensor, "batch position"],
    rows: Sequence[Row],
    readout: Readout | EachLayer,
    *,
    residual: Float[Tensor, "batch position d_model"] | None = None,
    max_bytes: int = MAX_BYTES,
    progress: str | None = None,
) -> Swept:
    """Run each row: a prompt with its interventions. Equal to a whole run of the model with hooks for each row.

    Args:
        tokens: the prompts; PAD (-1) stands where a shorter one has no token.
        rows: what to change in which prompt. Interventions of a row are made together, in the order of the forward pass; of two at
            the same place, the later one acts on what the earlier one made.
        readout: what to read, at the top or of the stream at each layer; see `interp.sweep.readouts`.
        residual: the stream that enters block 0 in every run of a prompt, in place of the embedding of its tokens, each of which it
            has a vector for; then nothing can be changed at the embedding itself.
        max_bytes: bound on the memory above that of model, rows and result; one row is always computed at a time, however long.
        progress: what the progress bar on standard error is called; None shows none.

    Returns:
        `values` [row, ...] and `base` [prompt, ...]. A row that changes nothing equals its prompt's base bit for bit, unless it is
        `always` computed.

    Raises:
        HookError: a hook point, position, head or neuron that does not exist; values that do not fit there, or a `residual` that does
            not fit the tokens; hooks that are attached to the model (a hook would not know the rows); no rows, or what is none; a
            readout that is none, or gives no tensor with a value for each row.
        TokenError: tokens that the model cannot take, or a position to read that a prompt does not have.
    """
    rows = _checked(rows, readout)
    if attached := attached_hooks(model):
        raise HookError(f"sweep: the model has hooks attached ({', '.join(attached[:3])}); give them as interventions.")
    real = model.check_tokens(tokens)
    if residual is not None:
        check_stream(residual, model, "sweep", expected=tokens.shape)
        residual = residual if real is None else residual[torch.arange(len(tokens))[:, None], left_order(tokens)]
    tokens, prompts = left_aligned(tokens.long()), len(tokens)
    for number, row in enumerate(rows):
        if not 0 <= row.prompt < prompts:
            raise HookError(f"sweep: row {number} asks for prompt {row.prompt}; there are {prompts}.")
    names = {change.name for row in rows for change in row.interventions}
    stages = {name: stage_of(model, name) for name in names}
    check_norms(model, rows)
    if residual is not None and (embeddings := [name for name, stage in stages.items() if stage == 0]):
        raise HookError(f"sweep: {embeddings[0]} cannot be changed where the stream that enters block 0 is given.")
    top = 1 + 2 * model.config.n_layers
    if isinstance(readout, EachLayer) and (unseen := [name for name, stage in stages.items() if stage == top]):
        raise HookError(f"sweep: {unseen[0]} is above every stream that is read, so a change there would not be seen.")
    lengths = [tokens.shape[1]] * prompts if real is None else real.sum(1).tolist()
    by_prompt = defaultdict(list)
    for number, row in enumerate(rows):
        by_prompt[row.prompt].append(number)
    values: Tensor | None = None
    base_values = []
    with progress_bar(progress is not None) as bar:
        task = bar.add_task(progress or "changed runs", total=len(rows))
        for together in _prompt_groups(model, lengths, names, max_bytes // 2):
            base = Base.of(
                model,
                tokens[together],
                lengths[together],
                sorted(names),
                readout,
                None if residual is None else residual[together],
                together.start,
            )
            base_values.append(base.read)
            numbers = [number for prompt in range(together.start, together.stop) for number in by_prompt[prompt]]
            for chunk in _chunks(model, base, rows, numbers, stages, together.start, max_bytes // 2):
                found = Wave(model, base, chunk, readout, max_bytes // 4).run()
                if values is None:
                    values = found.new_empty((len(rows), *found.shape[1:]))
                values[torch.tensor([member.number for member in chunk], device=values.device)] = found
                bar.advance(task, len(chunk))
    assert values is not None
    return Swept(values, torch.cat(base_values))


def _checked(rows: Iterable[Row], readout: object) -> list[Row]:
    """The rows as a list. Raises HookError for what are no rows, and for what reads nothing."""
    if not isinstance(rows, Iterable):
        raise HookError(f"sweep: give a list of rows; got {type(rows).__name__}.")
    listed = list(rows)
    if not listed:
        raise HookError("sweep: no rows were given.")
    if wrong := [row for row in listed if not isinstance(row, Row)]:
        raise HookError(f"sweep: a list of rows holds Row only; got {type(wrong[0]).__name__} among them.")
    if isinstance(readout, type) or not isinstance(readout, (Readout, EachLayer)):
        raise HookError(f"sweep: {readout!r} is no readout; give one, such as Logits().")
    return listed


def _prompt_groups(model: Transformer, lengths: Sequence[int], sites: set[str], max_bytes: int) -> Iterator[slice]:
    """Consecutive prompts whose base run fits into the bound; always at least one."""
    config, size = model.config, model.W_E.element_size()
    per_token = 4 * config.n_layers * config.d_model * size
    for name in sites:
        axes = axes_of(model, name)
        wide = {"d_mlp": config.d_mlp, "key": max(lengths) * config.n_heads}
        per_token += size * max([config.d_model, *(width for axis, width in wide.items() if axis in axes)])
        per_token += 3 * size * config.n_heads * config.d_head * is_input(name)  # queries, keys and values are kept too
        per_token += size * config.n_heads * config.d_model if name.endswith("hook_result") else 0
    count = max(1, max_bytes // (per_token * max(lengths)))
    for start in range(0, len(lengths), count):
        yield slice(start, min(start + count, len(lengths)))


def _chunks(
    model: Transformer,
    base: Base,
    rows: Sequence[Row],
    numbers: Sequence[int],
    stages: dict[str, int],
    offset: int,
    max_bytes: int,
) -> Iterator[list[Member]]:
    """Rows that join at about the same stage and position, as many as fit into the bound; always at least one."""
    keyed = []
    for number in numbers:
        row = rows[number]
        length = base.lengths[row.prompt - offset]
        first = min((_first(change, length) for change in row.interventions), default=length - 1)
        stage = min((stages[change.name] for change in row.interventions), default=0)
        keyed.append((stage, length, first, number))
    limit = min(LARGEST_PACK, max_bytes // _bytes_per_place(model, rows, stages))
    chunk: list[Member] = []
    places = 0
    for _, length, first, number in sorted(keyed):
        if chunk and places + length - first > limit:
            yield chunk
            chunk, places = [], 0
        places += length - first
        chunk.append(_member(model, base, rows[number], number, stages, offset))
    if chunk:
        yield chunk


def _first(change: Intervention, length: int) -> int:
    if change.positions is None:
        return 0
    if isinstance(change.positions, slice):
        return min(sliced(change.positions, length, f"sweep: positions at {change.name}"), default=length - 1)
    return min((position % length for position in cast(list[int], change.positions)), default=length - 1)


def _bytes_per_place(model: Transformer, rows: Sequence[Row], stages: dict[str, int]) -> int:
    """Roughly what a place of the pack takes while its block runs."""
    config = model.config
    heads = (config.n_heads + 2 * config.kv_heads) * config.d_head
    width = 8 * config.d_model + 2 * heads + 3 * config.d_mlp
    width += 2 * config.n_heads * config.d_model * any(name.endswith("hook_result") for name in stages)
    width += 4 * config.d_model * max(_inputs_changed(model, row) for row in rows)
    return width * model.W_E.element_size()


def _inputs_changed(model: Transformer, row: Row) -> int:
    """How many heads and MLPs have an input of their own in a row."""
    count = 0
    for change in row.interventions:
        if is_input(change.name):
            heads = whole_numbers(
                [] if change.heads is None else change.heads, f"sweep: heads at {change.name}", HookError
            )
            count += len(heads) or model.config.n_heads
    return count


def _member(model: Transformer, base: Base, row: Row, number: int, stages: dict[str, int], offset: int) -> Member:
    prompt = row.prompt - offset
    edits: dict[int, list[Edit]] = defaultdict(list)
    for change in row.interventions:
        axes, value = axes_of(model, change.name), base.values[change.name]
        length = base.lengths[prompt]
        attention = "key" in axes
        shape = (value.shape[1], length) if attention else value.shape[2:]
        edits[stages[change.name]].append(Edit(change, axes, shape, length, value))
    return Member(number, prompt, base.lengths[prompt], row.always, edits)
