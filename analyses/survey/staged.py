"""A data set as shards of so many rows, whatever it came in: what a worker reads, and what tells a changed data set."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from analyses.extra import need, write_parquet
from analyses.survey.manifest import is_count
from analyses.survey.sources import Source, digest
from interp.errors import InterpError
from interp.files import regular, write_whole
from interp.strict_json import parse
from interp.tokenizer import Tokenizer

INPUT = "input"


def shard_file(number: int) -> str:
    """The name of a shard's file in any folder of a survey."""
    return f"{number:06d}.parquet"


def stage(
    source: Source, folder: Path, rows: int, tokenizer: Tokenizer | None, told: Callable[[int], Any]
) -> dict[str, Any]:
    """Write the shards of a data set into `input/`, unless they are there and whole: {"rows", "shards": [{"rows", "xxh3"}], "columns"}.

    Args:
        rows: of a shard.
        told: is called with the number of rows so far.
    """
    about = folder / f"{INPUT}.json"
    place = folder / INPUT
    if (there := _staged(about, place)) is not None:
        return there
    shards: list[dict[str, Any]] = []
    columns: list[str] = []
    total = 0
    for table in _cut(_alike(source.pieces(tokenizer)), rows):
        path = place / shard_file(len(shards))
        write_parquet(path, table)
        shards.append({"rows": len(table), "xxh3": digest(path)})
        columns, total = table.column_names, total + len(table)
        told(total)
    if not total:
        raise InterpError("survey: the data set has no rows.")
    staged = {"rows": total, "columns": columns, "shards": shards}
    write_whole(about, lambda temporary: temporary.write_text(json.dumps(staged), encoding="utf-8"))
    return staged


def _staged(about: Path, place: Path) -> dict[str, Any] | None:
    """What was written before; None where it is not there, or not whole."""
    try:
        found: dict[str, Any] = parse(regular(about).read_text(encoding="utf-8"))
        if not _has_form(found):
            return None
        sums = [shard["xxh3"] for shard in found["shards"]]
        whole = all(digest(regular(place / shard_file(number))) == known for number, known in enumerate(sums))
    except (OSError, ValueError):
        return None
    return found if whole else None


def _has_form(found: Any) -> bool:
    """Whether this has the form of what `stage` writes."""
    if not isinstance(found, dict) or not all(isinstance(found.get(name), list) for name in ("shards", "columns")):
        return False
    shards = [shard if isinstance(shard, dict) else {} for shard in found["shards"]]
    return (
        all(isinstance(name, str) for name in found["columns"])
        and all(is_count(shard.get("rows")) and isinstance(shard.get("xxh3"), str) for shard in shards)
        and is_count(found.get("rows"))
        and 0 < found["rows"] == sum(shard["rows"] for shard in shards)
    )


def read_shard(folder: Path, number: int) -> Any:
    """The rows of a shard as an Arrow table."""
    return need("pyarrow.parquet").read_table(folder / INPUT / shard_file(number))


def _alike(pieces: Iterator[Any]) -> Iterator[Any]:
    """The pieces in the columns and types of the first. Raises InterpError where one does not fit."""
    pa = need("pyarrow")
    first, row = None, 0
    for piece in pieces:
        if first is None:
            first = piece.schema
            if twice := [name for name in first.names if first.names.count(name) > 1]:
                raise InterpError(f"survey: the data set has two columns {twice[0]!r}; give each its own name.")
        if unknown := [name for name in piece.column_names if name not in first.names]:
            raise InterpError(
                f"survey: a row after {row} has a column {unknown[0]!r}, which the first rows have not; give every row the same columns."
            )
        for name in first.names:
            if name not in piece.column_names:
                piece = piece.append_column(name, pa.nulls(len(piece), first.field(name).type))
        try:
            yield piece.select(first.names).cast(first)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise InterpError(f"survey: rows after {row} have other types than the first: {error}.") from error
        row += len(piece)


def _cut(pieces: Iterator[Any], rows: int) -> Iterator[Any]:
    """Tables of so many rows; the last may have fewer."""
    pa = need("pyarrow")
    waiting: list[Any] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        while held >= rows:
            table = pa.concat_tables(waiting)
            yield table.slice(0, rows)
            waiting, held = [table.slice(rows)], held - rows
    if held:
        yield pa.concat_tables(waiting)
