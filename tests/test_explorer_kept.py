"""What the server of the live page keeps: what would be computed anew, of the weights and texts asked about, and no more than may be."""

from copy import deepcopy

import numpy as np
import pytest
import xarray as xr
from explored import START
from plotly.io.json import to_json_plotly

from analyses.explorer.desk import Desk
from analyses.explorer.effects import effects
from analyses.explorer.events import act
from analyses.explorer.figures import FIGURES
from analyses.explorer.kept import Kept
from analyses.explorer.session import Session
from analyses.explorer.state import Change
from interp.errors import InterpError

LONG = " and ".join([START.clean] * 3)
CHANGES = (Change("patch", 1, 10), Change("inject", 0, 5, amount=0.2, seed=3), Change("inject", 1, 3, on=False))
STATES = [
    START.but(changes=CHANGES),
    START.but(changes=CHANGES, layer=2, head=1, position=4, site="z", shown="corrupt"),
    START.but(changes=(CHANGES[0], Change("inject", 1, 3)), changed="clean", site="mlp_out"),
    START.but(clean=LONG, corrupt="", position=3, changes=CHANGES[1:]),
    START.but(clean=LONG, corrupt="", position=30, layer=1, changes=CHANGES[1:]),
    START.but(answer=" Tom", changes=CHANGES),
]


@pytest.fixture
def desk(smalltown):
    return Desk({"smalltown": smalltown})


def drawn(desk, name, state):
    try:
        return to_json_plotly(desk.figure(name, state))
    except InterpError as error:
        return str(error)


@pytest.mark.parametrize("name", FIGURES)
def test_a_kept_figure_is_the_one_that_would_be_drawn(desk, smalltown, name):
    fresh = [drawn(Desk({"smalltown": smalltown}), name, state) for state in STATES]
    for _ in range(2):  # computed, then kept
        assert [drawn(desk, name, state) for state in STATES] == fresh


def test_kept_effects_are_those_that_would_be_measured(desk, smalltown):
    fresh = [effects(smalltown, desk.asked(state), state) for state in STATES if state.corrupt]
    for _ in range(2):
        assert [desk.effects(state) for state in STATES if state.corrupt] == fresh
    assert desk.effects(STATES[0]) is desk.effects(STATES[0].but(layer=2, position=1, site="z", shown="corrupt"))


def test_undo_computes_nothing(desk, monkeypatch):
    def spreading(state):
        return [drawn(desk, name, state) for name in ("cone", "gain")]

    session = Session(START.but(layer=1, position=5))
    before = []
    for do in ("patch", "inject", "inject", "ablate"):
        session = act(desk, session, {"do": do, "amount": 0.1 * (1 + len(before))})
        before.append([desk.effects(desk.possible(session.state)), *spreading(session.state)])
    for name in ("analyses.explorer.desk.effects", "analyses.explorer.desk.obstacle", "analyses.explorer.desk.read"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("it is there"))
    monkeypatch.setattr("analyses.explorer.desk.MEASURES", {})
    for found in before[-2::-1]:
        session = act(desk, session, {"do": "undo"})
        assert found[0] is desk.effects(desk.possible(session.state))
        assert found[1:] == spreading(session.state)


def test_weights_that_are_loaded_anew_have_nothing_of_those_before(smalltown, monkeypatch):
    times = []

    def load(name):
        times.append(name)
        model = deepcopy(smalltown)
        model.W_U.data *= 1 + 0.1 * len(times)
        return model

    monkeypatch.setattr("analyses.explorer.models.load", load)
    desk = Desk()
    desk.models.names += ["one", "two", "three"]
    first, *others = [STATES[0].but(model=name) for name in ("one", "two", "three")]
    asked, before = desk.asked(first), desk.effects(first)
    figures = {name: drawn(desk, name, first) for name in ("lens", "patching")}
    assert desk.circuit(first) is None
    for other in others:  # so that the first is no longer in memory
        desk.asked(other)
    assert desk.effects(first) is before  # it is still of the last weights of this name
    desk.result("gain", first)
    assert times == ["one", "two", "three", "one"]
    assert desk.effects(first) == effects(desk.models.loaded("one"), desk.asked(first), first)
    assert desk.asked(first) is not asked
    assert desk.effects(first).together.metric != before.together.metric
    for name, one in figures.items():
        assert drawn(desk, name, first) != one


def test_kept_values_make_room():
    kept = Kept(2000, lambda result: result.nbytes)
    for number in range(10):
        kept.put(number, xr.Dataset({"x": ("a", np.zeros(100))}))
        kept.put(number, xr.Dataset({"x": ("a", np.zeros(100))}))
    assert kept.size == 1600
    assert kept.get(9) is not None
    assert kept.get(0) is None
    few = Kept(3)
    for number in (1, 2, 3, 1, 4):
        few.of(number, lambda number=number: -number)
    assert [few.get(number) for number in range(5)] == [None, -1, None, -3, -4]
    assert few.size == 3
