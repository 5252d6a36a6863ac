"""This package's own format, which holds every configuration: its fields, and the weights by the names that the model gives them."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from torch import Tensor

from interp.config import ModelConfig
from interp.errors import CheckpointError, ConfigError, nearest

NAME = "criticalpile"
VERSION = 1
"""Of the format. A release reads this one and older ones."""


def read_config(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """Our configuration from our config.json; a field that an older release did not know has its default.

    Raises CheckpointError naming a newer version, a field that is unknown or missing, or a value that cannot be.
    """
    version = settings.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CheckpointError(f"{source}: format_version must be a whole number from 1, found {version!r}.")
    if version > VERSION:
        raise CheckpointError(
            f"{source}: format_version {version} is newer than {VERSION}, which this release reads. Upgrade."
        )
    given = settings.get("config")
    if not isinstance(given, dict):
        raise CheckpointError(f"{source}: the configuration has no 'config' with the fields of a ModelConfig.")
    known = {field.name: field for field in fields(ModelConfig)}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise CheckpointError(
            f"{source}: the configuration's field {unknown[0]!r} is unknown to this release. {nearest(unknown[0], known)}"
        )
    missing = [name for name, field in known.items() if field.default is MISSING and name not in given]
    if missing:
        raise CheckpointError(f"{source}: the configuration has no field {missing[0]!r}.")
    try:
        return ModelConfig(**{name: _frozen(value) for name, value in given.items()})
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{source}: the configuration is not usable: {error}") from error


def write_config(config: ModelConfig) -> dict[str, Any]:
    """Our config.json."""
    return {"model_type": NAME, "format_version": VERSION, "config": config.to_dict()}


def read_weights(tensors: Mapping[str, Tensor], config: ModelConfig, source: str) -> dict[str, Tensor]:
    """Our state dict: the tensors as they are."""
    return dict(tensors)


def write_weights(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The tensors of our state dict as they are."""
    return dict(state)


def _frozen(value: Any) -> Any:
    """What JSON made a list was a tuple."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
