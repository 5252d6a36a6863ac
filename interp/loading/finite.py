"""Weights that are no numbers are refused. A file is checked by reading it in pieces, so that its mapping stays untouched."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from interp.errors import CheckpointError

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PIECE = 2**20  # bytes; small enough to stay in the processor's cache


def check_file(path: Path) -> None:
    """Raise CheckpointError where a floating-point tensor of a safetensors file holds NaN or an infinity.

    The file's layout: 8 bytes with the length of a JSON header, the header, then the tensors' bytes (safetensors' README).
    """
    with path.open("rb", buffering=0) as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        piece = bytearray(PIECE)
        for name, entry in header.items():
            if name == "__metadata__" or entry["dtype"] not in FLOATS:
                continue
            start, end = entry["data_offsets"]
            file.seek(8 + length + start)
            for offset in range(start, end, PIECE):
                view = memoryview(piece)[: min(PIECE, end - offset)]
                file.readinto(view)
                _check(torch.frombuffer(view, dtype=FLOATS[entry["dtype"]]), name, str(path))


def check_tensors(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError where a floating-point tensor holds NaN or an infinity."""
    for name, value in tensors.items():
        if value.is_floating_point():
            _check(value, name, source)


def _check(value: Tensor, name: str, source: str) -> None:
    if value.numel() and not all(
        torch.isfinite(end) for end in torch.aminmax(value)
    ):  # both show it; nothing is copied
        raise CheckpointError(f"{source}: {name} holds NaN or infinite values; the checkpoint is damaged.")
