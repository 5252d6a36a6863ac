"""Tables of weights: which tensors of a family's checkpoint make which of ours, and back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from interp.config import ModelConfig
from interp.errors import CheckpointError, nearest
from interp.loading.finite import FLOATS
from interp.loading.keys import same
from interp.model import Transformer

Parts = list[Tensor]


@dataclass(frozen=True)
class Change:
    """What is done to a family's tensors to make one of ours, and what undoes it."""

    join: Callable[[Parts, ModelConfig], Tensor]
    split: Callable[[Tensor, ModelConfig], Parts]


def _widths(config: ModelConfig) -> list[int]:
    return [heads * config.d_head for heads in (config.n_heads, config.kv_heads, config.kv_heads)]


def _deinterleaved(value: Tensor, config: ModelConfig) -> Tensor:
    """From query, key and value of each head after the other to all queries, all keys, all values."""
    return rearrange(value, "(h three e) ... -> (three h e) ...", three=3, h=config.n_heads)


def _interleaved(value: Tensor, config: ModelConfig) -> Tensor:
    return rearrange(value, "(three h e) ... -> (h three e) ...", three=3, h=config.n_heads)


SAME = Change(lambda parts, config: parts[0], lambda value, config: [value])
TRANSPOSED = Change(lambda parts, config: parts[0].mT, lambda value, config: [value.mT])
"""GPT-2's Conv1D keeps [in, out] where a Linear keeps [out, in]."""

STACKED = Change(
    lambda parts, config: torch.cat(parts), lambda value, config: list(torch.split(value, _widths(config)))
)
"""Queries, keys and values as three maps."""

BY_HEAD = Change(
    lambda parts, config: _deinterleaved(parts[0], config), lambda value, config: [_interleaved(value, config)]
)
"""Queries, keys and values in one map, head by head."""

ONE_LESS = Change(
    lambda parts, config: parts[0].to(torch.promote_types(parts[0].dtype, torch.float32)) + 1,
    lambda value, config: [value - 1],
)
"""A norm that multiplies by 1 + w, which is kept as what it multiplies by; half precision would lose the small w."""

HEADS_FLAT = Change(lambda parts, config: parts[0].reshape(-1, config.d_head), lambda value, config: [value.flatten()])
"""One vector for all heads of a layer."""


@dataclass(frozen=True)
class Row:
    """A tensor of ours, and those of the family that make it."""

    ours: str
    theirs: tuple[str, ...]
    change: Change = SAME


def row(ours: str, *theirs: str, change: Change = SAME) -> Row:
    """A row of a table."""
    return Row(ours, theirs, change)


def layers(count: int, prefix: str, rows: Sequence[Row]) -> list[Row]:
    """The rows of a block, for each layer: ours under `blocks.{l}.`, theirs under `{prefix}.{l}.`."""
    return [
        Row(f"blocks.{layer}.{one.ours}", tuple(f"{prefix}.{layer}.{name}" for name in one.theirs), one.change)
        for layer in range(count)
        for one in rows
    ]


def read(
    rows: Sequence[Row],
    tensors: Mapping[str, Tensor],
    config: ModelConfig,
    source: str,
    *,
    heads: Sequence[str] = (),
    ignored: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Our state dict from a family's tensors, sharing their memory where nothing has to be put together.

    Args:
        rows: one whose tensor of ours the model does not have is passed over: a bias, say, where the configuration has none.
        heads: what the unembedding is called; of a tied model it may be there, equal to the embedding.
        ignored: ends of the names of buffers that checkpoints carry and the model computes.

    Raises CheckpointError for a missing, extra or misshapen tensor, and for a head that contradicts what the configuration says of tying.
    """
    shapes = {name: value.shape for name, value in Transformer(config, seed=None).named_parameters()}
    left = {name: value for name, value in tensors.items() if not name.endswith(ignored)} if ignored else dict(tensors)
    state = {}
    for one in rows:
        if one.ours not in shapes:
            continue
        parts = []
        for name in one.theirs:
            if name not in left:
                raise CheckpointError(f"{source}: the tensor {name!r} is missing. {nearest(name, list(left))}")
            parts.append(left.pop(name))
        expected = one.change.split(torch.empty(shapes[one.ours], device="meta"), config)
        for name, part, like in zip(one.theirs, parts, expected, strict=True):
            if part.dtype not in FLOATS.values():
                raise CheckpointError(
                    f"{source}: {name} has dtype {part.dtype}, expected floating point: {', '.join(map(str, FLOATS.values()))}."
                )
            if part.shape != like.shape:
                raise CheckpointError(
                    f"{source}: {name} has shape {tuple(part.shape)}, expected {tuple(like.shape)} from the configuration."
                )
        state[one.ours] = one.change.join(parts, config)
    found = [left.pop(name) for name in heads if name in left]
    if "unembedding" in shapes:
        if not found:
            raise CheckpointError(
                f"{source}: the unembedding {heads[0]!r} is missing, and the configuration says that it is not the embedding "
                "(tie_word_embeddings is false)."
            )
        state["unembedding"] = found[0]
    elif any(not same(head, state["W_E"]) for head in found):
        raise CheckpointError(
            f"{source}: the configuration says that the unembedding is the embedding (tie_word_embeddings), but {heads[0]!r} differs from "
            "it. If the model was trained with a head of its own, set tie_word_embeddings to false in config.json."
        )
    if left:
        raise CheckpointError(f"{source}: {len(left)} tensors are not part of this model: {', '.join(list(left)[:5])}.")
    return state


def write(
    rows: Sequence[Row], state: Mapping[str, Tensor], config: ModelConfig, *, prefix: str, head: str
) -> dict[str, Tensor]:
    """A family's tensors from our state dict; `prefix` stands before all names but the head's."""
    out: dict[str, Tensor] = {}
    for one in rows:
        if one.ours in state:
            parts = one.change.split(state[one.ours].detach(), config)
            out |= {prefix + name: part.contiguous() for name, part in zip(one.theirs, parts, strict=True)}
    if "unembedding" in state:
        out[head] = state["unembedding"].detach().contiguous()
    return out


Reader = Callable[[Mapping[str, Tensor], ModelConfig, str], dict[str, Tensor]]
Writer = Callable[[Mapping[str, Tensor], ModelConfig], dict[str, Tensor]]


def both_ways(
    table: Callable[[ModelConfig], Sequence[Row]], *, prefix: str, heads: Sequence[str], ignored: tuple[str, ...]
) -> tuple[Reader, Writer]:
    """A family's `read_weights` and `write_weights` by its table; see `read` and `write`."""

    def read_weights(tensors: Mapping[str, Tensor], config: ModelConfig, source: str) -> dict[str, Tensor]:
        return read(table(config), tensors, config, source, heads=heads, ignored=ignored)

    def write_weights(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        return write(table(config), state, config, prefix=prefix, head=heads[0])

    return read_weights, write_weights
