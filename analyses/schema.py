"""What a result of each kind has at least: looked at where a file is read, so that one that is incomplete is told there, by name."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import xarray as xr

from analyses.averaged import GROUP, is_averaged
from interp.errors import ResultError
from interp.strict_json import parse

ATTRIBUTES = ("model", "weight_hash", "model_config", "parameters", "prompts", "seed", "dtype", "created")
SIZES = ("n_layers", "n_heads", "d_model", "d_vocab", "n_ctx")
NEEDED = ("prompt", "layer", "head", "position", "query", "key", "seed", "method")
"""Dimensions of which there is at least one place, where a result has them."""
TYPES = {"b": "truth values", "i": "whole numbers", "f": "floating-point numbers", "s": "texts"}


@cache
def schemas() -> Mapping[str, Any]:
    """By kind: `variables` and `coords`, each with its type (see `TYPES`) and its dimensions where they are always the same; `parameters`,
    each with the JSON types that it may have. They are kept by tests/test_schema.py."""
    found: dict[str, Any] = json.loads((Path(__file__).parent / "schemas.json").read_text(encoding="utf-8"))
    return found


def check_schema(result: xr.Dataset, what: str) -> None:
    """Raise ResultError, naming it, where a result of a known kind lacks something or has it in another form.

    Args:
        what: the result is, for the message.
    """
    kind = str(result.attrs["kind"])
    schema = schemas().get(kind)
    if schema is None:
        return
    whose = f"{what}, a result of kind {kind!r},"
    for name in ATTRIBUTES:
        if not isinstance(result.attrs.get(name), str):
            raise ResultError(f"{whose} has no attribute {name!r}, or one that is no text.")
    config, parameters = (_object(result, name, whose) for name in ("model_config", "parameters"))
    _object(result, "prompts", whose)
    for name in SIZES:
        if type(config.get(name)) is not int or config[name] < 1:
            raise ResultError(f"{whose} has no model_config with a size {name!r}.")
    if not isinstance(config.get("causal"), bool):
        raise ResultError(f"{whose} has no model_config that says whether the model is causal.")
    for name, types in schema["parameters"].items():
        if name not in parameters:
            raise ResultError(f"{whose} lacks the parameter {name!r}.")
        if type_of(parameters[name]) not in types:
            raise ResultError(
                f"{whose} has the parameter {name} = {str(parameters[name])[:60]}, expected {' or '.join(types)}."
            )
    for dim in NEEDED:
        if result.sizes.get(dim) == 0:
            raise ResultError(f"{whose} has no {dim}.")
    for part, there in (("variables", result.data_vars), ("coords", result.coords)):
        for name, (form, dims) in schema[part].items():
            if (
                is_averaged(result) and part == "variables"
            ):  # a mean of counts is none, and the groups of a label are an axis more
                form = form_of(there[name]) if name in there and form in "ib" else form
                dims = [*([GROUP] if GROUP in result.dims else []), *dims] if dims is not None else None
            if name not in there:
                raise ResultError(f"{whose} lacks the {'variable' if part == 'variables' else 'coordinate'} {name!r}.")
            _check_array(there[name], form, dims, f"{whose} has a {name!r}")


def type_of(value: Any) -> str:
    """The JSON type of a value; whole numbers are numbers."""
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "number", float: "number", list: "array", dict: "object", type(None): "null"}
    return names[type(value)]


def form_of(array: xr.DataArray) -> str:
    """The type of an array's values; see `TYPES`."""
    return {"O": "s", "U": "s", "T": "s", "u": "i"}.get(array.dtype.kind, array.dtype.kind)


def _object(result: xr.Dataset, name: str, whose: str) -> dict[str, Any]:
    try:
        found = parse(result.attrs[name])
    except ValueError as error:
        raise ResultError(f"{whose} has an attribute {name!r} that is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ResultError(f"{whose} has an attribute {name!r} that is no JSON object.")
    return found


def _check_array(array: xr.DataArray, form: str, dims: Iterable[str] | None, which: str) -> None:
    if dims is not None and tuple(array.dims) != tuple(dims):
        raise ResultError(f"{which} along ({', '.join(map(str, array.dims))}), expected ({', '.join(dims)}).")
    texts = form != "s" or all(isinstance(one, str) for one in array.to_numpy().reshape(-1).tolist())
    if array.size and (form_of(array) != form or not texts):  # of an empty one no file keeps the type
        raise ResultError(f"{which} of {array.dtype}, expected {TYPES[form]}.")
