"""What a survey's folder says of itself: what was asked, which shards are done and whole, and all of it together at the end."""

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from analyses.results import VERSIONS, as_json
from analyses.survey.sources import digest
from interp.errors import InterpError, ResultError
from interp.files import UNFINISHED, make_folder, regular, write_whole
from interp.strict_json import parse

REQUEST, SHARDS, MANIFEST, REJECTED, TEMPLATE = "request.json", "shards", "manifest.json", "rejected", "template.nc"
REPORTED = {"shard", "rows", "accepted", "rejected", "reasons", "lengths", "files"}
"""What is said of a shard and needed later."""

SHOWN = 60
"""Characters of a value that is named in a message."""


def ask(folder: Path, request: Mapping[str, Any]) -> None:
    """Begin a survey in a folder, or go on with it.

    Raises InterpError for a folder of something else, or of a survey with another request, and says what differs.
    """
    about, asked = folder / REQUEST, as_json(dict(request), sort_keys=True, indent=1)
    try:
        there = list(folder.iterdir()) if folder.is_dir() else []
        if (
            any(not path.name.endswith(UNFINISHED) for path in there) and not about.exists()
        ):  # in this order: a request is written first
            raise InterpError(f"survey: {folder} is no folder of a survey; name another, or an empty one.")
        make_folder(folder)
    except OSError as error:
        raise InterpError(f"survey: {folder} cannot be written to: {error.strerror or error}.") from error
    if not about.exists():
        try:
            write_whole(about, lambda temporary: temporary.write_text(asked, encoding="utf-8"), overwrite=False)
        except InterpError:
            if not about.exists():  # else another process was quicker
                raise
    if differences := list(_differences(asked_in(folder), parse(asked), "")):
        raise InterpError(
            f"survey: {folder} holds a survey with another request: {'; '.join(differences)}. Name another folder, or delete it."
        )


def begun(folder: Path) -> bool:
    """Whether a survey has been begun in a folder."""
    return os.path.exists(folder / REQUEST)  # noqa: PTH110  False of a name that is too long, too, which `ask` names


def asked_in(folder: Path) -> dict[str, Any]:
    """The request of a survey. Raises ResultError where there is none."""
    try:
        found: dict[str, Any] = parse(regular(folder / REQUEST).read_text(encoding="utf-8"))
        if not (isinstance(found, dict) and isinstance(found.get("analysis"), str)):
            raise ValueError("it names no analysis")
    except (OSError, ValueError) as error:
        raise ResultError(f"{folder} is no folder of a survey: its {REQUEST} cannot be read ({error}).") from error
    return found


def _differences(before: Any, now: Any, where: str) -> Iterable[str]:
    """Where two requests differ, as texts."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            name = f"{where}.{key}" if where else key
            yield from _differences(before.get(key), now.get(key), name)
    elif before != now:
        yield f"{where} was {_short(before)} and is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def versions() -> dict[str, str]:
    """Of what the numbers come from."""
    return {"python": platform.python_version()} | {name: version(name) for name in (*VERSIONS, "pyarrow")}


def marker(folder: Path, number: int) -> Path:
    """The file that says that a shard is done: it is written last."""
    return folder / SHARDS / f"{number:06d}.json"


def finish(folder: Path, number: int, report: Mapping[str, Any]) -> None:
    """Say that a shard is done."""
    make_folder(folder / SHARDS)
    text = as_json(dict(report), sort_keys=True)
    write_whole(marker(folder, number), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def described(folder: Path, files: Iterable[Path], rows: Mapping[Path, int]) -> dict[str, Any]:
    """Rows, bytes and checksum of each file, by its name in the survey's folder."""
    return {
        path.relative_to(folder).as_posix(): {"rows": rows[path], "bytes": path.stat().st_size, "xxh3": digest(path)}
        for path in files
    }


def is_report(found: Any) -> bool:
    """Whether this has the form of what is said of a shard."""
    if not isinstance(found, dict) or not found.keys() >= REPORTED:
        return False
    reasons, lengths, files = found["reasons"], found["lengths"], found["files"]
    return (
        all(is_count(found[name]) for name in ("shard", "rows", "accepted", "rejected"))
        and found["accepted"] + found["rejected"] == found["rows"]
        and isinstance(reasons, dict)
        and all(map(is_count, reasons.values()))
        and (lengths is None or (isinstance(lengths, list) and len(lengths) == 2 and all(map(is_count, lengths))))
        and isinstance(files, dict)
        and bool(files)
        and all(isinstance(about, dict) and isinstance(about.get("xxh3"), str) for about in files.values())
    )


def is_count(found: Any) -> bool:
    """Whether a JSON value counts something."""
    return type(found) is int and found >= 0


def done(folder: Path, number: int) -> dict[str, Any] | None:
    """The report of a shard that is done and whose files are those that were written, with the survey's template; None where it is to be
    done (again)."""
    path = marker(folder, number)
    try:
        report: dict[str, Any] = parse(regular(path).read_text(encoding="utf-8"))
        if not is_report(report):
            return None
        for name, about in report["files"].items():
            if digest(regular(folder / name)) != about["xxh3"]:
                return None
        if report["shard"] != number or (report["accepted"] and not (folder / TEMPLATE).exists()):
            return None
    except (OSError, ValueError):  # not there, or damaged
        return None
    return report


def write_manifest(
    folder: Path, request: Mapping[str, Any], staged: Mapping[str, Any], reports: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write all that is said of a finished survey into one file, and return it."""
    reasons: Counter[str] = Counter()
    for report in reports:
        reasons.update(report["reasons"])
    whole = {
        "request": dict(request),
        "rows": staged["rows"],
        "accepted": sum(report["accepted"] for report in reports),
        "rejected": sum(report["rejected"] for report in reports),
        "reasons": dict(reasons.most_common(20)),
        "shards": reports,
    }
    text = as_json(whole, indent=1)
    write_whole(folder / MANIFEST, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return whole
