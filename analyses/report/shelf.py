"""Results of steps, kept on disk under everything that shapes them."""

import hashlib
import os
import platform
import re
import shutil
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import xarray as xr
import xxhash
from platformdirs import user_cache_path

from analyses.report.arrays import read_arrays, write_arrays
from analyses.report.steps import Compute
from analyses.results import as_json
from interp.errors import InterpError, ResultError
from interp.files import regular, write_whole
from interp.hooks import check_unhooked
from interp.model import Transformer

PACKAGES = ("interp", "analyses")
VERSIONS = ("criticalpile", "torch", "numpy", "scipy", "xarray")
NOTHING = "nothing"
"""The kind of what is kept where the model has no such result."""

TWINS = "CRITICALPILE_TWINS"
"""The environment variable that names another folder for what is measured of random-init twins."""
REQUEST, WRITTEN = re.compile("[0-9a-f]{32}"), (".npz", ".xxh3")
"""The names of a shelf's folders, and the endings of the files in them."""
opened: set[Path] = set()
"""The folders of this process' shelves."""
MOST = 200_000_000
"""Bytes that this folder may hold; beyond them what was not used for longest is removed."""


class Shelf:
    """Finished results of one request: a file each in a folder that is named by a hash of the request. Several processes may use it.

    Args:
        root: where that folder is made, with the first result; None keeps nothing.
        request: JSON values on which the numbers depend.
        most: bytes that `root` may hold; None is no bound.
        otherwise: where results are kept if they cannot be here.
    """

    def __init__(
        self,
        root: Path | None,
        request: Mapping[str, Any],
        *,
        most: int | None = None,
        otherwise: "Shelf | None" = None,
    ) -> None:
        said = as_json(dict(request), sort_keys=True)
        self.root, self._most, self._otherwise = root, most, otherwise
        self.folder = None if root is None else root / hashlib.sha256(said.encode()).hexdigest()[:32]
        if self.folder is not None:
            opened.add(self.folder)

    def part(self, name: str, compute: Compute) -> xr.Dataset | None:
        """The result of that name: read where it is there whole, else computed and kept. What cannot be kept is a warning, once."""
        if self.folder is None:
            return compute() if self._otherwise is None else self._otherwise.part(name, compute)
        path = self.folder / f"{name}.npz"
        kept = _read(path)
        if kept is None:
            result = compute()
            self._write(path, xr.Dataset(attrs={"kind": NOTHING}) if result is None else result)
            return result if self.folder is not None else self.part(name, lambda: result)
        return None if kept.attrs["kind"] == NOTHING else kept

    def _write(self, path: Path, result: xr.Dataset) -> None:
        assert self.root is not None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda temporary: write_arrays(result, temporary))
            digest = _digest(path)
            write_whole(_sum(path), lambda temporary: temporary.write_text(digest, encoding="ascii"))
            if self._most is not None:
                os.utime(path.parent)
                _prune(self.root, path.parent, self._most)
        except (OSError, InterpError) as error:
            self.folder = None
            warnings.warn(f"results cannot be kept in {self.root}, and will be computed again: {error}", stacklevel=2)


def _sum(path: Path) -> Path:
    return path.with_suffix(".xxh3")


def _digest(path: Path) -> str:
    return xxhash.xxh3_128_hexdigest(regular(path).read_bytes())


def _read(path: Path) -> xr.Dataset | None:
    """A result that is there, and as it was written."""
    try:
        if regular(_sum(path)).read_text(encoding="ascii") != _digest(path):
            return None
        return read_arrays(path)
    except (OSError, UnicodeDecodeError, ResultError):  # never written, damaged, or removed meanwhile
        return None


def _prune(root: Path, own: Path, most: int) -> None:
    """Remove whole requests, the oldest first, until no more than so many bytes are there; never our own, nor what no shelf wrote."""
    sizes, ages = {}, {}
    for folder in root.iterdir():
        if not REQUEST.fullmatch(folder.name):
            continue
        try:
            files = list(folder.iterdir())
            if any(file.suffix not in WRITTEN for file in files):
                continue
            sizes[folder] = sum(file.stat().st_size for file in files)
            ages[folder] = folder.stat().st_mtime
        except OSError:  # another process has removed it, or it is no folder
            continue
    for folder in sorted(ages, key=ages.__getitem__):
        if sum(sizes.values()) <= most:
            return
        if folder != own:
            shutil.rmtree(folder, ignore_errors=True)
            sizes.pop(folder)


def parts_shelf(folder: Path | None, model: Transformer, asked: Mapping[str, Any]) -> Shelf:
    """For the finished parts of a command about a model.

    Args:
        asked: token ids and every option, as JSON values.
    """
    if folder is None:
        return Shelf(None, {})
    check_unhooked(model, "finished parts")
    about = {"weights": model.weight_hash(), "source": model.source}
    return Shelf(folder, {**_shape(model), **about, **asked})


def twins_shelf(model: Transformer, asked: Mapping[str, Any], otherwise: Shelf | None = None) -> Shelf:
    """For what is measured of a model's random-init twin, which no weight of the model shapes: in the user's cache."""
    named = os.environ.get(TWINS)
    root = Path(named) if named else user_cache_path("criticalpile") / "twins"
    shelf = Shelf(root, {**_shape(model), **asked}, most=MOST, otherwise=otherwise)
    if shelf.folder is not None and shelf.folder.is_dir():
        try:
            os.utime(shelf.folder)  # it is in use, so others are removed first
        except OSError:
            return shelf  # readable, not ours to touch
    return shelf


def _shape(model: Transformer) -> dict[str, Any]:
    """Everything about a model but its weights, and about what computes."""
    tokenizer = model.tokenizer
    return {
        "model": model.name,
        "config": model.config.to_dict(),
        "tokenizer": None if tokenizer is None else [tokenizer.hash(), tokenizer.bos, tokenizer.eos, tokenizer.opening],
        "dtype": str(model.dtype),
        "default_dtype": str(torch.get_default_dtype()),
        "device": str(model.device),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
        "code": code_hash(),
    }


@cache
def code_hash() -> str:
    """SHA-256 of the source of both packages, so that what other code computed is never taken up, and of the lenses that come with them."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        root = Path(str(files(package)))
        for path in sorted([*root.rglob("*.py"), *(root / "lenses").rglob("*.safetensors")]):
            content = path.read_bytes()
            digest.update(f"{package} {path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()
