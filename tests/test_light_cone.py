"""The light cone of heads that are known to move everything one position a layer, and the range laws."""

import math

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

from analyses.cascade import light_cone
from analyses.cascade.light_cone import range_law
from interp.zoo.circuits import SPACES, WIDTH, _build, _to_previous


def test_a_previous_token_head_moves_the_disturbance_one_position_a_layer():
    """Each layer adds to a position what stood at the one before: after l layers the amplitude at distance j is binomial(l, j)."""
    model = _build("stack", [[_to_previous("token")]] * 4).double()
    direction = torch.zeros(1, WIDTH).double()
    direction[0, :2] = torch.tensor([1.0, -1.0])
    assert next(iter(SPACES)) == "token"
    tokens = torch.randint(2, 32, (1, 9), generator=torch.Generator().manual_seed(0))
    result = light_cone(model, tokens, directions=direction)
    for p0 in (1, 3, 7):
        for layer in range(5):
            share = result["share"].sel(injection=p0, layer=layer)[0].to_numpy()
            expected = np.zeros(9)
            for j in range(layer + 1):
                if p0 + j < 9:
                    expected[p0 + j] = math.comb(layer, j) ** 2
            np.testing.assert_allclose(share, expected, atol=1e-9)
    squares = [math.comb(4, j) ** 2 for j in range(5)]
    assert float(result["share"].sel(injection=1, layer=4).sum()) == pytest.approx(sum(squares))
    first = result["share"].sel(layer=4, injection=1)[0].to_numpy()
    assert 1 - first[1] / first.sum() == pytest.approx(1 - 1 / sum(squares))


def test_shares_equal_two_whole_runs_and_the_summaries_plain_sums():
    model, tokens = tiny(), random_tokens(2, 6)
    result = light_cone(model, tokens, n_directions=2, seed=3)
    share = result["share"].to_numpy()
    assert (share[:, 3, :, :3] == 0).all()  # causality: nothing before position 3
    np.testing.assert_allclose(share[:, :, 0].sum(-1), 1)
    total = share.sum(-1)
    off, centroid = [], []
    for p0 in range(5):  # the last position has no later one to reach
        off.append(1 - share[:, p0, :, p0] / total[:, p0])
        centroid.append((share[:, p0] * (np.arange(6) - p0)).sum(-1) / total[:, p0])
    np.testing.assert_allclose(result["off_site"], np.mean(off, axis=0), atol=1e-9)
    np.testing.assert_allclose(result["centroid"], np.mean(centroid, axis=0), atol=1e-9)
    at_output = share[:, :, -1] / total[:, :, -1, None]
    np.testing.assert_allclose(result["by_distance"][:, 5], at_output[:, 0, 5])
    np.testing.assert_allclose(result["by_distance"][:, 0], np.mean([at_output[:, p, p] for p in range(6)], axis=0))


def test_planted_laws_are_told_apart():
    d = np.arange(20)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.05, (3, 20)))
    power = range_law(0.3 * np.maximum(d, 1.0) ** -0.8 * noise)
    assert power["aic"][1][0] < power["aic"][1][1] - 10
    assert power["exponent"][1] == pytest.approx(0.8, abs=0.05)
    exponential = range_law(0.3 * np.exp(-d / 4.0) * noise)
    assert exponential["aic"][1][1] < exponential["aic"][1][0] - 10
    assert exponential["length"][1] == pytest.approx(4, rel=0.05)
    assert np.isnan(range_law(np.ones((1, 4)))["aic"][1]).all()  # three distances
