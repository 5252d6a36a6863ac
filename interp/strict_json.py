"""JSON that means one thing only: no NaN, no number beyond float64, no key twice, no nesting without end."""

import json
import math
from typing import Any


def parse(text: str) -> Any:
    """What a JSON text holds. Raises ValueError, which says why, where it is none, or not one that is read alike everywhere."""
    try:
        return json.loads(text, parse_constant=_refused, parse_float=_finite, parse_int=_whole, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _whole(text: str) -> int:
    _finite(text)  # beyond float64 no arithmetic with others is possible
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise ValueError(f"the key {twice!r} is there twice")
    return found
