"""Results of one run, each drawn with those that belong beside it: the figure that a report shows and that `interp export` writes."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from analyses.plots.attention import plot_head
from analyses.plots.kinds import kinds, plot
from analyses.plots.lens import plot_lens_pair
from analyses.plots.lens_curves import plot_trajectories
from analyses.plots.match import match
from interp.errors import ResultError

NULL = "_null"
"""Ends the name of a result that was measured at random initialisation."""

PAIRS = {"lens_corrupt": ("lens", ("clean", "corrupt")), "tuned": ("lens", ("logit lens", "tuned lens"))}
"""Lenses that are drawn beside another, by the names of both results and what they are called."""


def draw(name: str, results: Mapping[str, xr.Dataset], options: Mapping[str, Any] | None = None) -> go.Figure:
    """The figure of one of several results: growth with its random-init twin and the theory, other results on one scale with their twin's,
    a second lens beside the first.

    Args:
        name: of the result, as `interp report --save` and `interp cascade --save` name it.
        results: all that were measured together.
        options: such as `prompt`, `position`, `layer` and `head`; those that this figure does not take are left to others.

    Raises:
        ResultError: as `analyses.plot`.
    """
    return draw_with_twin(name, results, options)[name]


def draw_with_twin(
    name: str, results: Mapping[str, xr.Dataset], options: Mapping[str, Any] | None = None
) -> dict[str, go.Figure]:
    """A figure as `draw` makes it, and that of the same measured at random initialisation where there is one, by the results' names."""
    own = name.removesuffix(NULL)
    twin = own if name.endswith(NULL) else f"{own}{NULL}"
    function, taken = _function(name, results, dict(options or {}))
    drawn = {name: function(**taken)}
    if twin in results and results[twin].attrs["kind"] == results[name].attrs["kind"] and own != "gain":
        function, taken = _function(twin, results, taken)
        drawn[twin] = function(**taken)
        match(drawn.values())
    return drawn


def unused(results: Mapping[str, xr.Dataset], options: Mapping[str, Any]) -> list[str]:
    """The options that no figure of these results takes."""
    used = {option for name in results for option in _function(name, results, dict(options))[1]}
    return [option for option in options if option not in used]


def first_difference(results: Mapping[str, xr.Dataset]) -> int | None:
    """The first position in which a clean and a corrupt prompt differ, where a disturbance was injected there."""
    if not {"lens", "lens_corrupt", "cone"} <= set(results):
        return None
    ids = [results[name]["token_id"][0].to_numpy() for name in ("lens", "lens_corrupt")]
    at = int((ids[0] != ids[1]).argmax()) if len(ids[0]) == len(ids[1]) else -1
    cone = results["cone"]
    return at if at in cone["injection"] and bool(cone["share"].sel(injection=at).notnull().any()) else None


def _function(
    name: str, results: Mapping[str, xr.Dataset], options: dict[str, Any]
) -> tuple[Callable[..., go.Figure], dict[str, Any]]:
    """What draws a result, and which of the options it takes."""
    one = results[name]
    kind = str(one.attrs.get("kind"))
    if name in PAIRS and PAIRS[name][0] in results:
        beside, called = PAIRS[name]
        return partial(plot_lens_pair, results[beside], one, names=called), _taken(plot_lens_pair, options)
    if name == "trajectory" and one.sizes.get("candidate"):
        return partial(plot_trajectories, one), _taken(plot_trajectories, options)
    if kind == "attention_patterns" and {"layer", "head"} <= options.keys():
        return partial(plot_head, one), _taken(plot_head, options)
    taken = _taken(kinds()[kind], options) if kind in kinds() else {}
    if name == "gain":
        beside_it = {"null": results.get(f"gain{NULL}"), "theory": results.get("theory")}
        taken |= {role: other for role, other in beside_it.items() if other is not None}
    if name.removesuffix(NULL) == "cone" and "injection" not in taken and (at := first_difference(results)) is not None:
        taken["injection"] = at
    return partial(plot, one), taken


def _taken(function: Callable[..., go.Figure], options: Mapping[str, Any]) -> dict[str, Any]:
    known = signature(function).parameters
    return {option: value for option, value in options.items() if option in known}


def chosen(words: list[str]) -> dict[str, int | str]:
    """Options from words such as `prompt=2`. Raises ResultError for a word that names none."""
    found: dict[str, int | str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name.isidentifier() and equals and value):
            raise ResultError(f"an option of a figure is a name and a value, such as prompt=2; got {word!r}.")
        found[name] = int(value) if value.lstrip("-").isdigit() else value
    return found
