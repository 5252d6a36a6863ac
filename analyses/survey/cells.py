"""Results as rows of tables: one for each prompt and cell, with the prompt's labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from analyses.extra import need
from analyses.survey.sources import ROW, TOKENS

PROMPTS = "prompts"
"""The table of what there is one of for each prompt."""

POSITIONAL = ("position", "query", "key", "injection")
"""Axes along a prompt's tokens."""


def table_name(dims: Sequence[str]) -> str:
    """Of variables along these axes besides the prompt."""
    return "-".join(dims) or PROMPTS


def groups(result: xr.Dataset) -> dict[tuple[str, ...], list[str]]:
    """The variables that each prompt has its own of, by their axes besides the prompt, in the order that those have in a table."""
    found: dict[tuple[str, ...], list[str]] = {(): []}
    for name, values in result.data_vars.items():
        if "prompt" in values.dims:
            found.setdefault(tuple(str(dim) for dim in values.dims if dim != "prompt"), []).append(str(name))
    return found


def lengths_along(result: xr.Dataset, dim: str) -> np.ndarray | None:
    """Tokens of each prompt along an axis, [prompt]; None where no coordinate says so."""
    for name, ids in result.coords.items():
        if str(name).endswith("token_id") and ids.dims == ("prompt", dim):
            return np.asarray((ids >= 0).sum(dim))
    return None


def tables(result: xr.Dataset, numbers: Sequence[int], lengths: Sequence[int], labels: Any) -> dict[str, Any]:
    """The Arrow table of each group of variables.

    Cells at positions that a shorter prompt does not have are left out.

    Args:
        numbers: the row of each prompt in the data set.
        lengths: its tokens.
        labels: an Arrow table with a row for each prompt; of the table of prompts all columns, of others those that are no prompt.
    """
    found = {}
    for dims, names in groups(result).items():
        sizes = [result.sizes[dim] for dim in dims]
        index = np.indices((len(numbers), *sizes), dtype=np.int32).reshape(1 + len(dims), -1)
        there = _there(result, dims, index)
        index = index if there is None else index[:, there]
        columns = {ROW: np.asarray(numbers, dtype=np.int64)[index[0]]}
        columns |= _along(result, dims, index)
        for name in names:
            values = result[name].transpose("prompt", *dims).to_numpy().reshape(-1)
            columns[name] = _arrow(values if there is None else values[there])
        if not dims:
            columns |= {TOKENS: np.asarray(lengths, dtype=np.int32)}
        taken = labels if not dims else labels.select([c for c in labels.column_names if c not in PROMPT_COLUMNS])
        found[table_name(dims)] = _with_labels(columns, taken, index[0])
    return found


PROMPT_COLUMNS = ("prompt", "clean", "corrupt")
"""Columns of a data set that stand in the table of prompts alone: a text beside each of its cells would be most of what is written."""


def _there(result: xr.Dataset, dims: Sequence[str], index: np.ndarray) -> np.ndarray | None:
    """Which cells lie within their prompt; None where all do."""
    there = None
    for place, dim in enumerate(dims, start=1):
        lengths = lengths_along(result, dim) if dim in POSITIONAL else None
        if lengths is not None and (lengths < result.sizes[dim]).any():
            within = index[place] < lengths[index[0]]
            there = within if there is None else there & within
    return there


def _along(result: xr.Dataset, dims: Sequence[str], index: np.ndarray) -> dict[str, Any]:
    """What each axis is called at each cell, and what coordinates say of it."""
    columns: dict[str, Any] = {}
    for place, dim in enumerate(dims, start=1):
        own = result[dim].to_numpy() if dim in result.coords else np.arange(result.sizes[dim])
        columns[dim] = _taken(own, index[place])
    for name, values in result.coords.items():
        if name in columns or name in result.dims or "bound" in values.dims:
            continue
        axes = [str(dim) for dim in values.dims]
        if "prompt" in axes and set(axes) <= {"prompt", *dims} and len(axes) <= 2:
            at = tuple(index[0 if axis == "prompt" else 1 + list(dims).index(axis)] for axis in axes)
            columns[str(name)] = _arrow(values.to_numpy()[at])
        elif len(axes) == 1 and axes[0] in dims:
            columns[str(name)] = _taken(values.to_numpy(), index[1 + list(dims).index(axes[0])])
    return columns


def _taken(values: np.ndarray, index: np.ndarray) -> Any:
    """Values by index; texts each once, and their numbers."""
    pa = need("pyarrow")
    if values.dtype.kind in "OUT":
        return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(values.tolist(), pa.string()))
    return values[index]


def _arrow(values: np.ndarray) -> Any:
    pa = need("pyarrow")
    return pa.array(values.tolist(), pa.string()).dictionary_encode() if values.dtype.kind in "OUT" else values


def _with_labels(columns: Mapping[str, Any], labels: Any, prompt: np.ndarray) -> Any:
    """An Arrow table of the columns and, of each row's prompt, its labels; a label with a name that is taken has an underscore more."""
    pa = need("pyarrow")
    table = pa.table(
        {name: pa.array(values) if isinstance(values, np.ndarray) else values for name, values in columns.items()}
    )
    for name in labels.column_names:
        free = name
        while free in table.column_names:
            free += "_"
        column = labels.column(name).combine_chunks()
        if len(table) > len(labels) and pa.types.is_string(column.type):
            column = column.dictionary_encode()
        table = table.append_column(free, column.take(pa.array(prompt)))
    return table


def in_order(parts: Sequence[Any]) -> Any:
    """One Arrow table of several, by row of the data set; each row's cells stay as they are."""
    pa = need("pyarrow")
    table = pa.concat_tables(parts, promote_options="permissive").unify_dictionaries()
    return table.take(pa.array(np.argsort(table.column(ROW).to_numpy(), kind="stable")))
