"""Which keys each query may see, and where both stand."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.config import ModelConfig
from interp.key_values import KeyValues
from interp.positions import alibi_bias


@dataclass(frozen=True)
class View:
    """What attention must know of a run besides the stream.

    Args:
        positions: absolute positions of the queries.
        allowed: which key each query may see; None where that is every key, or in a causal model every key up to its own position.
        bias: what is added to the scores (ALiBi); None is nothing.
        past: where earlier keys and values are kept while decoding.
        explicit: compute scores and pattern one by one also where nobody listens to them.
    """

    positions: Int[Tensor, "batch query"]
    allowed: Bool[Tensor, "#batch 1 query key"] | None
    bias: Float[Tensor, "#batch head query key"] | None
    past: KeyValues | None = None
    explicit: bool = False

    @property
    def n_keys(self) -> int:
        """How many key slots the queries look at."""
        return self.positions.shape[1] if self.allowed is None else self.allowed.shape[-1]


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
    return View(positions, allowed, bias)


def continued(config: ModelConfig, past: KeyValues, new: int, dtype: torch.dtype) -> View:
    """The view of `new` tokens that continue each row of `past`: every slot up to the query's own position."""
    positions = past.positions(new)
    slots = torch.arange(int(positions.max()) + 1, device=positions.device)
    allowed = slots <= positions[:, None, :, None]
    bias = alibi_bias(config.n_heads, positions, slots[None], dtype) if config.positions == "alibi" else None
    return View(positions, allowed, bias, past)


def place(real: Bool[Tensor, "batch position"]) -> Int[Tensor, "batch position"]:
    """The position of each token among the tokens of its row; padding counts none."""
    return (real.cumsum(1) - 1).clamp(min=0)
