"""Parts of long work, kept as they are finished, so that a run that is stopped goes on from there."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from analyses.results import as_json
from interp.errors import InterpError
from interp.files import make_folder, regular, write_whole
from interp.model import Transformer

Arrays = dict[str, np.ndarray]


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
        about, said = folder / "request.json", as_json(dict(request), sort_keys=True, indent=1)
        try:
            there = folder.exists() or folder.is_symlink()
            foreign = there and (not folder.is_dir() or (not about.exists() and any(folder.iterdir())))
        except OSError as error:  # a name that is too long, or a folder of others
            raise InterpError(f"{str(folder)[:80]!r} cannot keep parts: {error.strerror or error}.") from error
        if foreign:
            raise InterpError(f"{folder} is no folder of kept parts; name another, or an empty one.")
        if about.exists() and _text(about) != said:
            raise InterpError(
                f"{folder} holds parts of another request (other model, prompts or options). Name another folder, or delete it."
            )
        self._said = said

    def part(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """The part of that name: read where it is there and whole, else computed and kept."""
        if self._folder is None:
            return compute()
        path = self._folder / f"{name}.safetensors"
        if path.exists():
            with suppress(OSError, SafetensorError):  # damaged: it is written anew
                return load_file(regular(path))
        found = compute()
        make_folder(self._folder)
        write_whole(self._folder / "request.json", lambda about: about.write_text(self._said, encoding="utf-8"))
        whole = {key: np.ascontiguousarray(values) for key, values in found.items()}
        write_whole(path, lambda temporary: save_file(whole, temporary))
        return found


def request_of(
    model: Transformer, prompts: Sequence[Tensor], parameters: Mapping[str, Any], seed: int | None
) -> dict[str, Any]:
    """What kept parts depend on, besides the memory that bounds how much runs together."""
    about = {"model": model.weight_hash(), "config": model.config.to_dict(), "device": str(model.device)}
    return about | {"prompts": [rows.tolist() for rows in prompts], "seed": seed, "parameters": dict(parameters)}


def _text(path: Path) -> str:
    try:
        return regular(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InterpError(f"{path} cannot be read: {error}. Name another folder, or delete it.") from error
