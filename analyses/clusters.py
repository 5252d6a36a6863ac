"""Prompts that were made from one template are one unit of replication."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from interp.errors import InterpError


def check_clusters(clusters: Sequence[Any] | None, prompts: int, who: str) -> None:
    """Raise InterpError for clusters that are not one for each prompt."""
    if clusters is not None and (isinstance(clusters, str) or len(clusters) != prompts):
        raise InterpError(f"{who}: clusters must name one for each of the {prompts} prompts, got {len(clusters)}.")


def units_of(clusters: Sequence[Any] | None, prompts: int) -> Int[np.ndarray, " prompt"]:
    """The number of each prompt's cluster, from 0 in the order in which they first stand; a prompt without one (None) is its own."""
    known: dict[Any, int] = {}
    named = [None] * prompts if clusters is None else clusters
    keys = [(None, number) if cluster is None else (cluster,) for number, cluster in enumerate(named)]
    return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


def by_unit(
    values: Float[np.ndarray, "prompt ..."], units: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, "unit ..."]:
    """Means over the prompts of each unit."""
    return np.stack([values[units == unit].mean(0) for unit in range(int(units.max()) + 1)])
