"""One shard: its rows through the analysis, batch by batch, into tables. In one process and in a worker of a cluster this is the same."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses.extra import need, write_parquet
from analyses.results import save
from analyses.survey.cells import in_order, tables
from analyses.survey.manifest import REJECTED, TEMPLATE, described, done, finish, versions
from analyses.survey.rows import Ready, batches, by_column, ready, reason_of, roles_of
from analyses.survey.sources import REASON, ROW
from analyses.survey.staged import read_shard, shard_file
from analyses.survey.surveyed import call, surveyed
from interp.errors import ConfigError, InterpError
from interp.model import Transformer


class Worker:
    """A model, once loaded, and a survey's request.

    Args:
        folder: of the survey; its shards are in `input/`.
    """

    def __init__(self, model: Transformer, folder: Path, request: Mapping[str, Any]) -> None:
        self.model, self.folder, self.request = model, folder, request
        self.about = surveyed(request["analysis"])

    def shard(self, number: int, advance: Callable[[int], Any] = lambda rows: None) -> dict[str, Any]:
        """Do a shard, unless it is done, and report on it.

        Args:
            advance: is called with the rows of each batch that is done.
        """
        if (there := done(self.folder, number)) is not None:
            return there
        began = time.perf_counter()
        given = read_shard(self.folder, number)
        first = number * int(self.request["shard_rows"])
        work = _Work(self, given, first, advance)
        work.do()
        files = self._write(number, work)
        report = {
            "shard": number,
            "first_row": first,
            "rows": len(given),
            "accepted": len(given) - len(work.rejected),
            "rejected": len(work.rejected),
            "reasons": dict(Counter(work.rejected.values()).most_common(5)),
            "lengths": [work.shortest, work.longest] if work.longest else None,
            "files": files,
            "versions": versions(),
            "device": str(self.model.device),
            "seconds": round(time.perf_counter() - began, 3),
        }
        finish(self.folder, number, report)
        return report

    def _write(self, number: int, work: "_Work") -> dict[str, Any]:
        whole = {name: in_order(parts) for name, parts in work.parts.items()}
        if work.rejected:
            whole[REJECTED] = work.put_aside()
        rows = {}
        for name, table in whole.items():
            path = self.folder / name / shard_file(number)
            write_parquet(path, table)
            rows[path] = len(table)
        return described(self.folder, rows, rows)


class _Work:
    """The rows of a shard on their way."""

    def __init__(self, worker: Worker, given: Any, first: int, advance: Callable[[int], Any]) -> None:
        self.worker, self.given, self.first, self.advance = worker, given, first, advance
        self.parts: dict[str, list[Any]] = {}
        self.rejected: dict[int, str] = {}
        self.shortest, self.longest = 2**31, 0

    def do(self) -> None:
        """All of them."""
        model, request, about = self.worker.model, self.worker.request, self.worker.about
        options = request["options"]
        roles = roles_of(about, self.given.column_names)
        rows: list[Ready] = []
        for place, row in enumerate(self.given.select(sorted(set(roles.values()))).to_pylist()):
            number = self.first + place
            try:
                rows.append(ready(model, row, number, roles, options.get("bos")))
            except InterpError as error:
                self.rejected[number] = reason_of(error)
        self.advance(len(self.rejected))
        self._template(rows)
        for batch in batches(rows, model, int(request["max_bytes"]), 1 if about.alone else None):
            self._measure(batch)
            self.advance(len(batch))

    def _measure(self, batch: Sequence[Ready]) -> None:
        """Some rows; where one of them cannot be measured, the others without it."""
        try:
            result = self._call(batch)
        except ConfigError:  # of the model, whatever the row
            raise
        except InterpError as error:
            if len(batch) == 1:
                self.rejected[batch[0].number] = reason_of(error)
                return
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._measure(half)
            return
        numbers, lengths = [row.number for row in batch], [row.length for row in batch]
        self.shortest, self.longest = min(self.shortest, *lengths), max(self.longest, *lengths)
        labels = self.given.take([number - self.first for number in numbers])
        for name, table in tables(result, numbers, lengths, labels).items():
            self.parts.setdefault(name, []).append(table)

    def _call(self, batch: Sequence[Ready]) -> Any:
        request = self.worker.request
        return call(
            self.worker.model,
            request["analysis"],
            request["options"],
            by_column(batch),
            batch[0].number,
            int(request["max_bytes"]),
        )

    def _template(self, rows: Sequence[Ready]) -> None:
        """Keep what a result of this analysis looks like: of one row twice, so that it has what is said of several prompts."""
        path = self.worker.folder / TEMPLATE
        for row in rows:
            if path.exists():
                return
            try:
                result = self._call([row, row])
            except InterpError:
                continue  # it is put aside where its batch is measured
            try:
                save(result, path)
            except InterpError:
                if not path.exists():  # another worker was quicker
                    raise

    def put_aside(self) -> Any:
        """The rows that no result is made of, with the reason, as an Arrow table."""
        pa = need("pyarrow")
        numbers = sorted(self.rejected)
        table = self.given.take([number - self.first for number in numbers])
        table = table.rename_columns([f"{name}_" if name in (ROW, REASON) else name for name in table.column_names])
        table = table.append_column(REASON, pa.array([self.rejected[number] for number in numbers], pa.string()))
        return table.add_column(0, ROW, pa.array(numbers, pa.int64()))
