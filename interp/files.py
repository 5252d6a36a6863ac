"""Files that are written whole or not at all, and read only where they are regular ones."""

import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from interp.errors import InterpError

if sys.platform != "win32":
    import fcntl

UNFINISHED = ".criticalpile"
"""How the names of temporary files and folders end."""


def write_whole(path: Path, write: Callable[[Path], object], *, overwrite: bool = True) -> None:
    """Have `write` fill a temporary file beside `path`, then put it in its place, in one step.

    On any failure, Ctrl-C included, nothing is left behind and an older file stays as it was; what a killed process left in that folder
    is removed. A link is followed, and an older file's mode is kept. Of several processes that make one new file, one makes it and the
    others raise.

    Raises:
        InterpError: the file exists and `overwrite` is False, it is no regular file, its folder does not exist, or the disk refuses.
    """
    check_free(path, overwrite=overwrite)
    target = Path(os.path.realpath(path))
    sweep(target.parent)
    try:
        with _temporary(target) as temporary:
            write(temporary)
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            _put(temporary, target, overwrite=overwrite)
    except FileExistsError as error:
        raise InterpError(_kept(path, "overwrite=True")) from error
    except (OSError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or error
        raise InterpError(f"{path} could not be written: {said}. Nothing was changed.") from error


def check_free(path: Path, *, overwrite: bool, by: str = "overwrite=True") -> None:
    """Raise InterpError where a file could not be put at `path`: to be asked before long work, not after.

    Args:
        by: what the user gives to have an existing file overwritten, for the message.
    """
    try:
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode if target.exists() else None
        parent = target.parent.is_dir()
    except (OSError, ValueError) as error:  # a name too long, with a NUL in it, or a link that leads to itself
        raise InterpError(f"{str(path)!r} cannot name a file: {getattr(error, 'strerror', None) or error}.") from error
    if target.is_symlink():
        raise InterpError(f"{path} is a link that leads back to itself; name a file.")
    if mode is not None and stat.S_ISDIR(mode):
        raise InterpError(f"{path} is a folder; name a file.")
    if mode is not None and not stat.S_ISREG(mode):
        raise InterpError(f"{path} is a device, a pipe or a socket, and stays one; name a file.")
    if not parent:
        raise InterpError(f"the folder {path.parent} does not exist; create it first.")
    if mode is not None and not overwrite:
        raise InterpError(_kept(path, by))
    if mode is not None and not os.access(target, os.W_OK):
        raise InterpError(f"{path} may not be written to; choose another name, or make it writable (chmod u+w).")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InterpError(f"the folder {path.parent} may not be written to; choose another.")


def regular(path: str | Path) -> Path:
    """The path, once it is known that a regular file is there: to open a pipe or a device may take for ever.

    Raises OSError, as opening does where there is nothing.
    """
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, no regular file", str(path))
    return Path(path)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are not there. Raises InterpError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        said = getattr(error, "strerror", None) or error
        raise InterpError(f"the folder {folder} cannot be made: {said}.") from error


@contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """A folder in another, removed afterwards; if the process is killed, by the next one that calls `sweep` there."""
    place = beside / f".{secrets.token_hex(4)}{UNFINISHED}"
    place.mkdir()
    lock = _locked(place)
    try:
        yield place
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(place, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders of processes that are no more. Those of living ones are locked."""
    for place in folder.glob(f".*{UNFINISHED}"):
        if sys.platform == "win32":
            return
        with suppress(OSError):  # it is another process', or gone already
            lock = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if place.is_dir():
                    shutil.rmtree(place)
                else:
                    place.unlink()
            finally:
                os.close(lock)


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """An empty file beside another, with the mode that new files have."""
    while True:
        place = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}{UNFINISHED}")
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        lock = _locked(place)
        if place.exists():  # else it was swept before it was locked
            break
    try:
        yield place
    finally:
        place.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def _locked(place: Path) -> int | None:
    """A descriptor that locks a file or folder as long as it is open; None where the system has no such locks."""
    if sys.platform == "win32":
        return None
    try:
        lock = os.open(place, os.O_RDONLY)
    except FileNotFoundError:  # swept
        return None
    with suppress(OSError):  # a file system without locks, where nothing is swept either
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _put(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Give a file its name. Raises FileExistsError where the name is taken and may not be."""
    if overwrite:
        temporary.replace(target)
        return
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: the name is taken by an empty file, then by the whole one
        os.close(os.open(target, os.O_CREAT | os.O_EXCL))
        temporary.replace(target)


def _kept(path: Path, by: str) -> str:
    return f"{path} exists already and is kept. Choose another name, or have it overwritten by {by}."
