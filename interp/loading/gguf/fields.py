"""The metadata of a GGUF file's architecture, read key by key, so that none is passed over."""

from typing import Any

from interp.errors import CheckpointError
from interp.loading.gguf.container import Container

REDUNDANT = {"vocab_size", "tensor_data_layout", "pooling_type", "rope.scaling.finetuned", "mm.tokens_per_image"}
"""Keys that change nothing, say what the tensors' shapes say too, or are of a part that another file holds."""

SILENT = (None, False, 0, "", "none")
"""Values by which a key says that something is not there."""


class Fields:
    """The keys `ARCHITECTURE.*` of a file, which remembers those that were asked for."""

    def __init__(self, container: Container, architecture: str) -> None:
        self.container, self.architecture, self.source = container, architecture, str(container.path)
        prefix = f"{architecture}."
        self._values = {k.removeprefix(prefix): v for k, v in container.metadata.items() if k.startswith(prefix)}
        self._left = set(self._values) - REDUNDANT

    def whole(self, key: str, default: int | None = None) -> int:
        """A positive whole number; one for all layers, where the file gives one for each. Without a default it must be there."""
        value = self._take(key, default)
        if isinstance(value, list) and value and len(set(value)) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"{self.source}: {self.architecture}.{key} must be one positive whole number, got {value!r}."
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number; without a default it must be there."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CheckpointError(f"{self.source}: {self.architecture}.{key} must be a number, got {value!r}.")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.source}: {self.architecture}.{key} must be true or false, got {value!r}.")
        return value

    def optional(self, key: str) -> Any:
        """The value, or None where there is none or it says that something is not there."""
        self._left.discard(key)
        value = self._values.get(key)
        return None if value in SILENT else value

    def same(self, key: str, expected: int | float) -> None:
        """Raise CheckpointError where the key is there and has another value."""
        value = self.optional(key)
        if value is not None and value != expected:
            raise CheckpointError(
                f"{self.source}: {self.architecture}.{key} = {value!r} is not supported; only {expected} is."
            )

    def finish(self) -> None:
        """Raise CheckpointError where a key that nobody asked for says something: it may change what the model computes."""
        for key in sorted(self._left):
            if self._values[key] not in SILENT:
                value = str(self._values[key])[:40]
                raise CheckpointError(f"{self.source}: {self.architecture}.{key} = {value} is not supported.")

    def _take(self, key: str, default: object) -> Any:
        self._left.discard(key)
        value = self._values.get(key, default)
        if value is None:
            raise CheckpointError(f"{self.source}: the metadata has no {self.architecture}.{key}.")
        return value
