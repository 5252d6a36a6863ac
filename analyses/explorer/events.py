"""What a click, a key or a field asks of a session. Events come from a browser, so that nothing in them is taken on trust."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from analyses.explorer.changes import check
from analyses.explorer.desk import Desk
from analyses.explorer.limits import WHO, whole
from analyses.explorer.session import Session, same_run
from analyses.explorer.state import SITES, Change, State
from interp.errors import InterpError, nearest

Event = Mapping[str, Any]

FIELDS = (
    "model", "clean", "corrupt", "answer", "wrong", "changed", "site", "shown", "lens", "temperature", "seed",
)  # fmt: skip
"""What a field of the page sets."""

ARROWS = {
    "ArrowLeft": ("position", -1),
    "ArrowRight": ("position", 1),
    "ArrowUp": ("layer", 1),
    "ArrowDown": ("layer", -1),
}


def act(desk: Desk, session: Session, event: Any) -> Session:
    """The session after an event. Raises InterpError, with what to do, for an event that cannot be; then the session stays as it was."""
    if not isinstance(event, Mapping) or not isinstance(event.get("do"), str):
        raise InterpError(f"{WHO}: what was sent is no event. Reload the page.")
    if event["do"] not in ACTS:
        raise InterpError(f"{WHO}: nothing is called {event['do'][:40]!r}. {nearest(event['do'][:40], ACTS)}")
    return ACTS[event["do"]](desk, session, event)


def remark(event: Event) -> str:
    """What is to be said of an event that was done; mostly nothing."""
    if event["do"] == "drop" and event.get("onto") not in (None, event["position"]):
        return (
            f"The patch is at position {event['position']}, that of the token: a patch does not move what it puts in."
        )
    return ""


def settled(desk: Desk, state: State, *, last: bool = False) -> State:
    """A state whose selection the model and the texts have. Raises InterpError for texts that the model cannot take.

    Args:
        last: select the last token.
    """
    asked = desk.asked(state)
    config = desk.config(state.model)
    length = max(tokens.shape[1] for tokens in asked.tokens.values())
    return state.but(
        layer=min(state.layer, config.n_layers - 1),
        head=min(state.head, config.n_heads - 1),
        position=length - 1 if last else min(state.position, length - 1),
    )


def elsewhere(desk: Desk, state: State) -> str:
    """What of a selection the model and the texts do not have, as a sentence; empty where they have it."""
    there = settled(desk, state)
    names = [name for name in ("layer", "head", "position") if getattr(state, name) != getattr(there, name)]
    lost = ", ".join(f"{name} {getattr(state, name)}" for name in names)
    found = ", ".join(f"{name} {getattr(there, name)}" for name in names)
    return f"{WHO}: there is no {lost} in {state.model} and these texts; {found} is selected." if names else ""


def _select(desk: Desk, session: Session, event: Event) -> Session:
    given = {name: event[name] for name in ("layer", "position", "head") if event.get(name) is not None}
    state = State.from_json(session.state.to_json() | given)
    return session.to(settled(desk, state))


def _key(desk: Desk, session: Session, event: Event) -> Session:
    key, state = str(event.get("key")), session.state
    if key == "Escape":
        return session.to(settled(desk, state.but(layer=0, head=0), last=True))
    if key not in ARROWS:
        raise InterpError(f"{WHO}: the key {key[:20]!r} does nothing.")
    name, step = ARROWS[key]
    name = "head" if event.get("shift") else name
    return session.to(settled(desk, state.but(**{name: max(0, getattr(state, name) + step)})))


def _cell(desk: Desk, session: Session, event: Event) -> Session:
    """A click on a cell: it is selected, and by what clicks are set to do, changed."""
    there = _select(desk, session, event)
    how = event.get("how", "select")
    return there if how == "select" else act(desk, there, {**event, "do": how, "head": there.state.head})


def _added(desk: Desk, session: Session, change: Change) -> Session:
    """The session with one more change, or without the one that is the same."""
    state = session.state
    same = [one for one in state.changes if replace(one, on=True) == change]
    if same:
        return session.to(state.but(changes=tuple(one for one in state.changes if one not in same)))
    new = state.but(changes=(*state.changes, change))
    asked = desk.asked(new)
    with desk.models.use(state.model) as model:
        check(model, asked, new, change)
    return session.to(new)


def _change(kind: str) -> Callable[[Desk, Session, Event], Session]:
    def add(desk: Desk, session: Session, event: Event) -> Session:
        state = session.state
        values: dict[str, Any] = {"kind": kind, "layer": state.layer, "position": state.position}
        if kind == "patch":
            site = event.get("site") or state.site
            values |= {"site": site} | ({"head": state.head, "position": None} if site == "z" else {})
        if kind == "ablate":
            values |= {"head": state.head, "position": None}
        if kind in ("steer", "inject"):
            values |= {"amount": event.get("amount", 0.1)}
        if kind == "steer":
            values |= {"toward": event.get("toward") or "", "away": event.get("away") or ""}
        if kind == "inject":
            values |= {"seed": state.seed}
        if event.get("everywhere"):
            values["position"] = None
        return _added(desk, session, Change.from_json(values))

    return add


def _drop(desk: Desk, session: Session, event: Event) -> Session:
    """A token that was dragged onto the other text: the stream at its position is patched, in the layer that is selected."""
    whole(event.get("position"), "the position of a token that is dropped")
    there = _select(desk, session, {"position": event["position"]})
    site = there.state.site if there.state.site != "z" else SITES[0]
    return act(desk, there, {"do": "patch", "site": site})


def _placed(session: Session, event: Event) -> int:
    """The place of the change that is meant, of which the tab knew the place and what it was; others may have gone since, or its dose."""
    number, known = event.get("number"), Change.from_json(event.get("change"))
    for same in (lambda one: one, _but_dose):
        places = [at for at, one in enumerate(session.state.changes) if same(one) == same(known)]
        if places:
            return number if type(number) is int and number in places else places[0]
    raise InterpError(f"{WHO}: that change is no longer there.")


def _but_dose(change: Change) -> Change:
    return replace(change, amount=1.0, on=True)


def _with(session: Session, number: int, change: Change | None) -> Session:
    changes = list(session.state.changes)
    changes[number : number + 1] = [] if change is None else [change]
    return session.to(session.state.but(changes=tuple(changes)))


def _switch(desk: Desk, session: Session, event: Event) -> Session:
    number = _placed(session, event)
    one = session.state.changes[number]
    return _with(session, number, replace(one, on=not one.on))


def _remove(desk: Desk, session: Session, event: Event) -> Session:
    return _with(session, _placed(session, event), None)


def _dose(desk: Desk, session: Session, event: Event) -> Session:
    """Another amount of a disturbance or steering; one step to undo, however far the slider went."""
    number = _placed(session, event)
    one = session.state.changes[number]
    if not one.spreads:
        raise InterpError(f"{WHO}: {one.named} has no dose that could be changed.")
    new = Change.from_json({**session.state.to_json()["changes"][number], "amount": event.get("amount")})
    if new == one:
        return session
    made = _with(session, number, new)
    before = session.past[-1] if session.past else None
    again = before is not None and same_run(_but_amount(before, number), _but_amount(session.state, number))
    return Session(made.state, session.past) if again else made


def _but_amount(state: State, number: int) -> State:
    changes = enumerate(state.changes)
    return state.but(changes=tuple(replace(one, amount=1.0) if at == number else one for at, one in changes))


def _set(desk: Desk, session: Session, event: Event) -> Session:
    name, value = event.get("name"), event.get("value")
    if name not in FIELDS:
        raise InterpError(f"{WHO}: there is no field {str(name)[:40]!r}.")
    value = value if value is not None else ""
    state = State.from_json(session.state.to_json() | {str(name): value})
    moved = name in ("model", "clean", "corrupt")
    return session.to(
        settled(desk, state, last=name == "clean" and state.clean != session.state.clean) if moved else state
    )


def _example(desk: Desk, session: Session, event: Event) -> Session:
    seed = event.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise InterpError(f"{WHO}: an example has a seed from 0 on.")
    return session.to(settled(desk, desk.example(session.state, str(event.get("task")), seed), last=True))


def _back(desk: Desk, session: Session, event: Event) -> Session:
    number = event.get("number")
    if isinstance(number, bool) or not isinstance(number, int):
        raise InterpError(f"{WHO}: a run of the list has a number.")
    return _settled(desk, session.back(number))


def _undo(desk: Desk, session: Session, event: Event) -> Session:
    return _settled(desk, session.undone())


def _settled(desk: Desk, session: Session) -> Session:
    """A session that is back at another run, with a selection that this run has."""
    return Session(settled(desk, session.state), session.past)


ACTS: dict[str, Callable[[Desk, Session, Event], Session]] = {
    "select": _select,
    "key": _key,
    "cell": _cell,
    **{kind: _change(kind) for kind in ("patch", "ablate", "steer", "inject")},
    "drop": _drop,
    "switch": _switch,
    "remove": _remove,
    "dose": _dose,
    "set": _set,
    "example": _example,
    "undo": _undo,
    "back": _back,
}
