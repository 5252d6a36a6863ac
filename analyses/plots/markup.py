"""The texts of a result stand in its figure as they are; none is read as markup.

Plotly reads tags and entities in every text of a figure, and a tag can make a browser fetch something. Our own tags are meant; those
in a file by somebody else, or in a token, are not. So before a result is drawn each `<`, `>` and `&` in it becomes a sign that means
nothing, and in the finished figure the sign becomes the entity of the character.
"""

import json
from collections.abc import Callable, Mapping
from functools import wraps
from html import escape
from typing import Any, TypeVar, cast

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from analyses.plots.fit import caption, fit

SIGNS = {"<": "\U0010fffb", ">": "\U0010fffc", "&": "\U0010fffd"}
"""Code points that Unicode leaves to private use and no fonts have."""

SIGNED = str.maketrans(SIGNS)
PLAIN = str.maketrans({sign: mark for mark, sign in SIGNS.items()})
ENTITIES = str.maketrans({SIGNS["<"]: "&lt;", SIGNS[">"]: "&gt;", SIGNS["&"]: "&amp;"})

F = TypeVar("F", bound=Callable[..., go.Figure])


def as_text(draw: F) -> F:
    """Have a function that draws results show all their texts as they are, and its figure fit its size (`analyses.plots.fit`). Every public
    function that draws is so decorated."""

    @wraps(draw)
    def drawn(*given: Any, **options: Any) -> go.Figure:
        figure = draw(*map(_signed, given), **{name: _signed(value) for name, value in options.items()})
        for part in (*figure.data, figure.layout):
            for name, value in part.to_plotly_json().items():
                if (shown := _walked(value, ENTITIES)) is not value:
                    part[name] = shown
        figure.layout.meta = {"caption": escape(caption(figure, draw.__doc__), quote=False)}
        fit(figure)
        return figure

    return cast(F, drawn)


def plain(text: str) -> str:
    """A text with its characters again, to compare it with what was no part of a result; never to be drawn."""
    return text.translate(PLAIN)


def _signed(given: Any) -> Any:
    """What a figure is made of, with signs: a result, several by name, or an option such as a title."""
    if isinstance(given, Mapping) and not isinstance(given, xr.Dataset):
        return {_walked(name, SIGNED): _signed(value) for name, value in given.items()}
    if not isinstance(given, xr.Dataset):
        return _walked(given, SIGNED)
    variables = {_walked(name, SIGNED): _variable(variable) for name, variable in given.variables.items()}
    coords = {_walked(name, SIGNED) for name in given.coords}
    return xr.Dataset(
        {name: variable for name, variable in variables.items() if name not in coords},
        {name: variable for name, variable in variables.items() if name in coords},
        {name: _attribute(value) for name, value in given.attrs.items()},
    )


def _variable(variable: xr.Variable) -> xr.Variable:
    dims = [_walked(dim, SIGNED) for dim in variable.dims]
    attrs = {name: _attribute(value) for name, value in variable.attrs.items()}
    values = _walked(variable.to_numpy(), SIGNED) if variable.dtype.kind in "OU" else variable.to_numpy()
    return xr.Variable(dims, values, attrs)


def _attribute(value: Any) -> Any:
    """An attribute with signs, also where JSON within it spells the characters as escapes."""
    if not isinstance(value, str):
        return _walked(value, SIGNED)
    if not any(mark in value for mark in (*SIGNS, "\\u00")):
        return value
    try:
        return json.dumps(_walked(json.loads(value), SIGNED), ensure_ascii=False)
    except (ValueError, RecursionError):
        return value.translate(SIGNED)


def _walked(value: Any, table: Mapping[int, str]) -> Any:
    """A value with every text in it translated; the same object where nothing is."""
    if isinstance(value, str):
        changed = value.translate(table)
        return value if changed == value else changed
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "OU":
            return value
        flat = value.reshape(-1).tolist()
        walked = [_walked(one, table) for one in flat]
        if all(one is other for one, other in zip(walked, flat, strict=True)):
            return value
        out = np.empty(len(walked), dtype=object)
        out[:] = walked
        return out.reshape(value.shape)
    if isinstance(value, Mapping):
        pairs = {_walked(name, table): _walked(inner, table) for name, inner in value.items()}
        return pairs if any(pairs.get(name) is not inner for name, inner in value.items()) else value
    if isinstance(value, (list, tuple)):
        walked = [_walked(inner, table) for inner in value]
        return type(value)(walked) if any(a is not b for a, b in zip(walked, value, strict=True)) else value
    return value
