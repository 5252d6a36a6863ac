"""A low-rank matrix as the product of a tall and a wide one, which is never multiplied out."""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from interp.errors import ConfigError
from interp.spectra import eigenvalues, qr, svd


@dataclass(frozen=True, eq=False)
class FactoredMatrix:
    """`left @ right`, of rank at most `inner`.

    Norms, eigenvalues and singular values of factors in half precision are computed, and returned, in float32.

    Args:
        left: [*batch, rows, inner].
        right: [*batch, inner, columns].
    """

    left: Float[Tensor, "*batch rows inner"]
    right: Float[Tensor, "*batch _ columns"]

    def __post_init__(self) -> None:
        if self.left.shape[-1] != self.right.shape[-2]:
            raise ConfigError(
                f"FactoredMatrix: {tuple(self.left.shape)} and {tuple(self.right.shape)} do not multiply: inner sizes differ."
            )

    def product(self) -> Float[Tensor, "*batch rows columns"]:
        """The matrix itself: rows x columns numbers."""
        return _product(self.left, self.right)

    @property
    def T(self) -> "FactoredMatrix":
        """Transposed."""
        return FactoredMatrix(self.right.mT, self.left.mT)

    def then(self, matrix: Float[Tensor, "*batch columns more"]) -> "FactoredMatrix":
        """The product with a matrix to its right, in the finer of the two dtypes."""
        return FactoredMatrix(self.left, _product(self.right, matrix))

    def after(self, matrix: Float[Tensor, "*batch more rows"]) -> "FactoredMatrix":
        """The product with a matrix to its left, in the finer of the two dtypes."""
        return FactoredMatrix(_product(matrix, self.left), self.right)

    def precise(self) -> "FactoredMatrix":
        """Itself, with factors in float32 at least."""
        return FactoredMatrix(at_least_float32(self.left), at_least_float32(self.right))

    def norm(self) -> Float[Tensor, "*batch"]:
        """Frobenius norm, from the two inner x inner Gram matrices."""
        whole = self.precise()
        grams = (whole.left.mT @ whole.left) * (whole.right @ whole.right.mT)
        squared: Tensor = grams.sum((-2, -1)).clamp(min=0)
        return squared.sqrt()

    def eigenvalues(self) -> Complex[Tensor, "*batch inner"]:
        """Those of a square matrix that are not zero by its rank: the eigenvalues of `right @ left`. Raises ResultError where it is not
        finite."""
        if self.left.shape[-2] != self.right.shape[-1]:
            raise ConfigError(
                f"FactoredMatrix.eigenvalues: the matrix is not square ({self.left.shape[-2]} x {self.right.shape[-1]})."
            )
        whole = self.precise()
        return eigenvalues(_product(whole.right, whole.left), "FactoredMatrix.eigenvalues: the matrix")

    def svd(
        self,
    ) -> tuple[
        Float[Tensor, "*batch rows inner"], Float[Tensor, "*batch inner"], Float[Tensor, "*batch columns inner"]
    ]:
        """U, S, V with `U diag(S) V^T` the matrix; the singular values that are not zero by its rank, largest first.

        Raises ResultError where it is not finite.
        """
        whole, what = self.precise(), "FactoredMatrix.svd: the matrix"
        left_q, left_r = qr(whole.left, what)
        right_q, right_r = qr(whole.right.mT, what)
        u, s, vh = svd(_product(left_r, right_r.mT), what)
        return _product(left_q, u), s, _product(right_q, vh.mT)


def at_least_float32(x: Tensor) -> Tensor:
    """In float32 where it is in half precision, which linear algebra cannot be done in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _product(left: Tensor, right: Tensor) -> Tensor:
    dtype = torch.promote_types(left.dtype, right.dtype)
    return left.to(dtype) @ right.to(dtype)
