"""What takes turns at a model of the live page, and work in the background."""

import re
import threading
import time

import pytest
from explored import START

import analyses
from analyses.explorer.turns import Turns
from analyses.explorer.work import Job, Jobs, Steps
from interp.errors import InterpError
from interp.progress import progress_bar, watched


def test_turns_are_taken_in_order():
    turns, order = Turns(), []

    def wait(number):
        with turns:
            order.append(number)

    with turns:
        threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
        for number, thread in enumerate(threads, start=1):
            thread.start()
            while len(turns._waiting) < number:
                time.sleep(0.001)
        turns.give_way()
        order.append("back")
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, "back"]


def test_work_gives_way_says_how_far_it_is_and_stops():
    turns, started = Turns(), threading.Event()

    def compute():
        with progress_bar(False) as bar:
            task = bar.add_task("counting", total=4000)
            for _ in range(4000):
                started.set()
                time.sleep(0.002)
                bar.advance(task)

    job = Job("count", compute, turns)
    started.wait(10.0)
    with turns:  # though the work holds it from its beginning to its end
        done = job.steps.share
    assert job.running
    while job.steps.share <= done:
        time.sleep(0.001)
    assert job.steps.said.startswith("counting ")
    assert job.steps.said.endswith(" of 4,000")
    assert 0 < job.steps.share < 1
    with turns:  # so that it cannot end before it is seen
        job.stop()
        assert job.said == "count: stopping"
    job.wait(10.0)
    assert (job.running, job.problem, job.result) == (False, "stopped", None)


def test_the_share_takes_in_the_work_beneath_where_its_worth_is_said():
    steps = Steps(threading.Event(), Turns())
    with steps._turns, watched(steps), progress_bar(False) as outer:
        pairs = outer.add_task("pairs", total=100)
        for worth, expected in ((60, 0.24), (0, 0.6), (40, 0.76)):
            outer.update(pairs, part=worth)
            with progress_bar(False) as inner:
                rows = inner.add_task("rows", total=5000)
                inner.advance(rows, 2000)
                assert steps.share == pytest.approx(expected)
            outer.advance(pairs, worth)
        assert steps.share == 1.0


def test_the_share_of_an_edge_sweep_goes_with_its_runs(monkeypatch, smalltown):
    """Of one pair of prompts, whose edges are all patched in one sweep: the share is that of the runs, and never falls."""
    steps, seen = Steps(threading.Event(), Turns()), []
    monkeypatch.setattr(steps, "_pause", lambda: seen.append((steps.share, steps.said)))
    with steps._turns, watched(steps):
        analyses.edge_patching(smalltown, START.clean, START.corrupt, answer=" Mary", wrong=" John")
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    within = [(share, re.search(r"changed runs ([\d,]+) of ([\d,]+)", said)) for share, said in seen]
    told = [(share, *(int(one.replace(",", "")) for one in found.groups())) for share, found in within if found]
    assert any(0.2 < share < 0.8 for share, _, _ in told)
    for share, done, total in told:
        assert share == pytest.approx(done / total)


def test_the_same_work_is_not_begun_twice_by_the_same_tab():
    jobs, turns = Jobs(), Turns()
    with turns:
        first = jobs.start("x", lambda: None, turns, about=1)
        with pytest.raises(InterpError, match="x: that is under way already"):
            jobs.start("x", lambda: None, turns, about=1, own=["unknown", first])
        jobs.start("x", lambda: None, turns, about=2, own=[first])
        jobs.start("x", lambda: None, turns, about=1)
        with pytest.raises(InterpError, match="3 pieces of work are under way, in all tabs"):
            jobs.start("y", lambda: None, turns)
    jobs.get(first).wait(10.0)
    assert jobs.start("x", lambda: None, turns, about=1, own=[first]) != first


def test_work_that_fails_says_why_and_frees_its_turn(caplog):
    turns, jobs = Turns(), Jobs()

    def refuse():
        raise InterpError("no")

    for compute, said in ((refuse, "no"), (lambda: 1 / 0, "terminal")):
        job = jobs.get(jobs.start("x", compute, turns))
        job.wait(10.0)
        assert said in job.problem
    with turns:
        pass
    with pytest.raises(InterpError, match="no longer here"):
        jobs.get("unknown")
