"""The sweep over temperature: planted critical temperatures, and parts equal to their own runs."""

import numpy as np
import pytest
from conftest import random_tokens, tiny

import analyses
from analyses.cascade import Nudge, Swap, temperature_sweep
from analyses.cascade.coupled import couple
from analyses.cascade.temperature import _peak, _said, _statistics, critical, repeats
from interp.errors import InterpError


def test_a_planted_drift_gives_its_critical_temperature():
    sizes = [16, 32, 64, 128, 256]
    peaks = 0.9 + 3.0 * np.array(sizes, dtype=float) ** (-1 / 1.5)
    assert critical(peaks, sizes) == pytest.approx(0.9, abs=0.02)
    assert np.isnan(critical(np.array([1.0, np.nan, np.nan, 1.1, np.nan]), sizes))


def test_the_peak_is_that_of_a_parabola():
    grid = np.array([0.4, 0.7, 1.0, 1.5, 2.0])
    assert _peak(grid, 5 - (grid - 0.93) ** 2) == pytest.approx(0.93)
    assert np.isnan(_peak(grid, grid))


def test_susceptibility_by_hand():
    """Fair coins: the variance of a mean over H of them is 1/(4H), so chi is 1/4 whatever H; damage that is all or none: chi is H/4."""
    rng = np.random.default_rng(0)
    sizes, grid = [16, 32, 64], np.linspace(0.5, 1.5, 5)
    coins = rng.integers(0, 2, (400, 5, 10, 64)).astype(float)
    means = np.stack([coins[..., :n].mean(-1) for n in sizes], axis=-1)
    found = _statistics(means, grid, sizes)
    np.testing.assert_allclose(found[:15], 0.25, rtol=0.1)
    assert abs(found[-2]) < 0.1  # a crossover: the peak does not grow
    whole = np.repeat(rng.integers(0, 2, (400, 5, 10, 1)).astype(float), 3, axis=-1)
    grown = _statistics(whole, grid, sizes)
    np.testing.assert_allclose(grown[:15].reshape(5, 3), np.array(sizes)[None] / 4 * np.ones((5, 1)), rtol=0.1)
    assert grown[-2] == pytest.approx(1, abs=0.05)


def test_what_is_said():
    inside, nan = np.array([1.0, 1.1, 1.2]), np.full(2, np.nan)
    assert _said(inside, np.array([-0.1, 0.2]), np.array([1.0, 1.2])) == "crossover"
    assert _said(inside, np.array([0.4, 0.8]), np.array([1.0, 1.2])) == "critical temperature"
    assert _said(inside, np.array([0.4, 0.8]), nan) == "undetermined"
    assert _said(inside, nan, nan) == "undetermined"
    assert _said(np.array([1.0, 1.1, np.nan]), np.array([0.4, 0.8]), nan) == "no peak in range"


def test_repeated_stretches():
    text = np.array([[1, 2, 3, 4, 9, 1, 2, 3, 4, 5]])
    assert np.flatnonzero(repeats(text)[0]).tolist() == [8]


def test_each_temperature_is_its_own_run_and_is_kept(tmp_path):
    model, tokens = tiny(), random_tokens(7, 5)
    grid, request = [0.5, 0.8, 1.0, 1.5, 2.0], {"lengths": (4, 8, 16), "seeds": 2, "seed": 4}
    result = temperature_sweep(model, tokens, Swap(1, token=7), temperatures=grid, folder=tmp_path / "parts", **request)
    run = couple(model, tokens, Swap(1, token=7), seeds=2, steps=16, temperature=1.5, seed=4)
    one = result.sel(temperature=1.5)
    for length in (4, 8, 16):
        np.testing.assert_allclose(
            one["late_damage"].sel(horizon=length), run.damage[..., length // 2 : length].mean((1, 2))
        )
        chi = length * run.damage[..., :length].mean(-1).var()
        assert float(one["susceptibility"].sel(horizon=length)) == pytest.approx(chi)
    np.testing.assert_allclose(one["entropy_rate"], run.entropy[..., 8:].mean((1, 2)))
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == sorted(f"temperature-{t:g}" for t in grid)
    again = temperature_sweep(model, tokens, Swap(1, token=7), temperatures=grid, folder=tmp_path / "parts", **request)
    np.testing.assert_array_equal(again["late_damage"], result["late_damage"])
    figure = analyses.plot(result)
    curves = [trace for trace in figure.data if trace.name == "16 tokens"]
    np.testing.assert_allclose(curves[0].y, result["late_damage_mean"].sel(horizon=16))
    np.testing.assert_allclose(curves[1].y, result["susceptibility"].sel(horizon=16))
    assert result["said"].item() in figure.layout.title.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperatures": [1.0, 2.0]}, "five at least"),
        ({"temperatures": [0.0, 0.5, 1.0, 1.5, 2.0]}, "positive"),
        ({"lengths": (8, 4, 16)}, "rising"),
    ],
)
def test_requests_that_cannot_be(options, said):
    with pytest.raises(InterpError, match=said):
        temperature_sweep(tiny(), random_tokens(1, 5), Nudge(), **options)
