"""A state as the query of the page's address, and back."""

import json
from dataclasses import fields
from typing import Any
from urllib.parse import parse_qs, urlencode

from analyses.explorer.limits import WHO
from analyses.explorer.state import Change, State
from interp.errors import InterpError

LONGEST_ADDRESS = 60_000
"""Characters of an address."""

PLAIN = State()
NUMBERS: dict[str, type[int] | type[float]] = {
    **dict.fromkeys(("layer", "position", "head", "seed"), int),
    "temperature": float,
}


def to_address(state: State) -> str:
    """The query of the page's address that shows a state, with its question mark; what is as usual is left out.

    The position is always in it: without one the page selects the last token.
    """
    values = state.to_json()
    usual = PLAIN.to_json()
    said = {
        name: str(value)
        for name, value in values.items()
        if name == "position" or (name != "changes" and value != usual[name])
    }
    if state.changes:
        said["changes"] = json.dumps([_brief(one) for one in state.changes], separators=(",", ":"), ensure_ascii=False)
    return f"?{urlencode(said)}"


def from_address(query: str, otherwise: State = PLAIN) -> State:
    """The state that an address shows. Raises InterpError for an address that is none, or is too long.

    Args:
        otherwise: what holds where the address names no prompt at all.
    """
    if len(query) > LONGEST_ADDRESS:
        raise InterpError(f"{WHO}: the address is too long; at most {LONGEST_ADDRESS:,} characters.")
    try:
        read = parse_qs(query.lstrip("?"), keep_blank_values=True, max_num_fields=50, errors="strict")
        values: dict[str, Any] = {name: given[-1] for name, given in read.items() if name != "token"}
        values |= {name: _read(values[name], name, as_) for name, as_ in NUMBERS.items() if name in values}
        if "changes" in values:
            values["changes"] = json.loads(values["changes"])
    except (ValueError, RecursionError) as error:
        raise InterpError(f"{WHO}: the address holds no state: {str(error)[:100]}.") from error
    begun = {} if "clean" in values else otherwise.to_json()
    return State.from_json(begun | values)


def _read(value: str, name: str, as_: type[int] | type[float]) -> int | float:
    try:
        return as_(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a {'whole ' * (as_ is int)}number; got {value[:40]!r}") from error


def _brief(change: Change) -> dict[str, Any]:
    return {
        one.name: getattr(change, one.name)
        for one in fields(Change)
        if one.name in ("kind", "layer") or getattr(change, one.name) != one.default
    }
