"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from interp.errors import InterpError


def write_whole(path: Path, write: Callable[[Path], object], *, overwrite: bool = True) -> None:
    """Have `write` fill a temporary file beside `path`, then rename it into place.

    On any failure, Ctrl-C included, nothing is left behind and an older file stays as it was.

    Raises:
        InterpError: the file exists and `overwrite` is False, its folder does not exist, or the disk refuses.
    """
    check_free(path, overwrite=overwrite)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        write(Path(temporary))
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise InterpError(f"{path} could not be written: {error.strerror or error}. Nothing was changed.") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def check_free(path: Path, *, overwrite: bool, by: str = "overwrite=True") -> None:
    """Raise InterpError where a file could not be put at `path`: to be asked before long work, not after.

    Args:
        by: what the user gives to have an existing file overwritten, for the message.
    """
    try:
        folder, exists, parent = path.is_dir(), path.exists(), path.parent.is_dir()
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise InterpError(f"{str(path)!r} cannot name a file: {getattr(error, 'strerror', None) or error}.") from error
    if folder:
        raise InterpError(f"{path} is a folder; name a file.")
    if not parent:
        raise InterpError(f"the folder {path.parent} does not exist; create it first.")
    if exists and not overwrite:
        raise InterpError(f"{path} exists already and is kept. Choose another name, or have it overwritten by {by}.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InterpError(f"the folder {path.parent} may not be written to; choose another.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
