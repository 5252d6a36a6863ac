"""What the server has: models, and what was made of them. Everything else is in the tabs."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

import xarray as xr
from plotly.io.json import to_json_plotly

from analyses.circuits import edge_patching
from analyses.explorer.asked import Asked, read
from analyses.explorer.changes import obstacle
from analyses.explorer.code import as_python
from analyses.explorer.effects import Effects, effects
from analyses.explorer.figures import FIGURES, Drawn
from analyses.explorer.kept import Kept
from analyses.explorer.live import Lives
from analyses.explorer.measures import MEASURES, key_of
from analyses.explorer.models import Models
from analyses.explorer.state import State
from analyses.explorer.work import Jobs
from analyses.lenses.translators import is_shipped
from analyses.report.collect import collect
from analyses.report.html import render
from interp.config import ModelConfig
from interp.model import Transformer
from interp.zoo import task

MOST_ASKED, MOST_EFFECTS = 16, 512
"""Pairs of prompts whose reading is kept, and sets of changes whose effects are."""

MOST_BYTES, MOST_DRAWN = 400_000_000, 100_000_000
"""Of results, and of figures of them as JSON."""

Value = TypeVar("Value")


class Desk:
    """The models and everything measured of them.

    Args:
        given: models that are loaded already, by name; their weights stay as they are, for what is measured of them is kept.
    """

    def __init__(self, given: Mapping[str, Transformer] | None = None) -> None:
        self.models, self.jobs = Models(given), Jobs()
        self.lives = Lives(self.models)
        self.kept: Kept[xr.Dataset] = Kept(MOST_BYTES, lambda result: result.nbytes)
        self.drawn: Kept[Drawn] = Kept(MOST_DRAWN, lambda drawn: len(to_json_plotly(drawn)))
        self._asked: Kept[Asked] = Kept(MOST_ASKED)
        self._effects: Kept[Effects] = Kept(MOST_EFFECTS)
        self._obstacles: Kept[tuple[str, ...]] = Kept(MOST_EFFECTS)
        self._configs: Kept[ModelConfig] = Kept(MOST_ASKED)

    def asked(self, state: State) -> Asked:
        """A state's prompts and answers. Raises InterpError for what the model cannot take."""
        return self._of(self._asked, state, _texts(state), lambda model: read(model, state))

    def config(self, name: str) -> ModelConfig:
        """The shape of a model. Raises InterpError for a name that is not in the list."""
        return self._of(self._configs, State(model=name), (), lambda model: model.config)

    def result(self, name: str, state: State) -> xr.Dataset:
        """The result of a view. Raises InterpError where it cannot be had, with the reason."""
        key = key_of(name, state)
        return self._of(self.kept, state, key, lambda model: MEASURES[name](model, state, self._read(model, state)))

    def figure(self, name: str, state: State) -> Drawn:
        """A figure as the page takes it. Raises InterpError as `result`."""
        one = FIGURES[name]
        of = one.result(state)
        key = (self.models.loading(state.model), name, key_of(of, state), *(getattr(state, at) for at in one.shows))
        found = self.drawn.get(key)
        if found is not None:
            return found
        result = self.result(of, state)
        drawn = one.draw(result, state)
        return self.drawn.put(key, drawn) if key[0] == self.models.loading(state.model) else drawn

    def effects(self, state: State) -> Effects:
        """Predictions, and what the changes do to them. Raises InterpError for a change that cannot be made."""
        return self._of(
            self._effects, state, _changes(state), lambda model: effects(model, self._read(model, state), state)
        )

    def obstacles(self, state: State) -> tuple[str, ...]:
        """Why each change cannot be made in this model and these texts; empty where it can."""

        def compute(model: Transformer) -> tuple[str, ...]:
            asked = self._read(model, state)
            return tuple(obstacle(model, asked, state, one) for one in state.changes)

        return self._of(self._obstacles, state, _changes(state), compute)

    def _of(self, kept: Kept[Value], state: State, key: Hashable, compute: Callable[[Transformer], Value]) -> Value:
        """What is kept of the weights of a state's model and of a key, without waiting for a turn; else computed."""
        found = kept.get((self.models.loading(state.model), key))
        if found is not None:
            return found
        with self.models.use(state.model) as model:  # while it is in use its weights stay those that the key names
            return kept.of((self.models.loading(state.model), key), lambda: compute(model))

    def _read(self, model: Transformer, state: State) -> Asked:
        """As `asked`, by who has the turn."""
        return self._asked.of((self.models.loading(state.model), _texts(state)), lambda: read(model, state))

    def possible(self, state: State) -> State:
        """The state without the changes that cannot be made."""
        told = zip(state.changes, self.obstacles(state), strict=True)
        return state.but(changes=tuple(one for one, why in told if not why))

    def python(self, state: State, steps: int = 0) -> str:
        """The state as code, without the changes that cannot be made; with the circuit where it was measured."""
        state = self.possible(state)
        with self.models.use(state.model) as model:
            options = {"shipped": is_shipped(model), "circuit": self.circuit(state) is not None}
            return as_python(model, self._read(model, state), state, steps=steps, **options)

    def example(self, state: State, name: str, seed: int) -> State:
        """A pair of a task in the place of the prompts. Raises InterpError for a task that is none, or that does not suit the model."""
        with self.models.use(state.model) as model:
            pair = task(name).sample(1, seed, model.tokenizer)[0]
        return state.but(
            clean=pair.clean,
            corrupt=pair.corrupt,
            answer=pair.answer,
            wrong=pair.wrong,
            changes=(),
            layer=0,
            head=0,
            position=0,
        )

    def circuit(self, state: State) -> xr.Dataset | None:
        """What every edge of the model does, where it was measured."""
        return self.kept.get((self.models.loading(state.model), _circuit_key(state)))

    def start_circuit(self, state: State, own: Iterable[str] = ()) -> str:
        """Patch every edge in the background; the name of the work. `own` is that of the same tab, see `Jobs.start`."""
        asked = self.asked(state)
        answer, wrong = asked.pair()
        asked.check_aligned()

        def compute() -> None:
            model = self.models.loaded(state.model)
            weights = self.models.loading(state.model)  # another may be loaded while the work lets others in
            found = edge_patching(model, state.clean, state.corrupt, answer=answer, wrong=wrong)
            self.kept.put((weights, _circuit_key(state)), found)

        return self._started("Patching every edge", compute, state, own)

    def start_report(self, state: State, own: Iterable[str] = ()) -> str:
        """Write the page of `interp report` in the background, as `start_circuit`; the result of the work is the page."""
        asked = self.asked(state)
        if state.corrupt:
            asked.pair()

        def compute() -> str:
            model = self.models.loaded(state.model)
            found = collect(
                model,
                state.clean,
                corrupt=state.corrupt or None,
                answer=state.answer or None,
                wrong=state.wrong or None,
            )
            return render(found)

        return self._started("Writing the report", compute, state, own)

    def _started(self, name: str, compute: Callable[[], Any], state: State, own: Iterable[str]) -> str:
        return self.jobs.start(name, compute, self.models.turns(state.model), about=_texts(state), own=own)


def _texts(state: State) -> tuple[str, ...]:
    return (state.model, state.clean, state.corrupt, state.answer, state.wrong)


def _circuit_key(state: State) -> tuple[str, ...]:
    return ("circuit", *_texts(state))


def _changes(state: State) -> tuple[Hashable, ...]:
    return (*_texts(state), state.base, state.changes)
