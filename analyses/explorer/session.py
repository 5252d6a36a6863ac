"""A tab's state with what came before it. It is kept by the tab itself, so that tabs cannot disturb each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from analyses.explorer.address import from_address, to_address
from analyses.explorer.limits import WHO
from analyses.explorer.state import State
from interp.errors import InterpError

MOST_PAST = 30
"""States that can be gone back to."""

SELECTION = ("layer", "position", "head", "site", "shown", "lens", "temperature", "seed")
"""What is looked at; going to another place is no step that is undone."""


# A tab sends all of its past with every event; most of it was read before.
_read, _written = lru_cache(maxsize=512)(from_address), lru_cache(maxsize=512)(to_address)


@dataclass(frozen=True)
class Session:
    """A state, and the runs before it, the oldest first."""

    state: State
    past: tuple[State, ...] = ()

    def to(self, state: State) -> "Session":
        """The session with a new state. What was run before is remembered where something else is run now."""
        if same_run(self.state, state):
            return Session(state, self.past)
        return Session(state, (*self.past, self.state)[-MOST_PAST:])

    def undone(self) -> "Session":
        """One run back, at the place that is looked at now. Raises InterpError where there is none."""
        if not self.past:
            raise InterpError(f"{WHO}: there is nothing to undo.")
        return Session(self._here(self.past[-1]), self.past[:-1])

    def back(self, number: int) -> "Session":
        """An earlier run of the list; the present one joins it. Raises InterpError for a number that it does not have."""
        if not 0 <= number < len(self.past):
            raise InterpError(f"{WHO}: run {number} is not in the list.")
        return self.to(self._here(self.past[number]))

    def _here(self, state: State) -> State:
        looked_at = {name: getattr(self.state, name) for name in SELECTION}
        return state.but(**looked_at) if (state.model, state.clean) == (self.state.model, self.state.clean) else state

    def to_json(self) -> dict[str, Any]:
        """As JSON values; what is past by its addresses, which are short."""
        return {"state": self.state.to_json(), "past": [_written(one) for one in self.past]}

    @classmethod
    def from_json(cls, given: Any) -> "Session":
        """A session as a tab sends it. Raises InterpError for what is none."""
        if not isinstance(given, Mapping) or not isinstance(given.get("past", []), list):
            raise InterpError(f"{WHO}: what was sent is no session. Reload the page.")
        past = given.get("past", [])[-MOST_PAST:]
        if not all(isinstance(one, str) for one in past):
            raise InterpError(f"{WHO}: what was sent is no session. Reload the page.")
        return cls(State.from_json(given.get("state")), tuple(map(_read, past)))


def same_run(one: State, other: State) -> bool:
    """Whether two states run the same, wherever they look."""
    return one == other.but(**{name: getattr(one, name) for name in SELECTION})


def called(state: State) -> str:
    """A run in a few words, for the list."""
    texts = [f"{text if len(text) <= 42 else f'…{text[-41:]}'!r}" for text in (state.clean, state.corrupt) if text]
    on = sum(change.on for change in state.changes)
    said = [f"{on} change{'s' * (on != 1)}"] if on else []
    said += ["in the clean run"] if on and state.changed == "clean" and state.corrupt else []
    said += [f"answer {state.answer!r}"] if state.answer else []
    said += [f"not {state.wrong!r}"] if state.wrong else []
    return ", ".join([f"{state.model}: {' against '.join(texts)}", *said])
