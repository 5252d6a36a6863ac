"""How a model is copied, moved, and not pickled."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NoReturn, SupportsIndex

from torch import Tensor, nn

from interp.errors import InterpError
from interp.modes import ordinary


class Copied(nn.Module):
    """A module that `copy.deepcopy` copies, hook points and all, and that no pickle takes."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Copied":
        memo[id(self)] = new = type(self).__new__(type(self))
        new.__dict__.update(deepcopy(self.__dict__, memo))
        return new

    def __copy__(self) -> "Copied":
        """Another of the same name for the same weights and hook points."""
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise InterpError(
            "a model is not pickled: its hooks are functions, and a pickle can run code where it is read. Keep it with "
            "interp.loading.save_directory(model, folder) and read it with interp.load(folder), also in another process; "
            "torch.save(model.state_dict(), path) takes the weights alone."
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Copied":
        """What `to`, `double` and the like go through; in inference mode too the weights stay ordinary tensors."""
        with ordinary():
            moved: Copied = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved
