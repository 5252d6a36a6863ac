"""Facts about a model's weights: what tells them from others, where they are, in what precision."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn

from interp.errors import CheckpointError

Identity = tuple[int, ...]


def identity(path: Path) -> Identity:
    """What tells a file, as it is now, from another one and from itself once it is written to."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Mapped:
    """Files whose bytes are weights in memory: whoever writes into such a file changes the model.

    Args:
        files: each as it was when it was read.
        places: the addresses of what was read from them.
    """

    files: Mapping[Path, Identity]
    places: frozenset[int]

    def holds(self, weight: Tensor) -> bool:
        """Whether a weight lies in one of the files, not in memory of its own."""
        return weight.untyped_storage().data_ptr() in self.places

    def check(self) -> None:
        """Raise CheckpointError where a file was written to. One that was replaced or deleted stays as it was as long as it is mapped."""
        for path, before in self.files.items():
            try:
                now = identity(path)
            except OSError:  # deleted
                continue
            if now[:2] == before[:2] and now != before:
                raise CheckpointError(
                    f"{path} was written to after a model was loaded from it, whose weights are the bytes of that file. Load it again; "
                    "interp.load(..., copy=True) makes a model that does not depend on its file."
                )


class Fingerprinted(nn.Module):
    """A module that can say which weights it has. All its weights are in one place and of one dtype."""

    format: str | None = None
    """Of the checkpoint that the weights were read from; `save_directory` writes it where it can hold the model."""
    source: str = ""
    """What the weights were read from, where the name does not say it: a file, and how it stores them."""
    mapped: Mapped | None = None
    """The files in which weights lie, where they were not copied."""
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

        It is kept with a 128-bit hash of each weight (XXH3, at the speed of memory; some 0.03 s for GPT-2 against 0.35 s), which are
        computed at every call. A version counter would not do: a change through `weight.data` or numpy leaves it alone.

        Args:
            dtype: hash the weights as they are in that precision; None is their own.

        Raises:
            CheckpointError: the file that the weights lie in was written to since they were loaded.
        """
        asked = self.dtype if dtype is None else dtype
        weights = {name: weight.detach().cpu() for name, weight in self.state_dict().items()}
        if self.mapped is not None and any(map(self.mapped.holds, weights.values())):
            self.mapped.check()
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            content = b"".join([str(asked).encode(), *threads.map(_content, weights, weights.values())])
        kept = self._hashed
        if kept is None or kept[0] != content:
            digest = hashlib.sha256()
            for name, weight in weights.items():
                digest.update(f"{name} {tuple(weight.shape)} {asked}".encode())
                digest.update(_bytes(weight.to(asked)))
            self._hashed = kept = content, digest.hexdigest()
        return kept[1]


def _content(name: str, weight: Tensor) -> bytes:
    """A 128-bit hash of a weight and what it is called."""
    turned = weight.ndim == 2 and weight.mT.is_contiguous()  # as it lies, which takes no copy
    content = xxhash.xxh3_128(f"{name} {tuple(weight.shape)} {weight.dtype} {turned}".encode())
    content.update(_bytes(weight.mT if turned else weight))
    return content.digest()


def _bytes(weight: Tensor) -> memoryview:
    return weight.contiguous().flatten().view(torch.uint8).numpy().data
