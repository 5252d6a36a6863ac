"""What was made for the page, kept while there is room."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by what they were asked with; those not asked for longest go first.

    Args:
        most: size of all of them together.
        size: of one, by default 1, so that `most` is how many.
    """

    def __init__(self, most: int, size: Callable[[Value], int] = lambda _: 1) -> None:
        self._most, self._size_of, self._lock = most, size, threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable) -> Value | None:
        """The value, where it is there."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Value) -> Value:
        """Keep a value, and give it back."""
        size = self._size_of(value)
        with self._lock:
            if key in self._values:
                self._size -= self._values.pop(key)[1]
            self._values[key] = value, size
            self._size += size
            while len(self._values) > 1 and self._size > self._most:
                self._size -= self._values.popitem(last=False)[1][1]
        return value

    def of(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value, computed where it is not there."""
        found = self.get(key)
        return self.put(key, compute()) if found is None else found

    @property
    def size(self) -> int:
        """Of all values."""
        return self._size
