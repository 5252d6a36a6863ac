"""Which function draws a result: each registers its kinds where it is defined."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar, cast

import plotly.graph_objects as go
import xarray as xr

from analyses.averaged import check_group
from analyses.circuits.circuit import Circuit
from analyses.plots.circuit import plot_circuit
from analyses.plots.markup import as_text
from interp.errors import InterpError, ResultError, nearest
from interp.whole_numbers import takes_whole

Figure = Callable[..., go.Figure]
F = TypeVar("F", bound=Figure)

_REGISTERED: dict[str, Figure] = {}


def draws(*kinds: str) -> Callable[[F], F]:
    """Register the decorated function as what draws results of these kinds: it shows their texts as they are, and reads whole numbers as
    everything does."""

    def register(draw: F) -> F:
        whole = [p.name for p in signature(draw).parameters.values() if p.annotation in (int, int | None)]
        function = cast(F, as_text(takes_whole(*whole)(draw)))
        for kind in kinds:
            if kind in _REGISTERED:
                raise ValueError(f"results of kind {kind!r} are drawn by {_REGISTERED[kind].__name__} already.")
            _REGISTERED[kind] = function
        return function

    return register


@cache
def kinds() -> Mapping[str, Figure]:
    """Every kind of result that has a figure, and the function that draws it."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if file.stem != "__init__":
            import_module(f"analyses.plots.{file.stem}")
    return _REGISTERED


def plot(result: xr.Dataset | Circuit, **options: Any) -> go.Figure:
    """The figure of a result, chosen by its kind, or of a circuit; options are those of that kind's plot function.

    Raises ResultError for a result of a kind that has no figure, for an option that its figure does not take, and for one whose contents
    do not fit each other, as of a file that was made by hand.
    """
    if isinstance(result, Circuit):
        kind, draw = "circuit", cast(Figure, plot_circuit)
    else:
        kind = str(getattr(result, "attrs", {}).get("kind"))
        if kind not in kinds():
            raise ResultError(f"there is no figure for a result of kind {kind!r}. {nearest(kind, kinds())}")
        check_group(result)
        draw = kinds()[kind]
    known = list(signature(draw).parameters)[1:]
    if unknown := [name for name in options if name not in known]:
        taken = f"it takes {', '.join(known)}" if known else "it takes none"
        raise ResultError(f"the figure of a result of kind {kind!r} has no option {unknown[0]!r}; {taken}.")
    try:
        return draw(result, **options)
    except InterpError:
        raise
    except Exception as error:
        raise ResultError(
            f"this result of kind {kind!r} cannot be drawn, as its contents do not fit each other: {type(error).__name__}: {error}"
        ) from error
