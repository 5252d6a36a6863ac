"""The GGUF container, versions 2 and 3, little-endian: metadata, the table of tensors, and their weights.

The layout is that of ggml's specification (docs/gguf.md): magic, version, counts, keys with values, the tensors' names, shapes, types and
offsets, padding, data. The header is walked here: the library's own reader makes a numpy array of every string of a vocabulary, which takes
seconds and hundreds of megabytes. Types, the sizes of their blocks and what a block means are the library's.
"""

import math
import mmap
import os
import stat
import struct
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, quants
from jaxtyping import Float
from torch import Tensor

from interp.errors import CheckpointError
from interp.loading.finite import check_cast, check_tensors

MAGIC, VERSIONS = b"GGUF", (2, 3)
ALIGNMENT = 32  # of a tensor's data, where general.alignment says no other
MOST_DIMENSIONS = 4
PIECE = 2**17  # weights that are made of their blocks at once; few enough to stay in the processor's cache

SCALARS = {
    GGUFValueType.UINT8: "u1",
    GGUFValueType.INT8: "i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.FLOAT64: "<f8",
    GGUFValueType.BOOL: "?",
}


class Stored(NamedTuple):
    """A tensor in the file: how its weights are stored, and where. The shape is torch's, the slowest dimension first."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    start: int
    size: int  # bytes


class Container:
    """A GGUF file's header, read; weights are read when they are asked for.

    Attributes:
        metadata: every key with its value: a number, a string, a truth value, or a list of one of these.
        tensors: what is stored, by name.

    Raises:
        CheckpointError: no regular file, not GGUF, of a version or byte order that is not read, truncated, or with weights of a type that
            the library does not know or cannot dequantise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _mapped(path) as content:
            header = Header(content, path)
            n_tensors, n_pairs = header.begin()
            self.metadata: dict[str, Any] = header.pairs(n_pairs)
            infos = [header.info() for _ in range(n_tensors)]
            alignment = self.metadata.get("general.alignment", ALIGNMENT)
            if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
                raise CheckpointError(f"{path}: general.alignment = {alignment!r} must be a power of two.")
            data = -(-header.at // alignment) * alignment
            self.tensors: dict[str, Stored] = {}
            for name, shape, kind, offset in infos:
                if name in self.tensors:
                    raise CheckpointError(f"{path}: there are two tensors named {name!r}.")
                size = _bytes(path, name, shape, kind)
                if data + offset + size > len(content):
                    raise CheckpointError(
                        f"{path} is truncated: {name} ends at byte {data + offset + size}, and the file has {len(content)}."
                    )
                self.tensors[name] = Stored(name, shape, GGMLQuantizationType(kind), data + offset, size)

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """A tensor's weights, dequantised piece by piece into the dtype asked for.

        Raises CheckpointError where the file has become shorter, or a weight is not finite.
        """
        stored = self.tensors[name]
        block, width = GGML_QUANT_SIZES[stored.type]
        weights = torch.empty(stored.shape, dtype=dtype)
        flat = weights.view(-1)
        step = max(PIECE // block, 1)  # blocks
        with self.path.open("rb", buffering=0) as file:
            file.seek(stored.start)
            for first in range(0, flat.numel() // block, step):
                wanted = width * min(step, flat.numel() // block - first)
                content = file.read(wanted)
                if len(content) < wanted:
                    raise CheckpointError(f"{self.path} is truncated: {name} is not whole.")
                piece = torch.from_numpy(np.require(_weights(content, stored.type), requirements="W"))
                check_tensors({name: piece}, str(self.path))
                cast = flat[first * block : first * block + piece.numel()]
                cast[:] = piece
                check_cast({name: cast}, str(self.path))
        return weights

    def kinds(self) -> dict[str, int]:
        """How many tensors are stored in each type, the most frequent first."""
        names = [stored.type.name for stored in self.tensors.values()]
        return {name: names.count(name) for name in sorted(set(names), key=lambda n: (-names.count(n), n))}


class Header:
    """A place in a file's header that moves on with what is read."""

    def __init__(self, content: mmap.mmap, path: Path) -> None:
        self.content, self.path, self.at = content, path, 0

    def begin(self) -> tuple[int, int]:
        """How many tensors and how many pairs there are, once magic and version are found right."""
        if self._take(4) != MAGIC:
            raise CheckpointError(f"{self.path} is no GGUF file: it does not begin with {MAGIC.decode()}.")
        (version,) = struct.unpack("<I", self._take(4))
        if version and version & 0xFFFF == 0:
            raise CheckpointError(
                f"{self.path} is a big-endian GGUF file, which is not read. Convert it: gguf-convert-endian {self.path} little."
            )
        if version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise CheckpointError(f"{self.path} is GGUF version {version}; versions {known} are read.")
        n_tensors, n_pairs = struct.unpack("<QQ", self._take(16))
        return n_tensors, n_pairs

    def pairs(self, count: int) -> dict[str, Any]:
        """The metadata."""
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.string()
            if key in found:
                raise CheckpointError(f"{self.path}: the metadata has {key!r} twice.")
            found[key] = self._value(self._type(key), key)
        return found

    def info(self) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's name, shape, type, and place after the beginning of the data."""
        name = self.string()
        (dimensions,) = struct.unpack("<I", self._take(4))
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise CheckpointError(
                f"{self.path}: {name!r} has {dimensions} dimensions; 1 to {MOST_DIMENSIONS} are possible."
            )
        *shape, kind, offset = struct.unpack(f"<{dimensions}QIQ", self._take(8 * dimensions + 12))
        return name, tuple(reversed(shape)), kind, offset

    def string(self) -> str:
        """A length, then UTF-8."""
        return self._strings(1)[0]

    def _type(self, key: str) -> GGUFValueType:
        (kind,) = struct.unpack("<I", self._take(4))
        try:
            return GGUFValueType(kind)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {key!r} has a value of the unknown type {kind}.") from error

    def _value(self, kind: GGUFValueType, key: str) -> Any:
        if kind == GGUFValueType.STRING:
            return self.string()
        if kind != GGUFValueType.ARRAY:
            return self._numbers(kind, 1)[0]
        inner = self._type(key)
        (count,) = struct.unpack("<Q", self._take(8))
        if inner == GGUFValueType.ARRAY:
            raise CheckpointError(f"{self.path}: {key!r} is an array of arrays, which is not read.")
        return self._strings(count) if inner == GGUFValueType.STRING else self._numbers(inner, count)

    def _numbers(self, kind: GGUFValueType, count: int) -> list[Any]:
        width = np.dtype(SCALARS[kind]).itemsize
        values = np.frombuffer(self._take(width * count), SCALARS[kind])
        # A float32 that was written as 1e-5 is 1e-5 again, and not the float64 next to it.
        return [float(str(v)) for v in values] if kind == GGUFValueType.FLOAT32 and count == 1 else values.tolist()

    def _strings(self, count: int) -> list[str]:
        """Several strings. In one loop: a vocabulary has a hundred thousand."""
        content, at, end = self.content, self.at, len(self.content)
        found = []
        for _ in range(count):
            start = at + 8
            at = start + int.from_bytes(content[at:start], "little")
            if start > end or at > end:
                raise self._truncated()
            try:
                found.append(content[start:at].decode())
            except UnicodeDecodeError as error:
                raw = content[start:at][:40]
                raise CheckpointError(
                    f"{self.path} is damaged: a string of its header is no UTF-8: {raw!r}."
                ) from error
        self.at = at
        return found

    def _take(self, size: int) -> bytes:
        if size > len(self.content) - self.at:
            raise self._truncated()
        self.at += size
        return self.content[self.at - size : self.at]

    def _truncated(self) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is truncated: its header goes on after the file's {len(self.content)} bytes."
        )


def _mapped(path: Path) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointError(f"{path} is no regular file.")
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _bytes(path: Path, name: str, shape: tuple[int, ...], kind: int) -> int:
    """How many bytes the weights take; CheckpointError for a type that is unknown or does not fit the shape."""
    if kind not in GGMLQuantizationType._value2member_map_:
        raise CheckpointError(f"{path}: {name} has weights of type {kind}, which is unknown to the gguf library.")
    known = GGMLQuantizationType(kind)
    if not _readable(known):
        raise CheckpointError(
            f"{path}: {name} has weights of type {known.name}, which the gguf library cannot dequantise."
        )
    block, width = GGML_QUANT_SIZES[known]
    if shape[-1] % block:
        raise CheckpointError(
            f"{path}: {name} has rows of {shape[-1]} weights, which blocks of {block} ({known.name}) do not fill."
        )
    return math.prod(shape) // block * width


@cache
def _readable(kind: GGMLQuantizationType) -> bool:
    try:
        _weights(bytes(GGML_QUANT_SIZES[kind][1]), kind)
    except NotImplementedError:
        return False
    return True


def _weights(content: bytes, kind: GGMLQuantizationType) -> Float[np.ndarray, " weight"]:
    """The weights of some blocks. As one row: the library takes rows in groups of 16, and small ones one after the other."""
    if kind == GGMLQuantizationType.F64:
        return np.frombuffer(content, "<f8")
    weights: Float[np.ndarray, " weight"] = quants.dequantize(np.frombuffer(content, np.uint8)[None], kind).reshape(-1)
    return weights
