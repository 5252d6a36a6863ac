"""The bar that long work shows on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

_OUTER: ContextVar[Progress | None] = ContextVar("outer", default=None)
"""The bar that is on the screen, which bars of parts of the work join."""


class Remaining(ProgressColumn):
    """The time left at the rate so far, also where few steps have been made."""

    def render(self, task: Task) -> Text:
        """`0:01:20 left`; nothing before the first step, and nothing at the end."""
        if not task.total or not task.completed or task.finished or task.elapsed is None:
            return Text("")
        left = task.elapsed * (task.total - task.completed) / task.completed
        return Text(f"{timedelta(seconds=round(left))} left", style="progress.remaining")


@contextmanager
def progress_bar(shown: bool) -> Iterator[Progress]:
    """A bar with the share that is done, the time taken and the time left.

    Within the block of one that is shown, every other is a part of it, whether shown by itself or not: its tasks stand beneath, and
    leave when they are done. A task whose steps are made by such a part says in its field `part` how many of them that is, so that the
    share of the whole can take in what is done of it: `bar.update(task, part=len(rows))`.
    """
    outer = _OUTER.get()
    if outer is not None:
        before = set(outer.task_ids)
        try:
            yield outer
        finally:
            for task in set(outer.task_ids) - before:
                outer.remove_task(task)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        token = _OUTER.set(bar if shown else None)
        try:
            yield bar
        finally:
            _OUTER.reset(token)


@contextmanager
def watched(progress: Progress) -> Iterator[None]:
    """Within the block, of this context, long work tells its steps to a bar of one's own, such as one that only keeps the share."""
    token = _OUTER.set(progress)
    try:
        yield
    finally:
        _OUTER.reset(token)
