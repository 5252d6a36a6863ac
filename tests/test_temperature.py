"""The sweep over temperature: planted critical temperatures, and parts equal to their own runs."""

import numpy as np
import pytest
from conftest import random_tokens, tiny

import analyses
from analyses.cascade import Nudge, Swap, temperature_sweep
from analyses.cascade.collapse import collapse_advantage
from analyses.cascade.coupled import couple
from analyses.cascade.temperature import _peak, _said, _statistics, between_prompts, critical, repeats, within_prompts
from analyses.intervals import bootstrap_mean, resampled
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
    found = _statistics(within_prompts(means, sizes), grid, sizes)
    np.testing.assert_allclose(found[:15], 0.25, rtol=0.1)
    assert abs(found[-2]) < 0.1  # a crossover: the peak does not grow
    whole = np.repeat(rng.integers(0, 2, (400, 5, 10, 1)).astype(float), 3, axis=-1)
    grown = _statistics(within_prompts(whole, sizes), grid, sizes)
    np.testing.assert_allclose(grown[:15].reshape(5, 3), np.array(sizes)[None] / 4 * np.ones((5, 1)), rtol=0.1)
    assert grown[-2] == pytest.approx(1, abs=0.05)
    assert np.isnan(within_prompts(means[:, :, :1], sizes)).all()


def test_prompts_that_differ_are_told_apart_from_draws_that_do():
    """Each prompt has its own chance p of damage, in every step by itself: chi is p(1-p) whatever H, and the rest is between prompts."""
    rng = np.random.default_rng(0)
    sizes, p = [16, 64], rng.beta(2, 6, (3000, 1, 1, 1))
    damage = rng.random((3000, 1, 4, 64)) < p
    means = np.stack([damage[..., :n].mean(-1) for n in sizes], axis=-1)
    np.testing.assert_allclose(within_prompts(means, sizes).mean((0, 1)), (p * (1 - p)).mean(), rtol=0.04)
    np.testing.assert_allclose(between_prompts(means, sizes)[0], np.array(sizes) * p.var(), rtol=0.06)


SIZES, GRID = [16, 32, 64, 128], np.array([0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5])


def said_of(chi: np.ndarray) -> str:
    """What is said of the susceptibility of each prompt, as in the sweep."""
    bounds = resampled(chi, lambda drawn: _statistics(drawn, GRID, SIZES))
    peaks = _statistics(chi, GRID, SIZES)[36:40]
    return _said(peaks, bounds[:, -2], bounds[:, -1], bootstrap_mean(collapse_advantage(chi, GRID, SIZES)))


def test_independent_tokens_of_unlike_prompts_have_no_critical_temperature(monkeypatch):
    """Damage without any memory, likeliest to fluctuate about T = 1, prompts unlike: pooled over prompts, chi grew with H in all of 60."""
    monkeypatch.setattr("analyses.intervals.RESAMPLES", 200)
    likely = 0.5 * np.exp(-(np.log(GRID / 1.1) ** 2) / 0.3)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        p = np.clip(likely * rng.gamma(2, 0.5, (24, 1)), 0, 1)[:, :, None, None]
        damage = rng.random((24, len(GRID), 8, 128)) < p
        means = np.stack([damage[..., :n].mean(-1) for n in SIZES], axis=-1)
        assert said_of(within_prompts(means, SIZES)) != "critical temperature"
        pooled = np.polyfit(np.log(SIZES), np.log((means.var(axis=(0, 2)) * SIZES).max(0)), 1)[0]
        assert pooled > 0.3  # what was taken for the growth of a peak


def planted(nu: float | None, rng: np.random.Generator) -> np.ndarray:
    """The chi of 24 prompts of 8 draws that grows as H^0.6, about a temperature of 0.9 and narrower with length, or (None) all alike."""
    length = np.array(SIZES, dtype=float)
    x = (GRID[:, None] - 0.9) * ((length / 128) ** (1 / nu) if nu else 1.0)
    chi = length**0.6 * (0.05 + np.exp(-((x - 0.15) ** 2) / 0.1))
    return chi * rng.chisquare(7, (24, *chi.shape)) / 7


def test_a_planted_transition_is_claimed_and_growth_without_a_collapse_is_not(monkeypatch):
    monkeypatch.setattr("analyses.intervals.RESAMPLES", 200)
    said = [said_of(planted(1.5, np.random.default_rng(seed))) for seed in range(2)]
    assert said == ["critical temperature"] * 2
    said = [said_of(planted(None, np.random.default_rng(seed))) for seed in range(2)]
    assert "critical temperature" not in said
    assert np.isnan(collapse_advantage(planted(1.5, np.random.default_rng(0))[:4], GRID, SIZES)).all()


def test_what_is_said():
    inside, nan, better = np.array([1.0, 1.1, 1.2]), np.full(2, np.nan), np.array([0.1, 0.3])
    assert _said(inside, np.array([-0.1, 0.2]), np.array([1.0, 1.2]), better) == "crossover"
    assert _said(inside, np.array([0.4, 0.8]), np.array([1.0, 1.2]), better) == "critical temperature"
    assert _said(inside, np.array([0.4, 0.8]), np.array([1.0, 1.2]), np.array([-0.1, 0.3])) == "undetermined"
    assert _said(inside, np.array([0.4, 0.8]), np.array([1.0, 1.2]), nan) == "undetermined"
    assert _said(inside, np.array([0.4, 0.8]), nan, better) == "undetermined"
    assert _said(inside, nan, nan, nan) == "undetermined"
    assert _said(np.array([1.0, 1.1, np.nan]), np.array([0.4, 0.8]), nan, better) == "no peak in range"


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
            one["late_damage"].sel(horizon=length), run.alignment[0][..., length // 2 : length].mean((1, 2))
        )
        means = run.alignment[0][..., :length].mean(-1)
        chi = length * means.var(1, ddof=1).mean()
        assert float(one["susceptibility"].sel(horizon=length)) == pytest.approx(chi)
        between = length * means.mean(1).var(ddof=1) - chi / 2
        assert float(one["susceptibility_between"].sel(horizon=length)) == pytest.approx(between)
    np.testing.assert_allclose(one["entropy_rate"], run.entropy[..., 8:].mean((1, 2)))
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == sorted(f"temperature-{t:g}" for t in grid)
    again = temperature_sweep(model, tokens, Swap(1, token=7), temperatures=grid, folder=tmp_path / "parts", **request)
    np.testing.assert_array_equal(again["late_damage"], result["late_damage"])
    figure = analyses.plot(result)
    curves = [trace for trace in figure.data if trace.name == "16 tokens"]
    np.testing.assert_allclose(curves[0].y, result["late_damage_mean"].sel(horizon=16))
    np.testing.assert_allclose(curves[1].y, result["susceptibility"].sel(horizon=16))
    assert result["said"].item() in figure.layout.title.text
    single = temperature_sweep(model, tokens, Swap(1, token=7), temperatures=grid, **(request | {"seeds": 1}))
    assert np.isnan(single["susceptibility"]).all()
    assert single["said"].item() == "undetermined"
    assert "not judged" in analyses.plot(single).layout.title.text


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
