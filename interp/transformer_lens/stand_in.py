"""What stands where TransformerLens' models have a weight and ours has none of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.errors import ConfigError


class StandIn(Tensor):
    """Zeros for a bias that the model lacks, or keys and values told for each head where heads share them. It is read and computed with
    as any tensor; changing it or a view of it would reach no weight, and raises ConfigError."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Every operation on one: refused where it writes; what shares its memory is one too, all else a plain tensor."""
        options, name = kwargs or {}, getattr(func, "__name__", "")
        writes = name in WRITES or (name.endswith("_") and not name.endswith("__") and name != "requires_grad_")
        if (writes and isinstance(args[0], cls)) or isinstance(options.get("out"), cls):
            raise ConfigError(
                "this weight cannot be changed, for the model has none of its own here: it lacks that bias, or its heads share keys and "
                "values (change attn._W_K, attn._W_V instead)."
            )
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **options)
            return _marked(found, {one.untyped_storage().data_ptr() for one in args if isinstance(one, cls)})


WRITES = {
    "__setitem__",
    "__set__",
    *(f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "mod", "and", "or", "xor")),
}
"""Functions that write, besides those whose names end in one underscore; `__set__` is of attributes, such as `.data`."""


def _marked(found: Any, memory: set[int]) -> Any:
    if isinstance(found, Tensor):
        plain = found.as_subclass(Tensor) if isinstance(found, StandIn) else found
        return plain.as_subclass(StandIn) if plain.untyped_storage().data_ptr() in memory else plain
    if type(found) in (tuple, list):
        return type(found)(_marked(one, memory) for one in found)
    return found


def stand_in(value: Tensor) -> Tensor:
    """One with these values."""
    return value.as_subclass(StandIn)
