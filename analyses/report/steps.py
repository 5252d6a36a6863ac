"""Analyses run one after another, with a bar that says which."""

from collections.abc import Callable, Iterable, Mapping

import xarray as xr

from interp.progress import progress_bar

Step = tuple[str, Callable[[], xr.Dataset | None]]
"""The name of a result, and how to get it; None where the model has no such."""


def run_steps(
    steps: Iterable[Step],
    results: dict[str, xr.Dataset],
    *,
    title: str,
    progress: bool,
    costs: Mapping[str, float] | None = None,
) -> None:
    """Put each step's result into `results`, where later steps find it.

    Args:
        costs: how long each step takes beside others, for the time left; 1 where it is not said.
    """
    steps, costs = list(steps), costs or {}
    with progress_bar(progress) as bar:
        task = bar.add_task(title, total=sum(costs.get(name, 1.0) for name, _ in steps))
        for name, run in steps:
            bar.update(task, description=f"{title}: {name.replace('_', ' ')}")
            if (result := run()) is not None:
                results[name] = result
            bar.advance(task, costs.get(name, 1.0))
