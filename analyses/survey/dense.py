"""The tables of a shard as arrays again, one row for each prompt, positions aligned over the whole data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from analyses.extra import need
from analyses.survey.cells import POSITIONAL, groups, table_name
from analyses.survey.rows import is_missing
from analyses.survey.sources import ROW, TOKENS
from analyses.survey.staged import shard_file
from interp.errors import ResultError

Key = tuple[str | None, ...]
"""Of a group of prompts: the text of each label, None where it is missing."""


@dataclass(frozen=True)
class Axes:
    """The places of every axis over a whole data set.

    Args:
        coords: values along each axis: those of the template, and of positions in prompts of unequal length from the end, -1 the last.
        from_end: whether it is so.
    """

    coords: Mapping[str, np.ndarray]
    from_end: bool

    @classmethod
    def of(cls, template: xr.Dataset, shortest: int, longest: int) -> "Axes":
        """From a result of the analysis, and the fewest and the most tokens of a prompt."""
        coords = {
            str(dim): template[dim].to_numpy() if dim in template.coords else np.arange(size)
            for dim, size in template.sizes.items()
        }
        counted = {dim: values for dim, values in coords.items() if dim in POSITIONAL and (values >= 0).all()}
        for dim, values in counted.items():
            first = int(values.min()) if len(values) else 0  # of injections, the first that is no BOS
            coords[dim] = np.arange(first - longest, 0) if shortest < longest else np.arange(first, longest)
        return cls(coords, shortest < longest)

    def places(self, dim: str, column: Any, lengths: np.ndarray) -> np.ndarray:
        """Where the values of a table's column are along an axis; -1 where they are none of its places."""
        along = self.coords[dim]
        if along.dtype.kind in "OUT":
            names = need("pyarrow").array(along.tolist(), column.type)
            at: np.ndarray = need("pyarrow.compute").index_in(column, value_set=names).fill_null(-1).to_numpy()
            return at
        values = column.to_numpy()
        if self.from_end and dim in POSITIONAL and len(along) and along[0] < 0 and (values >= 0).all():
            values = values - lengths
        order = np.argsort(along, kind="stable")
        at = np.clip(np.searchsorted(along[order], values), 0, len(along) - 1)
        found: np.ndarray = np.where(along[order][at] == values, order[at], -1)
        return found


@dataclass(frozen=True)
class Dense:
    """The numbers of a shard.

    Args:
        rows: of the data set, [prompt].
        groups: what each prompt belongs to, [prompt]: each label as text, None where it is missing.
        values: by variable, [prompt, ...] in the order of the axes in the template, NaN where a prompt has no such cell.
    """

    rows: np.ndarray
    groups: Sequence[Key]
    values: Mapping[str, np.ndarray]


def read_dense(folder: Path, number: int, template: xr.Dataset, axes: Axes, by: Sequence[str]) -> Dense:
    """A shard of a survey. Raises ResultError for a label that the tables do not have."""
    prompts = _read(folder / "prompts" / shard_file(number), None)
    if lacking := [name for name in by if name not in prompts.column_names]:
        raise ResultError(f"summarise: there is no label {lacking[0]!r}; there are {', '.join(prompts.column_names)}.")
    rows, lengths = prompts.column(ROW).to_numpy(), prompts.column(TOKENS).to_numpy()
    labels = [prompts.column(name).to_pylist() for name in by]
    keys = [tuple(None if is_missing(value) else str(value) for value in key) for key in zip(*labels, strict=True)]
    values: dict[str, np.ndarray] = {}
    for dims, names in groups(template).items():
        measured = [name for name in names if template[name].dtype.kind in "fbiu"]
        if not dims:
            values |= {name: prompts.column(name).to_numpy().astype(np.float64) for name in measured}
            continue
        if not measured:
            continue
        table = _read(folder / table_name(dims) / shard_file(number), [ROW, *dims, *measured])
        prompt = np.searchsorted(rows, table.column(ROW).to_numpy())
        index = [prompt]
        for dim in dims:
            index.append(axes.places(dim, table.column(dim), lengths[prompt]))
        there = np.all([at >= 0 for at in index], axis=0)
        place = tuple(at[there] for at in index)
        for name in measured:
            values[name] = np.full((len(rows), *(len(axes.coords[dim]) for dim in dims)), np.nan)
            values[name][place] = table.column(name).to_numpy()[there]
    return Dense(rows, keys if by else [()] * len(rows), values)


def group_names(keys: Sequence[Key]) -> dict[Key, str]:
    """The name of each group, in the order of the names: its labels, in quotes where two groups had one name without."""
    names = {key: ", ".join(map(str, key)) for key in keys}
    if len(set(names.values())) < len(names):
        names = {key: ", ".join(map(repr, key)) for key in keys}
    return dict(sorted(names.items(), key=lambda item: item[1]))


def _read(path: Path, columns: list[str] | None) -> Any:
    table = need("pyarrow.parquet").read_table(path, columns=columns)
    pa = need("pyarrow")
    plain = [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(plain))
