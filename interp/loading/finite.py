"""Weights that are no numbers are refused. A file is checked by reading it in pieces, so that its mapping stays untouched."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from interp.errors import CheckpointError
from interp.loading.header import header_of

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PIECE = 2**20  # bytes; small enough to stay in the processor's cache


def check_file(path: Path) -> None:
    """Raise CheckpointError where a floating-point tensor of a safetensors file holds NaN or an infinity."""
    header = header_of(path)
    with path.open("rb", buffering=0) as file:
        piece = bytearray(PIECE)
        for name, entry in header.items():
            if name in ("", "__metadata__") or entry["dtype"] not in FLOATS:
                continue
            start, end = entry["data_offsets"]
            file.seek(header[""]["start"] + start)
            for offset in range(start, end, PIECE):
                view = memoryview(piece)[: min(PIECE, end - offset)]
                file.readinto(view)
                _check(torch.frombuffer(view, dtype=FLOATS[entry["dtype"]]), name, str(path))


def check_tensors(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError where a floating-point tensor holds NaN or an infinity."""
    for name, value in tensors.items():
        if value.is_floating_point():
            _check(value, name, source)


def check_cast(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError where a tensor that was finite is so no more in the precision that it was given."""
    for name, value in tensors.items():
        if value.is_floating_point() and not _finite(value):
            raise CheckpointError(
                f"{source}: {name} holds values that are infinite in {value.dtype}. Load it in a wider one, such as float32 (dtype=)."
            )


def _finite(value: Tensor) -> bool:
    # Both ends show NaN and infinities; nothing is copied.
    return not value.numel() or all(bool(torch.isfinite(end)) for end in torch.aminmax(value))


def _check(value: Tensor, name: str, source: str) -> None:
    if not _finite(value):
        raise CheckpointError(f"{source}: {name} holds NaN or infinite values; the checkpoint is damaged.")
