"""Eigenvalues, singular values and orthonormal bases. LAPACK crashes the process on some matrices that are not finite, so each is looked
at before."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from interp.errors import ResultError


def eigenvalues(matrix: Float[Tensor, "*batch n n"], what: str) -> Complex[Tensor, "*batch n"]:
    """In no order. Raises ResultError for a matrix that is not finite; `what` it is, for the message."""
    values: Tensor = torch.linalg.eigvals(_finite(matrix, what))
    return values


def symmetric(matrix: Float[Tensor, "*batch n n"], what: str) -> tuple[Float[Tensor, "*batch n"], Tensor]:
    """Eigenvalues of a symmetric matrix, ascending, and its eigenvectors as columns. Raises as `eigenvalues`."""
    values, vectors = torch.linalg.eigh(_finite(matrix, what))
    return values, vectors


def svd(matrix: Float[Tensor, "*batch m n"], what: str, *, whole: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """U, the singular values, largest first, and V^T; `whole` with square U and V. Raises as `eigenvalues`."""
    u, values, vh = torch.linalg.svd(_finite(matrix, what), full_matrices=whole)
    return u, values, vh


def singular_values(matrix: Float[Tensor, "*batch m n"], what: str) -> Float[Tensor, "*batch k"]:
    """The largest first. Raises as `eigenvalues`."""
    values: Tensor = torch.linalg.svdvals(_finite(matrix, what))
    return values


def qr(matrix: Float[Tensor, "*batch m n"], what: str) -> tuple[Tensor, Tensor]:
    """Orthonormal columns Q and a triangular R with QR the matrix. Raises as `eigenvalues`."""
    q, r = torch.linalg.qr(_finite(matrix, what))
    return q, r


def _finite(matrix: Tensor, what: str) -> Tensor:
    if not bool(torch.isfinite(matrix).all()):
        raise ResultError(
            f"{what} is not finite, so it has no eigenvalues or directions: weights that are no numbers, or so large that their products "
            f"overflow {str(matrix.dtype).removeprefix('torch.')}. Load the model in a wider dtype, or mend its weights."
        )
    return matrix
