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


def to_address(state: State) -> str:
    """The query of the page's address that shows a state, with its question mark; what is as usual is left out."""
    values = state.to_json()
    usual = PLAIN.to_json()
    said = {name: str(value) for name, value in values.items() if name != "changes" and value != usual[name]}
    if state.changes:
        said["changes"] = json.dumps([_brief(one) for one in state.changes], separators=(",", ":"), ensure_ascii=False)
    return f"?{urlencode(said)}" if said else ""


def from_address(query: str, otherwise: State = PLAIN) -> State:
    """The state that an address shows. Raises InterpError for an address that is none, or is too long.

    Args:
        otherwise: what holds where the address names no prompt at all.
    """
    if len(query) > LONGEST_ADDRESS:
        raise InterpError(f"{WHO}: the address is too long; at most {LONGEST_ADDRESS:,} characters.")
    try:
        read = parse_qs(query.lstrip("?"), keep_blank_values=True, max_num_fields=50, errors="strict")
        values: dict[str, Any] = {name: given[-1] for name, given in read.items() if name in PLAIN.to_json()}
        for name in ("layer", "position", "head", "seed"):
            values |= {name: int(values[name])} if name in values else {}
        if "temperature" in values:
            values["temperature"] = float(values["temperature"])
        if "changes" in values:
            values["changes"] = json.loads(values["changes"])
    except (ValueError, RecursionError) as error:
        raise InterpError(f"{WHO}: the address holds no state: {str(error)[:100]}.") from error
    begun = {} if "clean" in values else otherwise.to_json()
    return State.from_json(begun | values)


def _brief(change: Change) -> dict[str, Any]:
    return {
        one.name: getattr(change, one.name)
        for one in fields(Change)
        if one.name in ("kind", "layer") or getattr(change, one.name) != one.default
    }
