"""Turns: who waits longest is next."""

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A lock that is handed on in the order in which it was asked for, so that long work which gives way lets short work in."""

    def __init__(self) -> None:
        self._free = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._free:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # whoever leaves lets it go

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._free:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    def give_way(self) -> None:
        """By who holds it: let everybody who waits go first."""
        with self._free:
            nobody = not self._waiting
        if nobody:
            return
        self.__exit__(None, None, None)
        self.__enter__()
