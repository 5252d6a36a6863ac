"""Analyses run one after another, with a bar that says which."""

from collections.abc import Callable, Iterable

import xarray as xr

from interp.progress import progress_bar

Step = tuple[str, Callable[[], xr.Dataset | None]]
"""The name of a result, and how to get it; None where the model has no such."""


def run_steps(steps: Iterable[Step], results: dict[str, xr.Dataset], *, title: str, progress: bool) -> None:
    """Put each step's result into `results`, where later steps find it."""
    steps = list(steps)
    with progress_bar(progress) as bar:
        task = bar.add_task(title, total=len(steps))
        for name, run in steps:
            bar.update(task, description=f"{title}: {name.replace('_', ' ')}")
            if (result := run()) is not None:
                results[name] = result
            bar.advance(task)
