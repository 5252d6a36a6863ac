"""Long work in the background, which says how far it is, gives way to short work on the same model, and can be stopped."""

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from rich.progress import Progress

from analyses.explorer.limits import WHO
from analyses.explorer.turns import Turns
from interp.errors import InterpError
from interp.progress import watched

MOST_AT_ONCE, MOST_KEPT = 3, 12


class StoppedError(BaseException):
    """Ends work that is no longer wanted; nothing that catches errors catches it."""


class Steps(Progress):
    """A bar that draws nothing: it keeps the share, and at each step lets others in or ends the work."""

    def __init__(self, stop: threading.Event, turns: Turns) -> None:
        super().__init__(disable=True, auto_refresh=False)
        self._stop, self._turns = stop, turns

    def advance(self, *given: Any, **options: Any) -> None:
        """Raises StoppedError where the work is to end."""
        super().advance(*given, **options)
        self._pause()  # with the step counted, for others may look at the share meanwhile

    def update(self, *given: Any, **options: Any) -> None:
        """Raises StoppedError where the work is to end."""
        super().update(*given, **options)
        self._pause()

    def _pause(self) -> None:
        if self._stop.is_set():
            raise StoppedError
        self._turns.give_way()

    @property
    def share(self) -> float:
        """Of the outermost work, from 0 to 1, with what is done beneath it where it says what that is worth, see `progress_bar`."""
        share = 0.0
        for task in reversed(self.tasks):
            share = (task.completed + task.fields.get("part", 0) * share) / task.total if task.total else 0.0
        return min(1.0, share)

    @property
    def said(self) -> str:
        """What is being done, and how far the innermost work is."""
        tasks = self.tasks
        if not tasks:
            return ""
        names = ", ".join(dict.fromkeys(str(task.description) for task in tasks))
        return names + (f" {tasks[-1].completed:,.0f} of {tasks[-1].total:,.0f}" if tasks[-1].total else "")


class Job:
    """Work in a thread of its own.

    Args:
        name: for the list.
        compute: what is to be done; its result is kept in `result`.
        turns: the queue of the model that it runs.
        about: what it is of; the same name and the same here are the same work.
    """

    def __init__(self, name: str, compute: Callable[[], Any], turns: Turns, about: Hashable = None) -> None:
        self.name, self.about, self.result, self.problem = name, about, None, ""
        self._stop, self._turns, self._compute = threading.Event(), turns, compute
        self.steps = Steps(self._stop, turns)
        self._thread = threading.Thread(target=self._run, name=f"explore: {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._turns, watched(self.steps):
                self.result = self._compute()
        except StoppedError:
            self.problem = "stopped"
        except InterpError as error:
            self.problem = str(error)
        except Exception:
            logging.getLogger(__name__).exception("explore: %s failed", self.name)
            self.problem = "It failed; the terminal that runs `interp explore` says why."

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive()

    @property
    def said(self) -> str:
        """What it is at, in a line."""
        if self._stop.is_set():
            return f"{self.name}: stopping"
        return f"{self.name}, {round(100 * self.steps.share)} %" + (f": {self.steps.said}" if self.steps.said else "")

    def stop(self) -> None:
        """Have it end at its next step."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Until it ends, at most so long."""
        self._thread.join(seconds)


class Jobs:
    """Work under way and what is done, by a random name that only who began it knows."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def start(
        self, name: str, compute: Callable[[], Any], turns: Turns, *, about: Hashable = None, own: Iterable[str] = ()
    ) -> str:
        """Begin, and the name to ask by.

        Args:
            name, compute, turns, about: see `Job`.
            own: names of the work that the same one began before.

        Raises:
            InterpError: too much is under way, or among their own the same.
        """
        with self._lock:
            under_way = [job for key in own if (job := self._jobs.get(key)) is not None and job.running]
            if any((job.name, job.about) == (name, about) for job in under_way):
                raise InterpError(f"{WHO}: {name}: that is under way already; wait, or stop it.")
            if sum(job.running for job in self._jobs.values()) >= MOST_AT_ONCE:
                raise InterpError(
                    f"{WHO}: {MOST_AT_ONCE} pieces of work are under way, in all tabs together; wait, or stop one."
                )
            key = secrets.token_urlsafe(12)
            self._jobs[key] = Job(name, compute, turns, about)
            done = [key for key, job in self._jobs.items() if not job.running]
            for old in done[: max(0, len(self._jobs) - MOST_KEPT)]:
                del self._jobs[old]
        return key

    def get(self, key: str) -> Job:
        """Raises InterpError for work that is not there."""
        with self._lock:
            if key not in self._jobs:
                raise InterpError(f"{WHO}: that work is no longer here; begin it again.")
            return self._jobs[key]

    def stop_all(self) -> None:
        """Have all of it end."""
        for job in list(self._jobs.values()):
            job.stop()
