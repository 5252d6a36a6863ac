"""Results that were made for the page, kept while there is room."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import xarray as xr

MOST_BYTES = 400_000_000


class KeptResults:
    """Results by what they were asked with; those not asked for longest go first.

    Args:
        most: bytes of all of them together.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most, self._lock = most, threading.Lock()
        self._results: OrderedDict[Hashable, xr.Dataset] = OrderedDict()

    def get(self, key: Hashable) -> xr.Dataset | None:
        """The result, where it is there."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
            return self._results.get(key)

    def put(self, key: Hashable, result: xr.Dataset) -> xr.Dataset:
        """Keep a result, and give it back."""
        with self._lock:
            self._results[key] = result
            self._results.move_to_end(key)
            while len(self._results) > 1 and self.nbytes > self._most:
                self._results.popitem(last=False)
        return result

    def of(self, key: Hashable, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        """The result, computed where it is not there."""
        found = self.get(key)
        return self.put(key, compute()) if found is None else found

    @property
    def nbytes(self) -> int:
        """Of all results."""
        return sum(result.nbytes for result in self._results.values())
