"""Token and position embeddings."""

import numpy as np
import pytest
import torch
from conftest import tiny
from test_options import build

import analyses
from analyses.embeddings import principal
from analyses.plots import plot_positions
from interp.errors import TokenError


def test_neighbours_by_hand():
    model = tiny()
    model.W_E.zero_()
    model.W_E[:, 0] = 1.0
    model.W_E[:, 1] = torch.linspace(0, 5, 50).double()  # tokens along a line: the nearest are the next
    result = analyses.embedding_structure(model, [10], top_k=2)
    assert set(result["near_id"][0].to_numpy().tolist()) <= {9, 11, 12}
    assert 11 in result["near_id"][0]
    x, y = model.W_E[10], model.W_E[int(result["near_id"][0, 0])]
    assert float(result["near_cosine"][0, 0]) == pytest.approx(float(x @ y / x.norm() / y.norm()))


def test_similarities_are_cosines_and_a_token_is_not_its_own_neighbour():
    model = tiny()
    result = analyses.embedding_structure(model, [3, 7, 9], top_k=49)
    expected = torch.cosine_similarity(model.W_E[[3, 7, 9]][:, None], model.W_E[[3, 7, 9]][None], dim=-1)
    np.testing.assert_allclose(result["similarity"], expected)
    for row, token in enumerate((3, 7, 9)):
        assert token not in result["near_id"][row]
        assert len(set(result["near_id"][row].to_numpy().tolist())) == 49
    positions = torch.nn.functional.normalize(model.W_pos, dim=-1)
    np.testing.assert_allclose(result["position_similarity"], positions @ positions.T)


def test_principal_components_equal_those_of_the_singular_values():
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.arange(1, 7)
    share, coordinates = principal(rows, 3)
    u, s, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    torch.testing.assert_close(share, s**2 / (s**2).sum())
    torch.testing.assert_close(coordinates.abs(), (u * s)[:, :3].abs())
    assert (coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True)) > 0).all()


def test_of_text(smalltown):
    result = analyses.embedding_structure(smalltown, [" he", " she", "19"], top_k=3)
    assert result["near_token"][0, 0].item() == " she"
    assert result["candidate"].to_numpy().tolist() == [" he", " she", "19"]
    assert float(result["token_variance"].sum()) == pytest.approx(1)
    assert result.sizes["position"] == 256


def test_a_model_without_position_embedding():
    result = analyses.embedding_structure(build(positions="rotary"), [1])
    assert "position_coordinate" not in result
    with pytest.raises(ValueError, match="no position embedding"):
        plot_positions(result)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([], {}, "one token or several"),
        ([50], {}, "out of range"),
        ([1], {"top_k": 50}, "top_k must be 1 to 49"),
        ([1], {"n_axes": 17}, "n_axes 1 to 16"),
    ],
)
def test_requests_that_cannot_be(tokens, options, message):
    with pytest.raises(TokenError, match=message):
        analyses.embedding_structure(tiny(), tokens, **options)
