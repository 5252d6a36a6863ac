"""Rows that were put aside: how many are too many, and all of them in one table."""

from collections import Counter
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from analyses.extra import need, write_parquet
from analyses.survey.manifest import REJECTED
from analyses.survey.sources import REASON, ROW
from interp.errors import InterpError, ResultError
from interp.files import write_whole

MOST_REJECTED = 0.1

FEWEST = 100
"""Rows, or all of a smaller data set, of which a share is taken."""


def check_most(share: float, who: str) -> None:
    """Raise InterpError for what is no share."""
    if not isinstance(share, Real) or not 0 <= share <= 1:
        raise InterpError(f"{who}: most_rejected is a share from 0 to 1, got {share!r}.")


def check_share(folder: Path, reports: Mapping[int, Mapping[str, Any]], most: float, rows: int) -> None:
    """Raise ResultError where more than a share of the rows so far was put aside."""
    seen = sum(report["rows"] for report in reports.values())
    lost = sum(report["rejected"] for report in reports.values())
    if seen < min(FEWEST, rows) or lost <= most * seen:
        return
    gather_rejected(folder)
    reasons: Counter[str] = Counter()
    for report in reports.values():
        reasons.update(report["reasons"])
    why, often = reasons.most_common(1)[0]
    raise ResultError(
        f"survey: {lost} of {seen} rows so far were put aside, more than {most:.0%}; {often} because: {why} They are in "
        f"{folder / REJECTED}.parquet. Mend them, or allow more (most_rejected=, --most-rejected): the same call goes on from here."
    )


def gather_rejected(folder: Path) -> None:
    """One file of all rows that were put aside, in order, beside those of the shards; none where there is no such row."""
    parquet = need("pyarrow.parquet")
    parts = sorted((folder / REJECTED).glob("*.parquet"))
    if not parts:
        return

    def write(path: Path) -> None:
        with parquet.ParquetWriter(path, parquet.read_schema(parts[0])) as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part))

    write_whole(folder / f"{REJECTED}.parquet", write)


def write_reasons(path: Path, rejected: Mapping[int, str]) -> None:
    """A table of rows, by number, and why each was put aside."""
    pa = need("pyarrow")
    numbers, reasons = pa.array(list(rejected), pa.int64()), pa.array(list(rejected.values()), pa.string())
    write_parquet(path, pa.table({ROW: numbers, REASON: reasons}))
