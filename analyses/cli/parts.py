"""What is left of long work that was stopped or of which a step failed, so that the same command goes on from there."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    import xarray as xr

UNFINISHED = "unfinished.json"


def folder_of(out: Path) -> Path:
    """The folder for finished parts, beside the output."""
    return out.with_name(out.name + ".parts")


@contextmanager
def parts_of(out: Path) -> Iterator[Path]:
    """A folder beside the output for finished parts of long work: removed when all is done, kept when it is stopped or something fails."""
    parts = folder_of(out)
    try:
        yield parts
    except BaseException as error:
        if parts.is_dir():
            stopped = "Stopped. " if isinstance(error, KeyboardInterrupt) else ""
            said = f"{stopped}Finished parts are in {escape(str(parts))}; the same command goes on from there."
            Console(stderr=True, highlight=False).print(said, soft_wrap=True)
        raise
    _remove(parts)


def _remove(parts: Path) -> None:
    """Remove what this command put there; what others did, other stopped commands included, stays, and the folder with it."""
    from analyses.report.shelf import opened

    if not parts.is_dir():
        return
    if _left(parts / UNFINISHED) is not None:
        (parts / UNFINISHED).unlink()
    for folder in parts.iterdir():
        if folder in opened and not folder.is_symlink():
            _clear(folder)
    if not any(parts.iterdir()):
        parts.rmdir()


def _clear(folder: Path) -> None:
    """Remove finished parts, and a folder that is empty then."""
    from analyses.report.shelf import WRITTEN
    from interp.files import sweep

    sweep(folder)
    for place in list(folder.iterdir()):
        if place.is_dir() and not place.is_symlink():
            _clear(place)
        elif place.suffix in (*WRITTEN, ".safetensors") or place.name == "request.json":
            place.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def check_whole(results: "Mapping[str, xr.Dataset]", asked: Mapping[str, Any], *written: Path | None) -> None:
    """Within `parts_of`, after all is written: tell what was left out and why, and end with exit status 1, where something was.

    Args:
        asked: the command and its options.
        written: the files, and folders of results, that the same command may overwrite as it goes on.
    """
    from analyses.report.steps import left_out
    from interp.files import make_folder, write_whole

    if not (lacking := left_out(results)):
        return
    console = Console(stderr=True, highlight=False)
    for one in lacking:
        console.print(f"[bold red]{escape(str(one))}[/]", soft_wrap=True)
    parts = folder_of(asked["out"])
    make_folder(parts)
    about = {"command": _command(asked), "files": {str(file): _digest(file) for file in _files(*written)}}
    write_whole(parts / UNFINISHED, lambda temporary: temporary.write_text(json.dumps(about), encoding="utf-8"))
    raise typer.Exit(1)


def goes_on(asked: Mapping[str, Any], *written: Path | None) -> bool:
    """Whether the same command has left all these files, short of something, and nobody has changed them: they may be overwritten."""
    known = _left(folder_of(asked["out"]) / UNFINISHED)
    if known is None or known["command"] != _command(asked):
        return False
    return all(known["files"].get(str(file)) == _digest(file) for file in _files(*written))


def _left(about: Path) -> dict[str, Any] | None:
    """What a command left that lacks something: itself, and the files that it wrote; None where there is none of ours."""
    from interp.files import regular
    from interp.strict_json import parse

    try:
        known = parse(regular(about).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(known, dict) and known.keys() == {"command", "files"} and isinstance(known["files"], dict)
    return known if ours else None


def _command(asked: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in asked.items() if name != "force"}, default=str, sort_keys=True)


def _files(*written: Path | None) -> list[Path]:
    """Those that are there; of a folder, its results."""
    places = [place for place in written if place is not None]
    return [
        file
        for place in places
        for file in (sorted(place.glob("*.nc")) if place.is_dir() else [place])
        if file.is_file()
    ]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
