"""The activations of one run, by name."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from interp.errors import HookError, nearest
from interp.modes import as_ordinary
from interp.names import short_name
from interp.whole_numbers import Wholes, is_one, sliced, whole_number, whole_numbers


class ActivationCache(Mapping[str, Tensor]):
    """The values that one run computed at its hook points: a read-only mapping from hook name to tensor.

    `cache["blocks.3.attn.hook_pattern"]` and `cache["pattern", 3]` are the same tensor. Names that share a value (the
    stream after block 2 is the stream before block 3) share one tensor. Entries are in forward order.

    A tensor handed out is the stored one, not a copy: clone it before you change it. A change in place is
    detected when the entry is next read, and is a HookError.
    """

    def __init__(self, values: Mapping[str, Tensor], axes: Mapping[str, tuple[str, ...]] | None = None) -> None:
        ordinary = {
            id(value): as_ordinary(value) for value in values.values()
        }  # inference tensors do not count their changes
        self._values = {name: ordinary[id(value)] for name, value in values.items()}
        self._axes = dict(axes or {})
        self._versions = {name: value._version for name, value in self._values.items()}

    def __getitem__(self, key: str | tuple[str, int]) -> Tensor:
        name = key if isinstance(key, str) else self._short(key)
        if name not in self._values:
            raise HookError(f"{name!r} was not cached. {nearest(name, self._values)}")
        value = self._values[name]
        if value._version != self._versions[name]:
            raise HookError(
                f"the cached value of {name} was changed in place after it was cached. Change a copy: cache[...].clone()."
            )
        return value

    def _short(self, key: Any) -> str:
        if not isinstance(key, tuple) or len(key) != 2:
            raise HookError(
                f'a cache is read by a hook name, or by a point and a layer, such as ("z", 3); got {key!r}.'
            )
        return short_name(key[0], whole_number(key[1], "cache: a layer", HookError), list(self._values))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def to(self, target: torch.device | torch.dtype | str) -> "ActivationCache":
        """A cache on another device or in another dtype; a tensor under several names is converted once.

        The model stays where it is.
        """
        converted = {id(value): value.to(target) for value in {id(v): v for v in self._values.values()}.values()}
        return ActivationCache({name: converted[id(self[name])] for name in self}, self._axes)

    def at(self, positions: Wholes | slice) -> "ActivationCache":
        """The values at some positions; of attention, the rows of these queries, with all their keys.

        One position keeps its axis, with length 1. Slices are views of the same memory. Raises HookError where nothing stands there.
        """
        one = not isinstance(positions, slice) and is_one(positions)
        index = (
            positions if isinstance(positions, slice) else whole_numbers(positions, "cache.at: a position", HookError)
        )
        sliced: dict[str, Tensor] = {}
        made: dict[int, Tensor] = {}
        for name in self:
            value, axes = self[name], self._axes[name]
            axis = axes.index("query" if "query" in axes else "position")
            if id(value) not in made:
                made[id(value)] = value[(slice(None),) * axis + (_within(index, value.shape[axis], one),)]
            sliced[name] = made[id(value)]
        return ActivationCache(sliced, self._axes)

    def stack(self, point: str) -> Tensor:
        """The values of one point of every cached layer, stacked: `cache.stack("resid_pre")` is [layer, batch, position, d_model].

        Raises HookError where no layer has it cached, or where their shapes differ.
        """
        layers = sorted({int(name.split(".")[1]) for name in self if name.startswith("blocks.")})
        values = [self[point, layer] for layer in layers]
        if not values:
            raise HookError(f"no layer's {point!r} is in this cache. {nearest(point, self._values)}")
        return torch.stack(values)

    @property
    def nbytes(self) -> int:
        """Bytes that the cache holds, each stored tensor counted once."""
        storages = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in self._values.values()}
        return sum(storages.values())

    def __repr__(self) -> str:
        return f"ActivationCache({len(self)} names, {self.nbytes / 1e6:.1f} MB)"


def _within(index: slice | list[int], length: int, one: bool) -> slice | list[int]:
    """The same, if it chooses something of that many positions."""
    chosen = sliced(index, length, "cache.at") if isinstance(index, slice) else index
    wrong = [position for position in chosen if not -length <= position < length]
    if wrong or not chosen:
        raise HookError(
            f"cache.at: {index} chooses no position: there are {length}, 0 to {length - 1}, or -1 to {-length} from the end."
            if not wrong
            else f"cache.at: there is no position {wrong[0]}: there are {length}, 0 to {length - 1}, or -1 to {-length} from the end."
        )
    if isinstance(chosen, range) and chosen.step < 0:
        return list(chosen)  # torch slices forwards only
    return slice(chosen[0], chosen[0] + 1 or None) if one else index
