"""Whether what is sent to the page's callbacks is something that the page itself would ask."""

from collections.abc import Mapping
from typing import Any

PATH = "/_dash-update-component"
SAID = "This is no question that the page asks. Reload it."


def is_question(callbacks: Mapping[str, Any], asked: Any) -> bool:
    """Whether a callback of the server is asked for, with its own inputs, state and outputs; their values are for it to judge."""
    if not isinstance(asked, dict) or not isinstance(asked.get("output"), str):
        return False
    one, changed = callbacks.get(asked["output"]), asked.get("changedPropIds")
    if one is None or "callback" not in one:
        return False
    if not isinstance(changed, list) or not all(isinstance(each, str) and "." in each for each in changed):
        return False
    outputs, several = asked.get("outputs"), isinstance(one["output"], list | tuple)
    count = len(one["output"]) if several else 1
    return (
        _places(asked.get("inputs")) == _places(one["inputs"])
        and _places(asked.get("state", [])) == _places(one["state"])
        and isinstance(outputs, list) == several
        and len(_places(outputs if several else [outputs]) or ()) == count
    )


def _places(given: Any) -> list[tuple[str, str]] | None:
    """Names and properties of components; None for what is no list of them."""
    if not isinstance(given, list | tuple) or not all(isinstance(one, Mapping) for one in given):
        return None
    found = [(one.get("id"), one.get("property")) for one in given]
    return found if all(isinstance(part, str) for one in found for part in one) else None
