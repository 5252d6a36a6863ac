"""Facts about a model's weights: what tells them from others, where they are, in what precision."""

import hashlib

import torch
from torch import nn


class Fingerprinted(nn.Module):
    """A module that can say which weights it has. All its weights are in one place and of one dtype."""

    _hashed: tuple[tuple[object, ...], str] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and of everything computed from them."""
        return next(self.parameters()).dtype

    def weight_hash(self, dtype: torch.dtype | None = None) -> str:
        """SHA-256 of names, shapes, dtypes and bytes of all weights, in order; computed again only after they changed.

        Args:
            dtype: hash the weights as they are in that precision; None is their own.
        """
        asked = self.dtype if dtype is None else dtype
        state = (asked, *((p.data_ptr(), p._version) for p in self.parameters()))
        if self._hashed is None or self._hashed[0] != state:
            digest = hashlib.sha256()
            for name, weight in self.state_dict().items():
                digest.update(f"{name} {tuple(weight.shape)} {asked}".encode())
                digest.update(weight.detach().to("cpu", asked).contiguous().view(torch.uint8).numpy().data)
            self._hashed = state, digest.hexdigest()
        return self._hashed[1]
