"""A configuration file of another library, read field by field: what is missing or means another model is named."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

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
"""In place of a default: the field must be there. In place of what null means: null means nothing, and is refused."""


class Settings:
    """The fields of a configuration.

    Args:
        fields: as the file has them.
        source: for error messages.
        aliases: other names of fields, and their own; what stands under another name wins, as it does in `transformers`.
    """

    def __init__(
        self, fields: Mapping[str, Any], source: str, aliases: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        own = {name: value for name, value in fields.items() if name not in aliases}
        self._fields = own | {aliases[name]: value for name, value in fields.items() if name in aliases}
        self.source = source

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str, default: Any = REQUIRED, null: Any = REQUIRED) -> Any:
        """A field as it is; `default` where it is missing, `null` where it is null."""
        if name not in self._fields:
            if default is REQUIRED:
                raise CheckpointError(f"{self.source}: the configuration has no field {name!r}.")
            return default
        value = self._fields[name]
        if value is not None:
            return value
        if null is REQUIRED:
            raise CheckpointError(f"{self.source}: {name} is null; it needs a value.")
        return null

    def whole(self, name: str, default: Any = REQUIRED, null: Any = REQUIRED, least: int | None = None) -> Any:
        """A whole number, of at least `least`; or the default or what null means, whatever that is."""
        value = self.get(name, default, null)
        if self._fields.get(name) is None:
            return value
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or value % 1 != 0:  # NaN and infinities are not 0
            raise CheckpointError(f"{self.source}: {name} must be a whole number, found {value!r}.")
        if least is not None and value < least:
            raise CheckpointError(f"{self.source}: {name} must be at least {least}, found {value!r}.")
        return int(value)

    def number(self, name: str, default: Any = REQUIRED, null: Any = REQUIRED) -> Any:
        """A number; or the default or what null means, whatever that is."""
        value = self.get(name, default, null)
        if self._fields.get(name) is None:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CheckpointError(f"{self.source}: {name} must be a number, found {value!r}.")
        try:
            return float(value)
        except OverflowError as error:
            raise CheckpointError(f"{self.source}: {name} must be a number, found one that is too large.") from error

    def flag(self, name: str, default: bool) -> bool:
        """True or False."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.source}: {name} must be true or false, found {value!r}.")
        return value

    def activation(self, name: str, default: str) -> Activation:
        """The activation that a field names."""
        given = self.get(name, default)
        if not isinstance(given, str) or given not in ACTIVATIONS:
            raise CheckpointError(
                f"{self.source}: {name} {given!r} is unknown. {nearest(str(given), list(ACTIVATIONS))}"
            )
        return ACTIVATIONS[given]

    def only(self, **allowed: Any) -> None:
        """Raise CheckpointError where a field says that the model computes what is not implemented here."""
        for name, needed in allowed.items():
            value = self._fields.get(name, needed)
            if value != needed and not (value is None and not needed):
                raise CheckpointError(f"{self.source}: {name} = {value!r} is not supported; only {needed!r} is.")

    def config(self, **fields: Any) -> ModelConfig:
        """Our configuration of those fields, and of what any family may say. Raises CheckpointError where they cannot be."""
        self.only(per_layer_config=None)
        fields.setdefault("causal", self.flag("is_causal", True))
        if not fields["causal"] and fields.get("window") is not None:
            raise CheckpointError(
                f"{self.source}: is_causal = False beside a sliding window is not supported; only one of them is."
            )
        try:
            return ModelConfig(**fields)
        except (ConfigError, TypeError) as error:
            raise CheckpointError(f"{self.source}: the configuration is not usable: {error}") from error

    def updated(self, by: "Settings") -> "Settings":
        """These fields, with others in place of those that are there, or beside them."""
        return Settings(self._fields | by._fields, self.source)

    def nested(self, name: str) -> "Settings":
        """A field that holds fields of its own; empty where it is missing or null."""
        value = self.get(name, {}, null={})
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{self.source}: {name} must hold fields, found {value!r}.")
        return Settings(value, self.source)
