"""The models that the page offers: those that are installed, by name. Each is run by one at a time."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from analyses.explorer.limits import WHO
from analyses.explorer.turns import Turns
from interp import load
from interp.errors import InterpError, nearest
from interp.loading.listing import models as listed
from interp.model import Transformer

MOST_LOADED = 2
"""Models in memory at once; the one used longest ago goes first."""


class Models:
    """Models by name, loaded when they are first asked for.

    Args:
        given: models that are loaded already, or were named on the command line, beside the installed ones.
        most: in memory at once, besides those given.
    """

    def __init__(self, given: Mapping[str, Transformer] | None = None, most: int = MOST_LOADED) -> None:
        self._given, self._most = dict(given or {}), most
        self._loaded: OrderedDict[str, Transformer] = OrderedDict()
        self._turns: dict[str, Turns] = {}
        self._times: dict[str, int] = {}
        self._lock = threading.Lock()
        here = [one.name for one in listed() if one.config is not None and one.revision is None]
        self.names: list[str] = list(dict.fromkeys([*self._given, *here]))

    @contextmanager
    def use(self, name: str) -> Iterator[Transformer]:
        """The model, for this thread alone within the block. Raises InterpError for a name that is not in the list."""
        with self.turns(name):
            yield self.loaded(name)

    def turns(self, name: str) -> Turns:
        """The queue of a model. Raises InterpError as `use`."""
        if name not in self.names:
            raise InterpError(
                f"{WHO}: there is no model {name[:80]!r} here. {nearest(name[:80], self.names)} `interp models` lists what can be had."
            )
        with self._lock:
            return self._turns.setdefault(name, Turns())

    def loading(self, name: str) -> tuple[str, int]:
        """What tells the weights of a name from those that were loaded by it before: how often it was loaded."""
        return name, self._times.get(name, 0)

    def loaded(self, name: str) -> Transformer:
        """The model, by who has its turn."""
        if name in self._given:
            return self._given[name]
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
        model = load(name)
        if model.tokenizer is None:
            raise InterpError(f"{WHO}: {name} has no tokenizer, so no text can be given to it here.")
        with self._lock:
            self._loaded[name] = model
            self._times[name] = self._times.get(name, 0) + 1
            while len(self._loaded) > self._most:
                self._loaded.popitem(last=False)
        return model
