"""Analyses run one after another, with a bar that says which; one that fails does not take the rest."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import xarray as xr
from rich.markup import escape
from rich.table import Table

from analyses.clusters import clustered
from interp.errors import InterpError
from interp.progress import progress_bar

Compute = Callable[[], xr.Dataset | None]
"""How to get a result; None where the model has no such."""

Step = tuple[str, Compute]
"""The name of a result, and how to get it."""

Keep = Callable[[str, Compute], xr.Dataset | None]
"""Gives the result of a step, kept or computed."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class LeftOut:
    """What stands in the place of a result that could not be computed."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"Left out: {self.name} could not be computed: {self.reason}"


class Results(dict[str, xr.Dataset]):
    """Results by name. Taking one that was left out raises an InterpError, so that what is made of it is left out too.

    Attributes:
        left_out: why each step that failed has no result, by name.
    """

    def __init__(self, results: Mapping[str, xr.Dataset] | None = None) -> None:
        super().__init__(results or {})
        self.left_out: dict[str, str] = {}

    def __missing__(self, name: str) -> xr.Dataset:
        if name in self.left_out:
            raise InterpError(f"it is made of {name}, which could not be computed.")
        raise KeyError(name)


def left_out(results: Mapping[str, xr.Dataset]) -> list[LeftOut]:
    """Everything that was left out, in the order of the steps."""
    reasons = results.left_out if isinstance(results, Results) else {}
    return [LeftOut(name, reason) for name, reason in reasons.items()]


def made_of(results: Mapping[str, xr.Dataset], names: Sequence[str], make: Callable[[], Made]) -> Made | LeftOut | None:
    """What `make` makes of the results of these names; the first that was left out, if one was; None where one is not there at all."""
    lacking = next((one for one in left_out(results) if one.name in names), None)
    if lacking is not None:
        return lacking
    return make() if all(name in results for name in names) else None


def add_rows(
    table: Table, results: Mapping[str, xr.Dataset], rows: Iterable[tuple[str, Sequence[str], Callable[[], str | None]]]
) -> None:
    """Add rows: a title, the results that it is made of, and what is said of them, None for no row."""
    for title, names, say in rows:
        if (said := made_of(results, names, say)) is not None:
            table.add_row(title, escape(str(said)) if isinstance(said, LeftOut) else said)


def check_any(results: Mapping[str, xr.Dataset], who: str) -> None:
    """Raise InterpError, with the reasons, where there is nothing to show."""
    if not results:
        said = " ".join(str(one) for one in left_out(results)) or "There are no results."
        raise InterpError(f"{who}: nothing could be computed. {said}")


def run_steps(
    steps: Iterable[Step],
    results: dict[str, xr.Dataset],
    *,
    title: str,
    progress: bool,
    costs: Mapping[str, float] | None = None,
    keep: Keep | None = None,
) -> None:
    """Put each step's result into `results`, where later steps find it.

    Args:
        results: a step that raises is recorded in `Results.left_out`, and the others go on; a plain dict has no place for that, so there
            the error is raised.
        costs: how long each step takes beside others, for the time left; 1 where it is not said.
        keep: where finished results are kept, see `Shelf.part`.
    """
    steps, costs = list(steps), costs or {}
    with progress_bar(progress) as bar:
        task = bar.add_task(title, total=sum(costs.get(name, 1.0) for name, _ in steps))
        for name, run in steps:
            bar.update(task, description=f"{title}: {name.replace('_', ' ')}")
            try:
                result = run() if keep is None else keep(name, run)
            except Exception as error:
                if not isinstance(results, Results):
                    raise
                results.left_out[name] = reason(error)
            else:
                if result is not None:
                    results[name] = result
            bar.advance(task, costs.get(name, 1.0))


def within_clusters(clusters: Sequence[Any] | None, step: Compute) -> Compute:
    """A step whose intervals are over clusters of prompts, see `analyses.clustered`."""

    def run() -> xr.Dataset | None:
        with clustered(clusters):
            return step()

    return run


def reason(error: Exception) -> str:
    """Why a step failed: what the error says, and of which type it is where it is not one of ours."""
    if isinstance(error, InterpError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
