"""Facts about a model's weights: what tells them from others, where they are, in what precision."""

import hashlib

import torch
import xxhash
from torch import Tensor, nn


class Fingerprinted(nn.Module):
    """A module that can say which weights it has. All its weights are in one place and of one dtype."""

    format: str | None = None
    """Of the checkpoint that the weights were read from; `save_directory` writes it where it can hold the model."""
    source: str = ""
    """What the weights were read from, where the name does not say it: a file, and how it stores them."""
    _hashed: tuple[bytes, str] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and of everything computed from them."""
        return next(self.parameters()).dtype

    def weight_hash(self, dtype: torch.dtype | None = None) -> str:
        """SHA-256 of names, shapes, dtypes and bytes of all weights, in order.

        It is kept with a 128-bit hash of the same content (XXH3, at the speed of memory; some 0.05 s for GPT-2 against 0.35 s), which
        is computed at every call. A version counter would not do: a change through `weight.data` or numpy leaves it alone.

        Args:
            dtype: hash the weights as they are in that precision; None is their own.
        """
        asked = self.dtype if dtype is None else dtype
        weights = {name: weight.detach().cpu() for name, weight in self.state_dict().items()}
        content = xxhash.xxh3_128(str(asked).encode())
        for name, weight in weights.items():
            content.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            content.update(_bytes(weight))
        kept = self._hashed
        if kept is None or kept[0] != content.digest():
            digest = hashlib.sha256()
            for name, weight in weights.items():
                digest.update(f"{name} {tuple(weight.shape)} {asked}".encode())
                digest.update(_bytes(weight.to(asked)))
            self._hashed = kept = content.digest(), digest.hexdigest()
        return kept[1]


def _bytes(weight: Tensor) -> memoryview:
    return weight.contiguous().flatten().view(torch.uint8).numpy().data
