"""Parts of long work, kept as they are finished, so that a run that is stopped goes on from there."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from analyses.results import as_json
from interp.errors import InterpError
from interp.files import make_folder, regular, write_whole
from interp.model import Transformer

Arrays = dict[str, np.ndarray]
DIGEST = "digest"


class Kept:
    """A folder of finished parts.

    Args:
        folder: is made with the first part; None keeps nothing.
        request: JSON values on which the numbers depend. A folder that holds parts of another request is an error.
    """

    def __init__(self, folder: Path | None, request: Mapping[str, Any]) -> None:
        self._folder = folder
        if folder is None:
            return
        about, asked = folder / "request.json", as_json(dict(request), sort_keys=True, indent=1)
        try:
            foreign = _is_there(folder) and (not folder.is_dir() or (not about.exists() and any(folder.iterdir())))
        except (OSError, ValueError) as error:  # a name that is too long or has a NUL in it, or a folder of others
            said = getattr(error, "strerror", None) or error
            raise InterpError(f"{str(folder)[:80]!r} cannot keep parts: {said}.") from error
        if foreign:
            raise InterpError(f"{folder} is no folder of kept parts; name another, or an empty one.")
        self._about, self._said = about, asked
        self._check()

    def part(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """The part of that name: read where it is there and whole, else computed and kept."""
        if self._folder is None:
            return compute()
        path = self._folder / f"{name}.safetensors"
        if path.exists():
            self._check()
            with suppress(OSError, SafetensorError):  # damaged: it is written anew
                if (there := _whole(regular(path))) is not None:
                    return there
        found = compute()
        self._claim(self._folder)
        whole = {key: np.ascontiguousarray(values) for key, values in found.items()}
        write_whole(path, lambda temporary: save_file(whole, temporary, {DIGEST: _digest(whole)}))
        return found

    def _check(self) -> None:
        if self._about.exists() and _text(self._about) != self._said:
            raise InterpError(
                f"{self._about.parent} holds parts of another request (other model, prompts or options). Name another folder, or delete it."
            )

    def _claim(self, folder: Path) -> None:
        """Say whose parts the folder has; of several processes that begin one, the first does, and others must ask for the same."""
        make_folder(folder)
        if not self._about.exists():
            try:
                write_whole(self._about, lambda about: about.write_text(self._said, encoding="utf-8"), overwrite=False)
            except InterpError:
                if not self._about.exists():
                    raise
        self._check()


def _whole(path: Path) -> Arrays | None:
    """The arrays of a part; None where they are not those that were written."""
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        return arrays if (file.metadata() or {}).get(DIGEST) == _digest(arrays) else None


def _digest(arrays: Arrays) -> str:
    digest = xxhash.xxh3_128()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def request_of(
    model: Transformer, prompts: Sequence[Tensor], parameters: Mapping[str, Any], seed: int | None
) -> dict[str, Any]:
    """What kept parts depend on, besides the memory that bounds how much runs together."""
    about = {"model": model.weight_hash(), "config": model.config.to_dict(), "device": str(model.device)}
    return about | {"prompts": [rows.tolist() for rows in prompts], "seed": seed, "parameters": dict(parameters)}


def _is_there(path: Path) -> bool:
    """Whether anything has that name, also a link that leads nowhere. Raises OSError or ValueError for what can be no name."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return regular(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InterpError(f"{path} cannot be read: {error}. Name another folder, or delete it.") from error
