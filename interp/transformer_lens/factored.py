"""`FactoredMatrix` by TransformerLens' names, on ours."""

from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.factored import FactoredMatrix as Factored
from interp.whole_numbers import is_one, one_or_several, sliced, whole_number, whole_numbers


class FactoredMatrix:
    """`A @ B`, which is not multiplied out.

    Args:
        A: [*leading, ldim, mdim]
        B: [*leading, mdim, rdim]; leading axes are broadcast.
    """

    def __init__(self, A: Float[Tensor, "... ldim mdim"], B: Float[Tensor, "... _ rdim"]) -> None:
        leading = (A[..., 0, 0] + B[..., 0, 0]).shape
        self._of = Factored(A.expand(*leading, *A.shape[-2:]), B.expand(*leading, *B.shape[-2:]))

    @property
    def A(self) -> Tensor:
        return self._of.left

    @property
    def B(self) -> Tensor:
        return self._of.right

    @property
    def AB(self) -> Tensor:
        """The product itself."""
        return self._of.product()

    @property
    def BA(self) -> Tensor:
        """The product the other way round; of a square matrix only."""
        if self.ldim != self.rdim:
            raise ConfigError(f"FactoredMatrix.BA: the matrix is not square ({self.ldim} x {self.rdim}).")
        return self.B @ self.A

    @property
    def T(self) -> "FactoredMatrix":
        return FactoredMatrix(self.B.mT, self.A.mT)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.A.shape[:-1], self.B.shape[-1]))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def ldim(self) -> int:
        return self.A.shape[-2]

    @property
    def mdim(self) -> int:
        return self.A.shape[-1]

    @property
    def rdim(self) -> int:
        return self.B.shape[-1]

    @property
    def has_leading_dims(self) -> bool:
        return self.ndim > 2

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, S, V with `U diag(S) V^T` the matrix. What is called `Vh` has the right singular vectors as columns, as theirs does."""
        return self._of.svd()

    @property
    def U(self) -> Tensor:
        return self.svd()[0]

    @property
    def S(self) -> Tensor:
        return self.svd()[1]

    @property
    def Vh(self) -> Tensor:
        return self.svd()[2]

    @property
    def eigenvalues(self) -> Tensor:
        """Of a square matrix; those that are not zero by its rank."""
        return self._of.eigenvalues()

    def norm(self) -> Tensor:
        """Frobenius norm."""
        return self._of.norm()

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        return self.A, self.B

    def make_even(self) -> "FactoredMatrix":
        """The same matrix, the singular values shared evenly by both factors."""
        u, s, v = self.svd()
        root = s.sqrt()
        return FactoredMatrix(u * root[..., None, :], root[..., :, None] * v.mT)

    def collapse_l(self) -> Float[Tensor, "... mdim rdim"]:
        """S V^T: the matrix up to a rotation on its left."""
        _, s, v = self.svd()
        return s[..., :, None] * v.mT

    def collapse_r(self) -> Float[Tensor, "... ldim mdim"]:
        """U S: the matrix up to a rotation on its right."""
        u, s, _ = self.svd()
        return u * s[..., None, :]

    def unsqueeze(self, k: int) -> "FactoredMatrix":
        return FactoredMatrix(self.A.unsqueeze(k), self.B.unsqueeze(k))

    def get_corner(self, k: int = 3) -> Tensor:
        """The first k rows and columns, and of leading axes the first k too."""
        k = whole_number(k, "FactoredMatrix.get_corner: k", ConfigError, least=0)
        whole = self[..., :k, :k].AB
        return whole[tuple(slice(0, k) for _ in whole.shape)]

    def __getitem__(self, index: Any) -> "FactoredMatrix":
        """Leading axes, rows and columns by their place. A row or column chosen by its number keeps its axis, with length 1.

        Raises:
            ConfigError: what is no index, or is out of range.
        """
        index = index if isinstance(index, tuple) else (index,)
        at = next((place for place, one in enumerate(index) if one is Ellipsis), None)
        if at is not None:
            index = (*index[:at], *[slice(None)] * (self.ndim - len(index) + 1), *index[at + 1 :])
        if len(index) > self.ndim:
            raise ConfigError(f"FactoredMatrix: {len(index)} indices for {self.ndim} axes.")
        index = tuple(
            _checked(one, length, axis) for axis, (one, length) in enumerate(zip(index, self.shape, strict=False))
        )
        leading = index[: self.ndim - 2]
        rows, columns = (*index[self.ndim - 2 :], slice(None), slice(None))[:2]
        left, right = self.A[leading], self.B[leading]
        return FactoredMatrix(left[..., _kept(rows), :], right[..., _kept(columns)])

    @overload
    def __matmul__(self, other: Tensor) -> "Tensor | FactoredMatrix": ...

    @overload
    def __matmul__(self, other: "FactoredMatrix") -> "FactoredMatrix": ...

    def __matmul__(self, other: "Tensor | FactoredMatrix") -> "Tensor | FactoredMatrix":
        """With a vector, the product; with a matrix, factored still, about the smaller inner size."""
        if isinstance(other, FactoredMatrix):
            return (self @ other.A) @ other.B
        if other.ndim < 2:
            return (self.A @ (self.B @ other)[..., None])[..., 0]
        if self.mdim > self.rdim:
            return FactoredMatrix(self.AB, other)
        return FactoredMatrix(self.A, self.B @ other)

    def __rmatmul__(self, other: Tensor) -> "Tensor | FactoredMatrix":
        if other.ndim < 2:
            return ((other @ self.A)[..., None, :] @ self.B)[..., 0, :]
        if self.mdim > self.ldim:
            return FactoredMatrix(other, self.AB)
        return FactoredMatrix(other @ self.A, self.B)

    def __mul__(self, scalar: int | float | Tensor) -> "FactoredMatrix":
        """With a number. Raises ConfigError for more than one."""
        if isinstance(scalar, Tensor) and scalar.numel() != 1:
            raise ConfigError(
                f"FactoredMatrix: multiplied by a tensor of shape {tuple(scalar.shape)}; give one number."
            )
        return FactoredMatrix(self.A * scalar, self.B)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"FactoredMatrix: Shape({tuple(self.shape)}), Hidden Dim({self.mdim})"


def _checked(index: Any, length: int, axis: int) -> Any:
    """One index, in the forms that torch takes: a number, a slice forwards, or places (also as the mask of an axis)."""
    what = f"FactoredMatrix: an index along axis {axis}"
    if isinstance(index, slice):
        if sliced(index, length, what, ConfigError).step < 0:
            raise ConfigError(f"{what}: the step of a slice must be positive.")
        return slice(
            *(None if end is None else whole_number(end, what) for end in (index.start, index.stop, index.step))
        )
    if is_one(index):
        place = whole_number(index, what, ConfigError)
        _check_within([place], length, what)
        return place
    places = index if isinstance(index, Tensor) else _as_tensor(index, what)
    if places.dtype == torch.bool and places.shape == (length,):
        return places.nonzero()[:, 0]
    if places.numel() and (places.dtype == torch.bool or places.is_floating_point() or places.is_complex()):
        raise ConfigError(
            f"{what} must be whole numbers, or a mask of {length}; got {places.dtype}, shape {tuple(places.shape)}."
        )
    _check_within(places.flatten().tolist(), length, what)
    return places.long()


def _as_tensor(given: Any, what: str) -> Tensor:
    if isinstance(given, np.ndarray) and given.dtype.kind in "biu":
        return torch.from_numpy(given)
    several = one_or_several(given, what, ConfigError)
    if several and all(isinstance(one, bool) for one in several):
        return torch.tensor(several)
    return torch.tensor(whole_numbers(several, what, ConfigError), dtype=torch.long)


def _check_within(places: list[int], length: int, what: str) -> None:
    if wrong := [place for place in places if not -length <= place < length]:
        raise ConfigError(f"{what}: {wrong[0]} is out of range; there are {length}.")


def _kept(index: Any) -> Any:
    """The same rows or columns, with an axis."""
    return [index] if isinstance(index, int) else index
