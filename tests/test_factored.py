"""Factored matrices against the matrices themselves."""

import pytest
import torch

from interp import FactoredMatrix
from interp.errors import ConfigError


@pytest.fixture
def factored():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, generator=generator, dtype=torch.float64) for size in ((3, 12, 4), (3, 4, 12)))
    return FactoredMatrix(left, right)


def test_norm_transpose_and_products(factored):
    whole = factored.product()
    torch.testing.assert_close(factored.norm(), whole.norm(dim=(-2, -1)))
    torch.testing.assert_close(factored.T.product(), whole.mT)
    matrix = torch.randn(12, 5, dtype=torch.float64)
    torch.testing.assert_close(factored.then(matrix).product(), whole @ matrix)
    torch.testing.assert_close(factored.after(matrix.T).product(), matrix.T @ whole)


def test_eigenvalues(factored):
    def ordered(values):
        return values[values.real.argsort()]

    for one, matrix in zip(factored.eigenvalues(), factored.product(), strict=True):
        every = torch.linalg.eigvals(matrix)
        largest = every[every.abs().argsort(descending=True)[:4]]
        torch.testing.assert_close(ordered(one).abs(), ordered(largest).abs())


def test_svd(factored):
    u, s, v = factored.svd()
    torch.testing.assert_close(u * s[:, None] @ v.mT, factored.product())
    torch.testing.assert_close(s, torch.linalg.svdvals(factored.product())[:, :4])
    torch.testing.assert_close(u.mT @ u, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))


def test_what_does_not_fit():
    with pytest.raises(ConfigError, match="inner sizes differ"):
        FactoredMatrix(torch.ones(3, 2), torch.ones(3, 3))
    with pytest.raises(ConfigError, match="not square"):
        FactoredMatrix(torch.ones(3, 2), torch.ones(2, 4)).eigenvalues()
