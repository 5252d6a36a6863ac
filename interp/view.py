"""Which keys each query may see, and where both stand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.config import ModelConfig
from interp.errors import HookError
from interp.key_values import KeyValues
from interp.positions import Rotary, Turns, alibi_bias, turns_at


@runtime_checkable
class Shared(Protocol):
    """Rows packed into one, that attend each to its own tokens and to earlier ones of a run that they share."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, attend: "Attend") -> Tensor:
        """What the heads read, packed as the queries are; `attend` computes it for queries, keys and values of a view."""


@dataclass(frozen=True)
class View:
    """What attention must know of a run besides the stream.

    Args:
        positions: absolute positions of the queries.
        n_keys: how many key slots the queries look at.
        allowed: which key each query may see; None where that is every key, or in a causal model every key up to its own
            position, the last query standing at the last key.
        bias: what is added to the scores (ALiBi); None is nothing.
        past: where earlier keys and values are kept while decoding.
        shared: how rows that are packed into one attend, each to its own tokens and to those it shares with others.
        explicit: compute scores and pattern one by one also where nobody listens to them.
        key_positions: absolute positions of the keys; None where each stands in the slot of its position.
    """

    positions: Int[Tensor, "batch query"]
    n_keys: int
    allowed: Bool[Tensor, "#batch 1 query key"] | None
    bias: Float[Tensor, "#batch head query key"] | None
    past: KeyValues | None = None
    shared: "Shared | None" = None
    explicit: bool = False
    key_positions: Int[Tensor, "#batch key"] | None = None
    _within: dict[int, Bool[Tensor, "#batch 1 query key"]] = field(default_factory=dict, compare=False, repr=False)
    _turned: dict[tuple[Rotary, torch.dtype], Turns] = field(default_factory=dict, compare=False, repr=False)

    def turns(self, rotary: Rotary, dtype: torch.dtype) -> Turns:
        """How far queries and keys of this run are turned; layers that turn alike share it."""
        if (rotary, dtype) not in self._turned:
            positions = self.positions[:1] if self.positions.stride(0) == 0 else self.positions
            self._turned[rotary, dtype] = turns_at(positions, self.n_keys, rotary, dtype)
        return self._turned[rotary, dtype]

    def seen(self, causal: bool, window: int | None) -> Bool[Tensor, "#batch 1 query key"] | None:
        """`allowed`, within a window too; layers of the same window share one tensor."""
        if window is None or self.n_keys <= window:
            return self.allowed
        if window not in self._within:
            slots = torch.arange(self.n_keys, device=self.positions.device)[None]
            keys = slots if self.key_positions is None else self.key_positions
            alike = self.positions.stride(0) == 0 and len(keys) == 1  # one prompt's positions, expanded over the batch
            queries = self.positions[:1] if alike else self.positions
            distance = queries[:, None, :, None] - keys[:, None, None, :]
            near = distance.abs() < window
            near = near & (distance >= 0) if causal else near
            self._within[window] = near if self.allowed is None else near & self.allowed
        return self._within[window]

    def mask(self, causal: bool, window: int | None = None) -> Bool[Tensor, "... query key"]:
        """Which key each query may see, in full."""
        seen = self.seen(causal, window)
        if seen is not None:
            return seen
        queries = self.positions.shape[1]
        everything = torch.ones(queries, self.n_keys, dtype=torch.bool, device=self.positions.device)
        return everything.tril(self.n_keys - queries) if causal else everything


Attend = Callable[[Tensor, Tensor, Tensor, View], Tensor]


@runtime_checkable
class Wide(Protocol):
    """A model whose streams have a width, a dtype and a device."""

    config: ModelConfig

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""

    @property
    def device(self) -> torch.device:
        """Of the weights."""


def check_stream(residual: Any, model: Wide, who: str, expected: Sequence[int] | None = None) -> None:
    """Raise HookError where something is no stream [batch, position, d_model] that the model could go on with.

    Args:
        who: takes it, for the message.
        expected: its batch and positions, where they are known.
    """
    if not isinstance(residual, Tensor):
        raise HookError(f"{who}: the residual stream must be a tensor, got {type(residual).__name__}.")
    shape, width = tuple(residual.shape), model.config.d_model
    if len(shape) != 3 or shape[-1] != width or (expected is not None and shape[:2] != tuple(expected)):
        wanted = "batch, position" if expected is None else ", ".join(map(str, expected))
        raise HookError(f"{who}: the residual stream has shape {shape}; expected ({wanted}, {width}).")
    for what in ("dtype", "device"):
        found, own = getattr(residual, what), getattr(model, what)
        if found != own:
            raise HookError(
                f"{who}: the residual stream has {what} {found}, the model {own}; convert it with .to(...)."
            )


def whole(
    config: ModelConfig, residual: Float[Tensor, "batch position d_model"], real: Bool[Tensor, "batch position"] | None
) -> View:
    """The view of a run over whole prompts; `real` is False at padding, which nothing attends to."""
    batch, length, _ = residual.shape
    if real is None:
        positions, allowed = torch.arange(length, device=residual.device).expand(batch, length), None
    else:
        # A padding place sees itself, so that no row of the softmax is empty.
        own = torch.eye(length, dtype=torch.bool, device=real.device)
        causal = torch.ones_like(own).tril() if config.causal else torch.ones_like(own)
        positions, allowed = place(real), (causal & real[:, None, :] | own)[:, None]
    bias = None
    if config.positions == "alibi":
        rows = positions[:1] if real is None else positions
        bias = alibi_bias(config.n_heads, rows, rows, residual.dtype)
    return View(positions, length, allowed, bias, key_positions=None if real is None else positions)


def continued(config: ModelConfig, past: KeyValues, new: int, dtype: torch.dtype) -> View:
    """The view of `new` tokens that continue each row of `past`: every slot up to the query's own position."""
    positions = past.positions(new)
    n_keys = past.even + new if past.even is not None else int(positions.max()) + 1
    slots = torch.arange(n_keys, device=positions.device)
    aligned = past.even is not None and (new == 1 or past.even == 0)
    allowed = None if aligned else slots <= positions[:, None, :, None]
    bias = alibi_bias(config.n_heads, positions, slots[None], dtype) if config.positions == "alibi" else None
    return View(positions, n_keys, allowed, bias, past)


def place(real: Bool[Tensor, "batch position"]) -> Int[Tensor, "batch position"]:
    """The position of each token among the tokens of its row; padding counts none."""
    return (real.cumsum(1) - 1).clamp(min=0)
