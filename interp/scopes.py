"""`with` blocks around a model, each of which counts only in the context that entered it: a thread, or an asyncio task."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import FrameType
from typing import Any

from interp.errors import HookError

_SUSPENDS = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR


class Scope:
    """One block while it lasts."""

    def __init__(self) -> None:
        self._around: frozenset[FrameType] = frozenset()
        self._ended = False

    @property
    def here(self) -> bool:
        """Whether the running code's context has entered the block, or was copied from one that had."""
        return self in _ENTERED.get()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The block. Its end ends it in every context; blocks may end in any order, as those of suspended generators do."""
        self._around = frozenset(_suspending())
        _ENTERED.set(_open() | {self})
        try:
            yield
        finally:
            self._ended, self._around = True, frozenset()
            _ENTERED.set(_open())


_ENTERED: ContextVar[frozenset[Scope]] = ContextVar("entered", default=frozenset())


class Scopes:
    """The blocks around one model, of all contexts. A copy of the model has none."""

    def __init__(self) -> None:
        self._all: dict[Scope, None] = {}  # a dict's single steps need no lock

    def __bool__(self) -> bool:
        return bool(self._all)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Scopes":
        return Scopes()

    @property
    def here(self) -> bool:
        """Whether one of them counts here."""
        return bool(self._all) and any(scope.here for scope in list(self._all))

    @contextmanager
    def entered(self, scope: Scope) -> Iterator[None]:
        """A block, known here while it lasts."""
        with scope.entered():
            self._all[scope] = None
            try:
                yield
            finally:
                del self._all[scope]

    def check_run(self) -> None:
        """Raise HookError where a generator that suspended within its block goes on in another context, in which that does not count."""
        elsewhere = [scope for scope in list(self._all) if not scope.here]
        if elsewhere and any(scope._around.intersection(_suspending()) for scope in elsewhere):
            raise HookError(
                "hooks: a generator attached hooks in one thread or task and now runs the model in another, where they do not act. "
                "Run all its steps in the same, or attach the hooks around each run of the model."
            )


def _open() -> frozenset[Scope]:
    return frozenset(scope for scope in _ENTERED.get() if not scope._ended)


def _suspending() -> Iterator[FrameType]:
    """The generators and coroutines that are running now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_flags & _SUSPENDS:
            yield frame
        frame = frame.f_back
