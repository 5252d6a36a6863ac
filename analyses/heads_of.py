"""Heads as users name them."""

from collections.abc import Iterable
from typing import Any

from interp.config import ModelConfig
from interp.errors import InterpError
from interp.whole_numbers import is_one, one_or_several, whole_numbers


def heads_of(config: ModelConfig, heads: Iterable[Any], who: str) -> list[tuple[int, int]]:
    """Heads as (layer, head) in plain numbers.

    Raises:
        InterpError: what is no pair of whole numbers, a head that the model does not have, one twice, or none at all.
    """
    last = f"({config.n_layers - 1}, {config.n_heads - 1})"
    expected = f"name each head once, as (layer, head) from (0, 0) to {last}"
    found = []
    for given in one_or_several(heads, f"{who}: heads", InterpError):
        pair = [] if is_one(given) else whole_numbers(given, f"{who}: a layer or head", InterpError)
        if len(pair) != 2:
            raise InterpError(f"{who}: {given!r} is no head; {expected}.")
        layer, head = pair
        if not (0 <= layer < config.n_layers and 0 <= head < config.n_heads):
            raise InterpError(f"{who}: there is no head {layer}.{head}; {expected}.")
        found.append((layer, head))
    if not found or len(set(found)) < len(found):
        raise InterpError(f"{who}: heads {found}; {expected}, and at least one.")
    return found
