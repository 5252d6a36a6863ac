"""Data sets of prompts, read in pieces: Parquet, CSV, JSON lines, a `datasets` directory of Hugging Face, or pairs of a task."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import xxhash

from analyses.extra import need
from interp.errors import InterpError
from interp.files import regular
from interp.strict_json import parse
from interp.tokenizer import Tokenizer
from interp.zoo import task

PIECE = 4096
"""Rows that are read at once."""

SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
ROW, REASON, TOKENS = "row", "reason", "tokens"
"""Columns that a survey adds."""


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Args:
        form: `parquet`, `csv`, `jsonl`, `datasets` or `task`.
        place: the file or folder; None for a task.
        drawn: name, number of pairs and seed of a task.
    """

    form: str
    place: Path | None = None
    drawn: tuple[str, int, int] | None = None

    @classmethod
    def of(cls, given: str | Path) -> "Source":
        """From a path, or `task:NAME:COUNT` with an optional `:SEED`. Raises InterpError for what is none of them."""
        if isinstance(given, str) and given.startswith("task:"):
            return cls("task", drawn=_task(given))
        if not isinstance(given, str | Path):
            raise InterpError(f"survey: {given!r} is no data set; give a path, or task:NAME:COUNT.")
        path = Path(given)
        if path.is_dir():
            _check_saved(path)
            return cls("datasets", path)
        if path.suffix not in SUFFIXES:
            raise InterpError(
                f"survey: {path} is no data set: give a file that ends in {', '.join(SUFFIXES)}, a directory that `datasets` saved, or "
                "task:NAME:COUNT."
            )
        try:
            return cls(SUFFIXES[path.suffix], regular(path))
        except OSError as error:
            raise InterpError(f"survey: {path} cannot be read: {error.strerror or error}.") from error

    def about(self) -> dict[str, Any]:
        """What tells this data set from others: JSON values. Reads all files once."""
        if self.drawn is not None:
            name, count, seed = self.drawn
            return {"form": "task", "task": name, "pairs": count, "seed": seed}
        assert self.place is not None
        folder = self.place if self.place.is_dir() else self.place.parent
        files = sorted(p for p in folder.rglob("*") if p.is_file()) if self.place.is_dir() else [self.place]
        return {"form": self.form, "files": {file.relative_to(folder).as_posix(): digest(file) for file in files}}

    def pieces(self, tokenizer: Tokenizer | None) -> Iterator[Any]:
        """The rows as Arrow tables of some thousand rows, in order.

        Args:
            tokenizer: of the model; pairs of a task are those that suit it.

        Raises:
            InterpError: a file that is damaged, or none of its form; fewer pairs that suit than were asked for.
        """
        pa = need("pyarrow")
        readers = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl, "datasets": _datasets}
        if self.drawn is not None:
            yield from _pairs(self.drawn, tokenizer)
            return
        assert self.place is not None
        try:
            yield from readers[self.form](self.place)
        except (pa.ArrowException, OSError, UnicodeError, OverflowError) as error:
            raise InterpError(f"survey: {self.place} cannot be read as {self.form}: {error}.") from error


def _check_saved(path: Path) -> None:
    if (path / "dataset_dict.json").exists():
        splits = parse((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        raise InterpError(
            f"survey: {path} holds several splits; name one: {', '.join(str(path / one) for one in splits)}."
        )
    if not (path / "state.json").exists():
        raise InterpError(f"survey: {path} is no directory that `datasets` saved (save_to_disk): it has no state.json.")


def digest(file: Path) -> str:
    """XXH3 of a file's bytes, 128 bits."""
    content = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while part := stream.read(2**20):
            content.update(part)
    return content.hexdigest()


def _task(given: str) -> tuple[str, int, int]:
    parts = given.split(":")[1:]
    numbers = parts[1:]
    if not 2 <= len(parts) <= 3 or not all(part.isdecimal() for part in numbers) or int(numbers[0]) < 1:
        raise InterpError(f"survey: {given!r} names no pairs of a task; write task:NAME:COUNT or task:NAME:COUNT:SEED.")
    return task(parts[0]).name, int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0


def _pairs(drawn: tuple[str, int, int], tokenizer: Tokenizer | None) -> Iterator[Any]:
    pa = need("pyarrow")
    name, count, seed = drawn
    pairs = task(name).stream(count, seed, tokenizer)
    while some := list(islice(pairs, PIECE)):
        columns = {
            column: [getattr(pair, column) for pair in some] for column in ("clean", "corrupt", "answer", "wrong")
        }
        yield pa.table(columns)


def _parquet(path: Path) -> Iterator[Any]:
    pa, parquet = need("pyarrow"), need("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(PIECE):
            yield pa.Table.from_batches([batch])


def _csv(path: Path) -> Iterator[Any]:
    """Every column as text but those of numbers alone; prompts and answers as they stand, white space too."""
    pa, csv = need("pyarrow"), need("pyarrow.csv")
    texts = {name: pa.string() for name in ("prompt", "clean", "corrupt", "answer", "wrong")}
    convert = csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
    parsed = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, convert_options=convert, parse_options=parsed) as reader:
        for batch in reader:
            if undecoded := [field.name for field in batch.schema if pa.types.is_binary(field.type)]:
                raise InterpError(f"survey: column {undecoded[0]!r} of {path} is no text in UTF-8; save it so.")
            yield pa.Table.from_batches([batch])


def _jsonl(path: Path) -> Iterator[Any]:
    pa = need("pyarrow")
    with path.open(encoding="utf-8-sig") as lines:
        numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        while some := list(islice(numbered, PIECE)):
            rows = [_object(path, number, line) for number, line in some]
            columns = dict.fromkeys(name for row in rows for name in row)  # also those that the first row lacks
            yield pa.table({name: _column(path, name, some, [row.get(name) for row in rows]) for name in columns})


def _column(path: Path, name: str, lines: Sequence[tuple[int, str]], values: Sequence[Any]) -> Any:
    """Values of one name in some lines as an Arrow array. Raises InterpError where they have no type in common."""
    pa = need("pyarrow")
    try:
        return pa.array(values)
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        raise InterpError(
            f"survey: {name!r} in lines {lines[0][0]} to {lines[-1][0]} of {path} cannot be a column of one type: {error}."
        ) from error


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = parse(line)
    except ValueError as error:
        raise InterpError(f"survey: line {number} of {path} is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InterpError(f"survey: line {number} of {path} is no JSON object: {json.dumps(found)[:60]}.")
    return found


def _datasets(path: Path) -> Iterator[Any]:
    pa = need("pyarrow")
    found = need("datasets").load_from_disk(str(path)).with_format("arrow")
    for start in range(0, len(found), PIECE):
        table = found[start : start + PIECE]
        yield table if isinstance(table, pa.Table) else pa.table(table)
