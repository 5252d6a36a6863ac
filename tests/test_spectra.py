"""Matrices that are not finite are named before LAPACK sees them, of which some crash the process."""

import re
from pathlib import Path

import pytest
import torch
from conftest import random_tokens, tiny

import analyses
import interp
from analyses import cascade
from interp import FactoredMatrix, Transformer, spectra
from interp.errors import ResultError

CALLS = {
    "eigenvalues": spectra.eigenvalues,
    "symmetric": spectra.symmetric,
    "svd": spectra.svd,
    "singular_values": spectra.singular_values,
    "qr": spectra.qr,
}


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_finite_is_named(name, wrong):
    matrix = torch.randn(2, 4, 4)
    CALLS[name](matrix, "it")
    matrix[1, 2, 3] = wrong
    with pytest.raises(ResultError, match="it is not finite.*overflow float32.*wider dtype"):
        CALLS[name](matrix, "it")


def test_they_are_those_of_the_matrix():
    matrix = torch.randn(5, 3, dtype=torch.float64)
    u, values, vh = spectra.svd(matrix, "it")
    torch.testing.assert_close(u * values @ vh, matrix)
    torch.testing.assert_close(spectra.singular_values(matrix, "it"), values)
    assert spectra.svd(matrix, "it", whole=True)[0].shape == (5, 5)
    q, r = spectra.qr(matrix, "it")
    torch.testing.assert_close(q @ r, matrix)
    squares = values.pow(2).sort().values
    torch.testing.assert_close(spectra.symmetric(matrix.mT @ matrix, "it")[0], squares)
    found = spectra.eigenvalues(matrix.mT @ matrix, "it")
    torch.testing.assert_close(found.real.sort().values, squares)


def test_nothing_else_calls_lapack_for_them():
    root = Path(interp.__file__).parents[1]
    calls = re.compile(r"linalg\.(eig|svd|qr)")
    found = [
        path.name
        for part in ("interp", "analyses")
        for path in (root / part).rglob("*.py")
        if calls.search(path.read_text())
    ]
    assert found == ["spectra.py"]


def large(by: float = 1e22) -> Transformer:
    """Finite weights whose products overflow float32."""
    model = tiny(dtype=torch.float32)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.mul_(by)
    return model


def test_finite_weights_whose_products_overflow():
    model, tokens = large(), random_tokens()
    for embedding in ("raw", "effective"):
        assert analyses.copying_scores(model, embedding=embedding).isnan().all()
    assert analyses.head_table(model, length=5, count=2)["copying"].isnull().all()
    attention = model.blocks[0].attn
    for use in (
        lambda: analyses.singular_tokens(model, 1, 0),
        lambda: analyses.singular_tokens(model, 1, 0, circuit="qk"),
        lambda: FactoredMatrix(attention.W_V[0], attention.W_O[0]).eigenvalues(),
        lambda: FactoredMatrix(attention.W_V[0], attention.W_O[0]).svd(),
        lambda: cascade.jacobian_spectrum(model, tokens),
        lambda: cascade.lyapunov(model, tokens),
    ):
        with pytest.raises(ResultError, match="not finite"):
            use()
