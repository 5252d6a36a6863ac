"""Directions compared, and the internal verdict, on blocks and slopes that are known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny
from scipy import stats
from test_gain import centred_orthogonal, linear_model

import analyses
from analyses.cascade import compare_directions, gain, internal_verdict, random_twin
from analyses.cascade.contrast import holm
from analyses.cascade.verdict import decide
from interp.errors import InterpError, ResultError


def test_planted_directions_grow_by_what_was_planted():
    basis = torch.linalg.qr(
        torch.cat([torch.ones(64, 1), torch.randn(64, 63, generator=torch.Generator().manual_seed(0))], 1).double()
    )[0]
    factors = torch.ones(64).double()
    factors[1] = 1.5
    model = linear_model([basis @ torch.diag(factors) @ basis.T] * 5)
    result = compare_directions(
        model,
        random_tokens(6, 4, vocab=30),
        kinds=["singular"],
        own={"planted": basis[:, 1:2].T, "still": basis[:, 2:3].T},
    )
    isotropic = gain(model, random_tokens(6, 4, vocab=30))["log_gain"].to_numpy()[:, -1]
    by_kind = result["log_ratio"]
    np.testing.assert_allclose(by_kind.sel(direction_kind="planted"), 5 * math.log(1.5) - isotropic, atol=1e-5)
    np.testing.assert_allclose(by_kind.sel(direction_kind="still"), -isotropic, atol=1e-5)
    low, high = result["log_ratio_interval"].sel(direction_kind="planted").to_numpy()
    assert 0 < low < high
    expected = stats.ttest_1samp(by_kind.sel(direction_kind="planted"), 0).pvalue
    assert float(result["p"].sel(direction_kind="planted")) == pytest.approx(expected)


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.5])), [1, 1])


def test_directions_that_are_the_same_are_one_test():
    """Tied, a token's unembedding is its embedding: two kinds of three are two tests, and p is corrected for two."""
    tokens, kinds = random_tokens(3, 3), ["covariance", "token", "unembedding"]
    tied, free = (
        compare_directions(tiny(config=replace(TINY, tied=tied)), tokens, kinds=kinds, n_directions=2)
        for tied in (True, False)
    )
    assert tied["direction_kind"].to_numpy().tolist() == ["covariance", "token"]
    assert free["direction_kind"].to_numpy().tolist() == kinds
    np.testing.assert_allclose(tied["p_holm"], holm(tied["p"].to_numpy()))
    assert float((tied["p_holm"] / tied["p"]).max()) <= 2
    assert json.loads(tied.attrs["parameters"])["same"] == {"unembedding": "token"}
    assert json.loads(free.attrs["parameters"])["same"] == {}
    assert "token = unembedding" in analyses.plot(tied).layout.yaxis.ticktext
    alone = compare_directions(tiny(), tokens, kinds=["unembedding"], n_directions=2)
    np.testing.assert_array_equal(alone["log_ratio"][0], tied["log_ratio"].sel(direction_kind="token"))
    vector = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    mine = compare_directions(tiny(), tokens, kinds=[], own={"a": vector, "b": vector.clone(), "c": -vector})
    assert mine["direction_kind"].to_numpy().tolist() == ["a", "c"]


def test_comparisons_that_cannot_be():
    with pytest.raises(InterpError, match="choose others"):
        compare_directions(tiny(), random_tokens(1, 4), own={"token": torch.randn(1, 16)})
    with pytest.raises(InterpError, match="to compare with"):
        compare_directions(tiny(), random_tokens(1, 4), kinds=["isotropic"])


@pytest.mark.parametrize(
    ("slope", "spread", "expected"),
    [
        (-0.2, 0.02, "piano string"),
        (0.2, 0.02, "pile"),
        (0.0, 0.002, "near-critical"),
        (0.0, 0.2, "undetermined"),
        (0.03, 0.05, "undetermined"),
    ],
)
def test_planted_slopes(slope, spread, expected):
    slopes = slope + spread * stats.norm.ppf((np.arange(20) + 0.5) / 20)
    mean, interval, margin, said = decide(slopes, 10)
    assert said == expected
    assert margin == pytest.approx(0.01)
    assert interval[0] < mean < interval[1]


def test_two_prompts_say_nothing():
    assert decide(np.array([-1.0, -1.0]), 10)[3] == "undetermined"


def test_the_interval_covers_and_false_verdicts_are_rare():
    """Slopes at the edge of the margin, where `piano string` and `near-critical` are both wrong; and coverage."""
    rng = np.random.default_rng(0)
    covered, false = 0, 0
    for _ in range(2000):
        _, interval, _, said = decide(rng.normal(-0.01, 0.004, 12), 10)
        covered += interval[0] <= -0.01 <= interval[1]
        false += said in ("piano string", "near-critical")
    assert 0.92 < covered / 2000 < 0.98
    assert false / 2000 < 0.09  # 2.5 % for the one, 5 % for the other


def test_figure():
    result = internal_verdict(gain(tiny(), random_tokens(4, 5)), null=gain(random_twin(tiny()), random_tokens(4, 5)))
    figure = analyses.plot(result)
    dots, mean, null = figure.data
    np.testing.assert_allclose(dots.x, result["slope"])
    assert mean.x[0] == pytest.approx(float(result["slope_mean"]))
    assert null.x[0] == pytest.approx(float(result["null_slope"]))
    assert str(result["verdict"].item()) in figure.layout.title.text
    assert [shape.x1 for shape in figure.layout.shapes if shape.type == "rect"] == [
        pytest.approx(float(result["margin"]))
    ]


def test_of_a_gain():
    model = linear_model([centred_orthogonal(seed) for seed in range(5)])
    result = gain(model, random_tokens(4, 5, vocab=30))
    found = internal_verdict(result)
    assert found["verdict"].item() == "near-critical"
    np.testing.assert_allclose(found["slope"], 0, atol=1e-6)
    assert found.attrs["weight_hash"] == result.attrs["weight_hash"]
    twin = gain(random_twin(tiny()), random_tokens(4, 5))
    both = internal_verdict(gain(tiny(), random_tokens(4, 5)), null=twin)
    assert float(both["null_slope"]) == pytest.approx(
        float(np.polyfit(twin["layer"], twin["log_relative_gain"].mean("prompt"), 1)[0]), abs=1e-6
    )
    with pytest.raises(ResultError, match="expected a result of"):
        internal_verdict(both)
