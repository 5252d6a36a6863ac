"""Scores of edges, however they come: as a result, as a result of several methods, by name."""

import json
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.circuits.edges import Shape
from interp.config import ModelConfig
from interp.errors import ResultError
from interp.model import Transformer
from interp.whole_numbers import whole_number

Scores = xr.Dataset | Mapping[str, float]
"""A result of `edge_patching` or `edge_attribution`, or a number for each edge by its name, larger where it helps the answer more."""

KINDS = ("edge_patching", "edge_attribution")


def shape_of_result(result: xr.Dataset) -> Shape:
    """The shape of the graph of the model that a result is of."""
    return Shape.of(ModelConfig(**json.loads(result.attrs["model_config"])))


def edge_scores(
    result: xr.Dataset, *, method: str | None = None, prompt: int | None = None, who: str = "edge_scores"
) -> dict[str, float]:
    """How much each edge helps the answer, by name: how far the metric moves from the clean run's towards the corrupt run's where the edge
    is taken out, or the other way where it is put in (the mean over pairs says which way that is).

    Args:
        result: of `edge_patching`, or of `edge_attribution`, whose estimates these are then.
        method: which, of a result of several; None is the only one.
        prompt: which pair; None is the mean over all.

    Raises ResultError for another kind of result, one by position, and for a method or a pair that it does not have.
    """
    values = scores_by_pair(result, method, who)
    if prompt is None:
        found = values.mean(0)
    else:
        number = whole_number(prompt, f"{who}: prompt", ResultError)
        if not 0 <= number < len(values):
            raise ResultError(f"{who}: there is no pair {number}; the result has {len(values)}.")
        found = values[number]
    names = [str(name) for name in result["edge"].to_numpy()]
    return dict(zip(names, found.tolist(), strict=True))


def scores_by_pair(result: xr.Dataset, method: str | None, who: str) -> Float[np.ndarray, "prompt edge"]:
    """The same for every pair by itself."""
    kind = result.attrs.get("kind")
    if kind not in KINDS:
        raise ResultError(
            f"{who}: edges are scored by edge_patching or edge_attribution; this result is of kind {kind!r}."
        )
    values = result["estimate" if kind == "edge_attribution" else "change"]
    if "position" in values.dims:
        raise ResultError(
            f"{who}: this result is by position; take one that patches all positions of an edge together."
        )
    known = methods_of(result)
    if method not in known and (method is not None or len(known) > 1):
        raise ResultError(f"{who}: say method=; the result has {', '.join(known)}.")
    if "estimator" in values.dims:
        values = values.sel(estimator=known[0] if method is None else method)
    signed: np.ndarray = helping(result) * values.to_numpy().astype(np.float64)
    return signed


def helping(result: xr.Dataset) -> float:
    """1 where a change of the metric that is positive helps the answer, -1 where it hurts it: what turns one into a score."""
    noising = json.loads(result.attrs["parameters"])["direction"] == "noising"
    gap = float((result["clean_baseline"] - result["corrupt_baseline"]).mean())
    return float(np.sign(gap)) * (-1.0 if noising else 1.0)


def methods_of(result: xr.Dataset) -> list[str]:
    """What scored the edges of a result: `exact`, or the methods of an attribution."""
    if "estimator" in result.dims:
        return [str(one) for one in result["estimator"].to_numpy()]
    return [str(json.loads(result.attrs["parameters"]).get("method", "exact"))]


def scores_by_name(given: Any, model: Transformer, who: str) -> dict[str, Mapping[str, float]]:
    """Scores of edges by the name of what gave them. Raises ResultError for what are none, and for those of a model of another shape."""
    if isinstance(given, xr.Dataset):
        return _of_result(given, model, who)
    if not isinstance(given, Mapping) or not any(isinstance(one, (Mapping, xr.Dataset)) for one in given.values()):
        return {"scores": numbers_by_edge(given, who)}
    found: dict[str, Mapping[str, float]] = {}
    for name, one in given.items():
        several = scores_by_name(one, model, who)
        found |= {
            (str(name) if len(several) == 1 else f"{name} {method}"): scores for method, scores in several.items()
        }
    return found


def numbers_by_edge(given: Any, who: str) -> dict[str, float]:
    """Numbers by edge; NaN is none. Raises ResultError for what are no such scores."""
    if not isinstance(given, Mapping) or not given:
        raise ResultError(
            f"{who}: scores are a result of edge_patching or edge_attribution, or numbers by edge; got {type(given).__name__}."
        )
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ResultError(f"{who}: the score of {name!r} is no number: {value!r}.")
    return {name: float(value) for name, value in given.items()}


def _of_result(result: xr.Dataset, model: Transformer, who: str) -> dict[str, Mapping[str, float]]:
    if "model_config" in result.attrs and (of := shape_of_result(result)) != (own := Shape.of(model.config)):
        raise ResultError(f"{who}: the scores are of a model of another shape: {of}, where this one's is {own}.")
    several = methods_of(result)
    return {name: edge_scores(result, method=name, who=who) for name in several}
