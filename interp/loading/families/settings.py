"""A configuration file of another library, read field by field: what is missing or means another model is named."""

from collections.abc import Mapping
from typing import Any, TypeVar

from interp.config import Activation, ModelConfig
from interp.errors import CheckpointError, ConfigError, nearest

ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Names in `transformers`, and ours."""

NAMES: dict[Activation, str] = {"gelu_new": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
"""Ours, and names in `transformers`."""

REQUIRED = object()
Value = TypeVar("Value")


class Settings:
    """The fields of a configuration.

    Args:
        fields: as the file has them; a field that is null is one that is not there.
        source: for error messages.
    """

    def __init__(self, fields: Mapping[str, Any], source: str) -> None:
        self._fields = {name: value for name, value in fields.items() if value is not None}
        self.source = source

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str, default: Any = REQUIRED) -> Any:
        """A field as it is."""
        if name not in self._fields and default is REQUIRED:
            raise CheckpointError(f"{self.source}: the configuration has no field {name!r}.")
        return self._fields.get(name, default)

    def whole(self, name: str, default: Any = REQUIRED) -> Any:
        """A whole number. One that is missing is the default, whatever that is."""
        value = self.get(name, default)
        if name not in self._fields:
            return default
        if (
            isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0
        ):  # NaN and infinities are not 0
            raise CheckpointError(f"{self.source}: {name} must be a whole number, found {value!r}.")
        return int(value)

    def number(self, name: str, default: Any = REQUIRED) -> Any:
        """A number."""
        value = self.get(name, default)
        if name not in self._fields:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CheckpointError(f"{self.source}: {name} must be a number, found {value!r}.")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or False."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.source}: {name} must be true or false, found {value!r}.")
        return value

    def activation(self, *names: str, default: str) -> Activation:
        """The activation by the first of these fields that is there."""
        given = next((self._fields[name] for name in names if name in self._fields), default)
        if given not in ACTIVATIONS:
            raise CheckpointError(
                f"{self.source}: {names[0]} {given!r} is unknown. {nearest(str(given), list(ACTIVATIONS))}"
            )
        return ACTIVATIONS[given]

    def only(self, **allowed: Any) -> None:
        """Raise CheckpointError where a field says that the model computes what is not implemented here."""
        for name, needed in allowed.items():
            if name in self._fields and self._fields[name] != needed:
                raise CheckpointError(
                    f"{self.source}: {name} = {self._fields[name]!r} is not supported; only {needed!r} is."
                )

    def config(self, **fields: Any) -> ModelConfig:
        """Our configuration of those fields. Raises CheckpointError where they cannot be."""
        try:
            return ModelConfig(**fields)
        except (ConfigError, TypeError) as error:
            raise CheckpointError(f"{self.source}: the configuration is not usable: {error}") from error

    def nested(self, name: str) -> "Settings":
        """A field that holds fields of its own; empty where it is missing."""
        value = self._fields.get(name, {})
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{self.source}: {name} must hold fields, found {value!r}.")
        return Settings(value, self.source)
