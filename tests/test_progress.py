"""The bar of long work, and those of its parts."""

import contextlib
import io

import pytest
from rich.console import Console
from rich.progress import Progress

from analyses.report.steps import run_steps
from interp import progress
from interp.progress import Remaining, progress_bar


@pytest.fixture
def screen(monkeypatch):
    """What the bars show."""
    stream = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=stream, force_terminal=True, width=120))
    return stream


def test_the_time_left_is_told_from_the_first_step_on():
    now = [0.0]
    bar = Progress(get_time=lambda: now[0], auto_refresh=False)
    bar.add_task("work", total=4)
    (task,) = bar.tasks
    assert str(Remaining().render(task)) == ""
    for at, completed, said in ((20.0, 1, "0:01:00 left"), (30.0, 3, "0:00:10 left"), (40.0, 4, "")):
        now[0] = at
        bar.update(task.id, completed=completed)
        assert str(Remaining().render(task)) == said


def test_bars_of_parts_stand_beneath_and_leave(screen):
    with progress_bar(True) as whole:
        whole.add_task("the whole", total=2)
        for shown in (True, False):
            with progress_bar(shown) as part:
                assert part is whole
                part.add_task("a part", total=3)
                assert [task.description for task in whole.tasks] == ["the whole", "a part"]
            assert [task.description for task in whole.tasks] == ["the whole"]
        with contextlib.suppress(KeyError), progress_bar(False) as part:
            part.add_task("a part", total=3)
            raise KeyError
        assert len(whole.tasks) == 1
    with progress_bar(False) as other:
        assert other is not whole
    assert "the whole" in screen.getvalue()


def test_steps_count_by_their_cost(screen):
    seen = []

    def step():
        with progress_bar(False) as bar:
            seen.append([(task.description, task.completed, task.total) for task in bar.tasks])

    run_steps([("small", step), ("large_one", step)], {}, title="work", progress=True, costs={"large_one": 9.0})
    assert seen == [[("work: small", 0, 10.0)], [("work: large one", 1.0, 10.0)]]
    assert "work: large one" in screen.getvalue()


def test_nothing_is_shown_that_was_not_asked_for(screen):
    run_steps([("small", lambda: None)], {}, title="work", progress=False)
    assert screen.getvalue() == ""
