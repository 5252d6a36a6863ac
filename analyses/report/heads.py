"""Heads in a few rows, for the terminal."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from rich.table import Table

from analyses.attention.table import IMPORTANCE, SCORES
from interp.errors import ResultError, is_known, nearest

SHOWN = 10
COLUMNS = (
    "previous_token",
    "duplicate_token",
    "induction",
    "first_token",
    "copying",
    "reads_by_K",
    "importance_resample",
)


def head_rows(table: xr.Dataset, sort: str) -> Table:
    """The heads with the largest score. Raises ResultError for a score that the table does not have."""
    scores = [
        str(name) for name in table.data_vars if table[name].dims == ("layer", "head") and table[name].dtype != object
    ]
    _check(sort, scores)
    columns = list(dict.fromkeys([sort, *(name for name in COLUMNS if name in scores)]))
    shown = Table("head", title=f"heads by {sort.replace('_', ' ')}", title_justify="left")
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="right")
    values = table[sort].to_numpy()
    for layer, head in _ranked(values)[:SHOWN]:
        shown.add_row(f"{layer}.{head}", *(_cell(table, name, layer, head) for name in columns))
    return shown


def first_head(table: xr.Dataset, sort: str) -> tuple[int, int]:
    """Layer and head of the largest score, the first of `head_rows`."""
    return _ranked(table[sort].to_numpy())[0]


def _ranked(values: Float[np.ndarray, "layer head"]) -> list[tuple[int, int]]:
    """Layer and head, the largest value first, what is no number last."""
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), axis=None, kind="stable")
    return [(int(at) // values.shape[1], int(at) % values.shape[1]) for at in order]


def check_sort(sort: str, *, with_task: bool) -> None:
    """Raise ResultError, before any work, for a score that the table of heads will not have.

    Args:
        with_task: whether it will hold the heads' importance on a task.
    """
    if sort in IMPORTANCE and not with_task:
        raise ResultError(f"the score {sort!r} is measured on a task; give --task.")
    _check(sort, [*SCORES, *(IMPORTANCE if with_task else ())])


def _check(sort: str, scores: Sequence[str]) -> None:
    if not is_known(sort, scores):
        raise ResultError(f"heads have no score {sort!r}. {nearest(sort, scores)}")


def _cell(table: xr.Dataset, name: str, layer: int, head: int) -> str:
    value = float(table[name][layer, head])
    said = "" if np.isnan(value) else f"{value:.2f}"
    if said and f"{name}_from" in table:
        said += f"\u00a0of\u00a0{table[f'{name}_from'][layer, head].item()}"
    return said
