"""Tokens as they stand in figures: white space visible, and nothing read as markup."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import xarray as xr

from analyses.plots.markup import SIGNS
from interp.errors import ResultError, nearest
from interp.whole_numbers import whole_number

LONGEST = 9
"""Characters that a cell of a heatmap holds."""

LONGEST_TICK = 16
"""Characters of a token beside an axis."""

VISIBLE = {sign: sign for sign in SIGNS.values()} | {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽"}


def visible(token: str) -> str:
    """A token with its white space shown as signs and other unprintable characters as escapes; no markup is changed."""
    return "".join(VISIBLE.get(c, c if c.isprintable() else ascii(c)[1:-1]) for c in token)


def label(token: str) -> str:
    """A token for a plotly label, where tags would otherwise be read as markup."""
    return escape(visible(token), quote=False)


def named(name: object) -> str:
    """A name for a plotly label: its white space is no part of a token and stays as it is."""
    return escape(str(name), quote=False)


def short(token: str, most: int = LONGEST) -> str:
    """A token cut to what a cell of a heatmap holds, or to so many characters; the whole of it belongs on hover."""
    return token if len(token) <= most else f"{token[: most - 1]}…"


def model_name(result: xr.Dataset) -> str:
    """The name of a result's model, for a title."""
    return named(result.attrs["model"])


def axis(tokens: Iterable[str]) -> dict[str, Any]:
    """A plotly axis that names each position by its token; equal tokens keep their own places."""
    labels = [label(short(str(token), LONGEST_TICK)) for token in tokens]
    return {"tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": labels, "showgrid": False}


def where_read(parameters: Mapping[str, Any], prompt: int | None = None) -> str:
    """At which position a result's answers are read, to be put after what is measured; nothing where it is the last token.

    Args:
        parameters: of the result.
        prompt: the one that is shown; None is all of them.
    """
    position = parameters.get("position", -1)
    if isinstance(position, list):
        shown = set(position if prompt is None else [position[prompt]])
        position = shown.pop() if len(shown) == 1 else None
    if position is None:
        return " at a position of its own in each prompt"
    return "" if position == -1 else f" at position {position}" + (" (from the end)" if position < 0 else "")


def which(result: xr.Dataset, number: int | None, what: str = "prompt") -> str:
    """Which prompt of several a figure shows; nothing where there is one only, or where it shows all of them."""
    several = result.sizes["prompt"]
    return "" if several == 1 or number is None else f"{what} {number} of 0 to {several - 1}"


def subtitled(title: str, *said: str) -> str:
    """A title, and beneath it in small letters what there is to be said."""
    below = "; ".join(one for one in said if one)
    return f"{title}<br><sup>{below}</sup>" if below else title


def counted(number: int, what: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def prompts_in(prompts: int, clusters: int) -> str:
    """How many prompts, and in how many clusters where these are fewer."""
    return counted(prompts, "prompt") + ("" if clusters == prompts else f" in {counted(clusters, 'cluster')}")


def place(sizes: Any, dim: str, index: int) -> int:
    """An index along a dimension of a result, checked. Raises ResultError where the result has no such place."""
    index = whole_number(index, dim, ResultError)
    if not 0 <= index < sizes[dim]:
        raise ResultError(f"{dim} {index} is not in this result. {nearest(str(index), map(str, range(sizes[dim])))}")
    return index
