"""Prompts that were made from one template are one unit of replication."""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int

from interp.errors import InterpError

Labels = Any
"""One label for each prompt, hashable, in a list or an array; checked where it is taken."""

_current: ContextVar[Int[np.ndarray, " prompt"] | None] = ContextVar("clusters", default=None)


@contextmanager
def clustered(clusters: Labels | None) -> Iterator[None]:
    """Within it, everything that is measured of so many prompts has its intervals and standard errors over clusters of them: what is
    resampled is the cluster, with all its prompts. Means stay means over prompts. The result keeps which prompts belong together.

    Args:
        clusters: what each prompt was made from, such as its template (`Pair.cluster` of `interp.zoo`); a prompt without one (None, or
            NaN) is its own. None changes nothing.

    Raises:
        InterpError: labels that are no list of such, here; results of another number of prompts, where they are measured.
    """
    units = None if clusters is None else units_of(clusters, len(_labels(clusters, "clustered")), "clustered")
    before = _current.set(units)
    try:
        yield
    finally:
        _current.reset(before)


def current_units(count: int) -> Int[np.ndarray, " prompt"] | None:
    """The unit of each of so many prompts, by the `clustered` around; None without one, or where that many are units already."""
    units = _current.get()
    if units is None or count == len(units):
        return units
    if count == units.max() + 1:
        return None
    raise InterpError(
        f"clustered: clusters were named for {len(units)} prompts, and an interval was asked for over {count}."
    )


def named_units(count: int) -> list[int] | None:
    """What a result of so many prompts keeps of the `clustered` around; None where it names those of others."""
    units = _current.get()
    return None if units is None or len(units) != count else units.tolist()


def units_of_result(result: xr.Dataset) -> Int[np.ndarray, " prompt"] | None:
    """The unit of each prompt of a result that was made within `clustered`; None for one that was not."""
    kept = json.loads(result.attrs["parameters"]).get("clusters")
    return None if kept is None or len(kept) != result.sizes.get("prompt") else np.array(kept, dtype=np.int64)


def units_for(clusters: Labels | None, prompts: int, who: str) -> Int[np.ndarray, " prompt"]:
    """`units_of` the clusters that are given, else of those that the `clustered` around names."""
    units = current_units(prompts) if clusters is None else None
    return units_of(clusters, prompts, who) if units is None else units


def check_clusters(clusters: Labels | None, prompts: int, who: str) -> None:
    """Raise InterpError for clusters that are not one label for each prompt."""
    if clusters is not None:
        units_of(clusters, prompts, who)


def units_of(clusters: Labels | None, prompts: int, who: str = "clusters") -> Int[np.ndarray, " prompt"]:
    """The number of each prompt's cluster, from 0 in the order in which they first stand; a prompt without one (None, NaN) is its own.

    Raises InterpError for what is no list of one label for each prompt.
    """
    labels = [None] * prompts if clusters is None else _labels(clusters, who)
    if len(labels) != prompts:
        raise InterpError(f"{who}: clusters must name one for each of the {prompts} prompts, got {len(labels)}.")
    known: dict[Any, int] = {}
    return np.array(
        [
            known.setdefault((None, number) if _is_missing(label) else (label,), len(known))
            for number, label in enumerate(labels)
        ],
        dtype=np.int64,
    )


def _labels(clusters: Any, who: str) -> list[Any]:
    named = np.asarray(clusters).tolist() if hasattr(clusters, "__array__") else clusters
    if isinstance(named, (str, bytes, Mapping, Set)) or not isinstance(named, Sequence):
        raise InterpError(
            f"{who}: clusters must be a list that names one for each of the prompts, in their order; got {type(clusters).__name__}."
        )
    for label in named:
        try:
            hash(label)
        except TypeError:
            raise InterpError(
                f"{who}: {label!r} cannot name a cluster; give a text or a number for each prompt."
            ) from None
    return list(named)


def _is_missing(label: Any) -> bool:
    return label is None or label is pd.NA or bool(label != label)


def by_unit(
    values: Float[np.ndarray, "prompt ..."], units: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, "unit ..."]:
    """Means over the prompts of each unit."""
    return np.stack([values[units == unit].mean(0) for unit in range(int(units.max()) + 1)])


def sums_by_unit(
    values: Float[np.ndarray, "prompt ..."], units: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, "unit ..."]:
    """Sums over the prompts of each unit."""
    return np.stack([values[units == unit].sum(0) for unit in range(int(units.max()) + 1)])
