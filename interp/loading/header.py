"""What the header of a safetensors file says of its tensors; none of them is read."""

import errno
import os
import struct
from pathlib import Path
from typing import Any

from interp.errors import CheckpointError
from interp.files import regular
from interp.strict_json import parse

LONGEST = 100_000_000
"""Bytes; the library's own bound."""


def header_of(path: Path) -> dict[str, Any]:
    """What the header says of each tensor, by its name; its beginning is under "" and metadata under `__metadata__`.

    The file's layout: 8 bytes with the length of a JSON header, the header, then the tensors' bytes (safetensors' README).
    Raises CheckpointError for a file that is none or damaged, PermissionError for one that may not be read.
    """
    if path.exists() and not os.access(path, os.R_OK):  # safetensors says of such a file that it is not there
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    try:
        with regular(path).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(LONGEST, path.stat().st_size - 8):
                raise ValueError(f"its header is said to have {length} bytes")
            header = parse(file.read(length).decode("utf-8"))
        return {str(name): dict(entry) for name, entry in header.items()} | {"": {"start": 8 + length}}
    except (OSError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise damaged(path, error) from error


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a file, as its header says it; those that the file cannot hold are an error."""
    found = {}
    size = path.stat().st_size
    for name, entry in header_of(path).items():
        if name not in ("", "__metadata__"):
            try:
                found[name] = tuple(int(length) for length in entry["shape"])
                start, end = entry["data_offsets"]
                if not 0 <= start <= end <= size or (0 not in found[name] and start == end):
                    raise ValueError(f"{name} is said to lie beyond its end")
            except (KeyError, TypeError, ValueError) as error:
                raise damaged(path, error) from error
    return found


def damaged(path: Path, error: Exception) -> CheckpointError:
    """What to say of a file that cannot be read."""
    return CheckpointError(f"{path} is damaged or truncated, or no safetensors file: {error}")
