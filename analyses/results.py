"""Results: labelled arrays with units and provenance, saved as netCDF."""

import json
import platform
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from analyses.clusters import named_units
from analyses.netcdf import read_netcdf
from analyses.schema import check_schema
from interp.errors import ResultError, TokenError
from interp.files import check_free, regular, write_whole
from interp.model import Transformer
from interp.tokenizer import PAD

SCHEMA_VERSION = 1
VERSIONS = ("criticalpile", "torch", "numpy", "xarray")

Variable = tuple[tuple[str, ...], Any, str, str]
"""Dims, values, long name, and units ("1" for a pure number)."""


def make(
    kind: str,
    variables: Mapping[str, Variable],
    coords: Mapping[Hashable, Any],
    *,
    model: Transformer,
    prompts: Mapping[str, Int[Tensor, "prompt position"]],
    parameters: Mapping[str, Any],
    seed: int | None = None,
) -> xr.Dataset:
    """An analysis' result: the variables with names and units, and where they came from.

    Args:
        kind: of analysis; `analyses.plot` chooses the figure by it.
        prompts: the token ids that went in, by role ("prompt", or "clean" and "corrupt"). Provenance keeps each as the text that gives
            these ids, or as the ids themselves where no text does.
        parameters: every argument that shaped the numbers; JSON values.
        seed: of whatever was random, None where nothing was.
    """
    data = {
        name: (dims, array(values), {"long_name": long, "units": units})
        for name, (dims, values, long, units) in variables.items()
    }
    clusters = named_units(max(map(len, prompts.values()), default=0))
    parameters = dict(parameters) if clusters is None else {**parameters, "clusters": clusters}
    tokenizer = model.tokenizer
    attrs = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "model": storable(model.name),
        "source": storable(model.source),
        "model_config": json.dumps(model.config.to_dict()),
        "weight_hash": model.weight_hash(),
        "tokenizer_hash": tokenizer.hash() if tokenizer else "",
        "prompts": json.dumps({role: _rows(model, tokens) for role, tokens in prompts.items()}),
        "parameters": as_json(parameters),
        "seed": as_json(seed),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": _versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return xr.Dataset(data, coords=dict(coords), attrs=attrs)


@cache
def _versions() -> str:
    """Of what made a result; read from disk, so once a process."""
    return json.dumps({"python": platform.python_version()} | {name: version(name) for name in VERSIONS})


def as_json(values: Any, **layout: Any) -> str:
    """JSON of arguments, in whatever form users hold numbers; `layout` as for `json.dumps`. Raises ResultError for what has none."""
    try:
        return json.dumps(values, default=_plain, **layout)
    except (TypeError, ValueError) as error:
        raise ResultError(f"what shaped a result cannot be kept with it: {error}.") from error


def _plain(value: Any) -> Any:
    """A JSON value for what users hold numbers in: numpy's, tensors, fractions, ranges and other sequences, paths."""
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.tolist()
    if isinstance(value, (Sequence, set, frozenset)):
        return list(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"a {type(value).__name__} among the parameters of a result has no JSON value")


def array(values: Any) -> Any:
    """A numpy array of a tensor's values; half precision becomes float32, which numpy and netCDF know."""
    if not isinstance(values, Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()


def storable(text: str) -> str:
    """The text as netCDF can hold it: what is no Unicode, as in a folder's name in another encoding, by its number; NUL as its picture."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\u2400")


def token_strings(model: Transformer, ids: Any) -> Any:
    """The text of each id of an array, as an array of the same shape; `#id` where the tokenizer has no token for it, or is not there."""
    flat = np.asarray(ids).reshape(-1).tolist()
    pieces = model.tokenizer.pieces(flat) if model.tokenizer else ["" if i == PAD else f"#{i}" for i in flat]
    # netCDF ends a string at NUL; its picture stands for it.
    return np.array([p.replace("\0", "\u2400") for p in pieces], dtype=object).reshape(np.shape(ids))


def token_coords(
    model: Transformer, tokens: Int[Tensor, "prompt position"], dim: str = "position", prefix: str = ""
) -> dict[Hashable, Any]:
    """Coordinates `token` and `token_id` along (prompt, dim); padding is the empty string and -1."""
    ids = array(tokens)
    dims = ("prompt", dim)
    return {f"{prefix}token": (dims, token_strings(model, ids)), f"{prefix}token_id": (dims, ids)}


def is_result(given: Any, kind: str) -> bool:
    """Whether this is a result of that kind, whatever else it may be."""
    return isinstance(given, xr.Dataset) and given.attrs.get("kind") == kind


def save(result: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a result as netCDF: whole, or not at all. An existing file is kept unless `overwrite`.

    Raises:
        ResultError: this is no result, or holds what netCDF cannot. InterpError: the file exists or cannot be written.
    """
    _check(result, "what is to be saved")
    target = Path(path)
    check_free(target, overwrite=overwrite)
    try:
        content = result.to_netcdf(engine="h5netcdf")  # in memory: HDF5 dies where the disk is full
    except (
        Exception
    ) as error:  # attributes and coordinates of others may be of any kind, and their writers raise any error
        raise ResultError(f"the result cannot be saved as netCDF: {error or type(error).__name__}") from error
    write_whole(target, lambda temporary: temporary.write_bytes(content), overwrite=overwrite)


def load(path: str | Path) -> xr.Dataset:
    """Read a saved result.

    Raises ResultError where the file is absent, damaged, no result of this package, or lacks what a result of its kind has; and where it
    takes its numbers from other files.
    """
    try:
        regular(path)
    except IsADirectoryError as error:
        raise ResultError(f"{path} cannot be read: it is a folder; name one of its results.") from error
    except FileNotFoundError as error:
        raise ResultError(f"{path} cannot be read: there is no such file.") from error
    except (OSError, ValueError) as error:  # a name that is too long, with a NUL in it
        raise ResultError(f"{str(path)[:80]!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    result = read_netcdf(Path(path))
    _check(result, str(path))
    check_schema(result, str(path))
    return result


def _check(result: xr.Dataset, what: str) -> None:
    if not isinstance(result, xr.Dataset) or "kind" not in result.attrs or "schema_version" not in result.attrs:
        raise ResultError(f"{what} is no result of this package: it has no kind and schema version.")
    try:
        number = int(result.attrs["schema_version"])
    except (TypeError, ValueError, OverflowError) as error:
        raise ResultError(f"{what} has a schema version that is no whole number.") from error
    if number > SCHEMA_VERSION:
        raise ResultError(
            f"{what} has schema version {result.attrs['schema_version']}; this release reads up to {SCHEMA_VERSION}. Upgrade."
        )


def _rows(model: Transformer, tokens: Int[Tensor, "prompt position"]) -> list[str | list[int]]:
    """Each prompt as its text where `model.to_tokens` gives the ids back from that, else as ids: what another run needs to be the same."""
    rows = [[i for i in row if i != PAD] for row in tokens.tolist()]
    return [row if (text := _text(model, row)) is None else text for row in rows]


def _text(model: Transformer, row: list[int]) -> str | None:
    """The text that stands for these ids and no others; None where there is none."""
    if model.tokenizer is None:
        return None
    text = model.tokenizer.decode(row)
    try:
        again = model.to_tokens(text)[0].tolist()
    except TokenError:  # nothing to decode, or an id that no text gives
        return None
    return text if again == row else None
