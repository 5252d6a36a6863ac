"""The keys and values of tokens that were read before, so that decoding does not read them again."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.config import ModelConfig


class KeyValues:
    """Keys and values of every layer, one slot for each absolute position of each row.

    Rows fill up by themselves: `lengths` [batch] counts the tokens that each has read, and the next goes into the slot of
    that number. `even` is that number where it is the same in all rows, else None; even rows need no mask and no scatter.
    """

    def __init__(
        self, config: ModelConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.n_layers, batch, min(capacity, config.n_ctx), config.kv_heads, config.d_head)
        self._slots = shape[2]
        self._keys, self._values = (torch.zeros(shape, dtype=dtype, device=device).unbind() for _ in range(2))
        self.lengths = torch.zeros(batch, dtype=torch.long, device=device)
        self.even: int | None = 0

    def positions(self, new: int) -> Int[Tensor, "batch new"]:
        """The absolute positions of the next tokens of each row; past the last slot (padding only), that slot."""
        following = torch.arange(new, device=self.lengths.device)
        return (self.lengths[:, None] + following).clamp(max=self._slots - 1)

    def extend(
        self,
        layer: int,
        positions: Int[Tensor, "batch new"],
        keys: Float[Tensor, "batch new kv_head d_head"],
        values: Float[Tensor, "batch new kv_head d_head"],
        used: int,
    ) -> tuple[Float[Tensor, "batch used kv_head d_head"], Float[Tensor, "batch used kv_head d_head"]]:
        """Put new keys and values into their slots and return the first `used` slots of the layer."""
        kept_keys, kept_values = self._keys[layer], self._values[layer]
        if self.even is not None:
            for kept, new in ((kept_keys, keys), (kept_values, values)):
                kept.narrow(1, self.even, new.shape[1]).copy_(new)
        else:
            rows = torch.arange(len(positions), device=positions.device)[:, None]
            kept_keys[rows, positions], kept_values[rows, positions] = keys, values
        return kept_keys.narrow(1, 0, used), kept_values.narrow(1, 0, used)

    def advance(self, real: Bool[Tensor, "batch new"]) -> None:
        """Count the tokens that were read; padding counts none."""
        self.lengths += real.sum(1)
        self.even = self.even + real.shape[1] if self.even is not None and bool(real.all()) else None
