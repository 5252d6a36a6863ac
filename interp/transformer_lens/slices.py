"""What part of an axis is asked for, in the forms in which TransformerLens takes it."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from interp.errors import HookError
from interp.whole_numbers import is_one, sliced, whole_number, whole_numbers

SliceInput = SupportsIndex | slice | Sequence[int | None] | np.ndarray | Tensor | None
"""None is all; a number drops the axis; a slice, or a tuple of its ends; a list or array of indices."""


class Slice:
    """A choice along one axis.

    Raises:
        HookError: what is none of the forms of `SliceInput`.
    """

    def __init__(self, input_slice: "SliceInput | Slice" = None) -> None:
        given: Any = input_slice.given if isinstance(input_slice, Slice) else input_slice
        if isinstance(given, tuple):
            given = slice(*given)
        if given is not None and not isinstance(given, slice):
            what = "a slice: an index"
            given = whole_number(given, what, HookError) if is_one(given) else whole_numbers(given, what, HookError)
        self.given: int | slice | list[int] | None = given

    @property
    def drops(self) -> bool:
        """Whether one index is chosen, so that the axis is no longer there."""
        return isinstance(self.given, int)

    def apply(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """The chosen part. Raises HookError for an index that is not there."""
        dim, length = dim % tensor.ndim, tensor.shape[dim]
        indices = self.indices(length)
        if isinstance(self.given, int):
            return tensor.select(dim, indices[0])
        if self.given is None:
            return tensor
        return tensor.index_select(dim, torch.tensor(indices, dtype=torch.long, device=tensor.device))

    def indices(self, length: int) -> list[int]:
        """Those chosen of so many."""
        if self.given is None:
            return list(range(length))
        if isinstance(self.given, slice):
            return list(sliced(self.given, length, "a slice"))
        chosen = [self.given] if isinstance(self.given, int) else self.given
        if wrong := [index for index in chosen if not -length <= index < length]:
            raise HookError(f"a slice: there is no index {wrong[0]} among {length}.")
        return [index % length for index in chosen]

    def __repr__(self) -> str:
        return f"Slice({self.given!r})"
