"""Intervals of shares, and draws at the smallest temperatures."""

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from scipy import stats

import analyses
from analyses import cascade
from analyses.cascade.agreement import disagreement, stays
from analyses.intervals import _quantile, bootstrap_mean, over_prompts, share_interval, wilson
from interp.errors import TokenError
from interp.generation import Sampling
from interp.metrics import scaled

TINIEST = (5e-324, 1e-310, 1e-45, 1e-39, 2e-38, 1e-30, 1e-6)


def test_wilsons_interval():
    """Against the formula, and its literals for nothing and everything: 1.96**2 / (n + 1.96**2) from either end."""
    z = stats.norm.ppf(0.975)
    for k, n in ((0, 10), (10, 10), (3, 20), (97, 100)):
        p, spread = k / n, np.sqrt(k * (n - k) / n**3 + z**2 / (4 * n**2))
        centre = p + z**2 / (2 * n)
        assert wilson(k, n) == pytest.approx(
            np.array([centre - z * spread, centre + z * spread]) / (1 + z**2 / n), abs=1e-12
        )
    assert wilson(0, 10) == pytest.approx([0, 0.27753], abs=1e-5)
    assert wilson(10, 10) == pytest.approx([0.72247, 1], abs=1e-5)
    assert np.isnan(wilson(0, 0)).all()


def test_shares_have_exact_intervals():
    for n in (2, 6, 40):
        for k in range(n + 1):
            values = np.array([1.0] * k + [0.0] * (n - k))
            low, high = share_interval(values)
            exact = stats.binomtest(k, n).proportion_ci(method="exact")
            assert (low, high) == pytest.approx((exact.low, exact.high))
            assert high > low
    low, high = share_interval(np.ones(6))
    assert (low, high) == (pytest.approx(0.025 ** (1 / 6)), 1.0)
    assert share_interval(np.zeros(6)).tolist() == [0.0, pytest.approx(1 - 0.025 ** (1 / 6))]


def test_cells_apart_and_what_is_no_count():
    columns = [
        [0.5, 0.25, 0.5, 0.9, 0.2, 0.125],
        [np.nan, 1, 1, 1, 1, 1],
        [0, 0, 0, 0.3, 0, 0],
        [0] * 6,
        [1, 1, 1, 1, 1, 0.5],
    ]
    values = np.array(columns, dtype=float).T
    found, drawn = share_interval(values), bootstrap_mean(values)
    np.testing.assert_array_equal(found[:, 0], drawn[:, 0])
    assert np.isnan(found[:, 1]).all()
    five, six = (stats.binomtest(k, 6).proportion_ci(method="exact").high for k in (1, 0))
    assert found[:, 2].tolist() == pytest.approx([0, max(drawn[1, 2], five * 0.3)])  # one prompt of six has 0.3
    assert drawn[:, 3].tolist() == [0, 0]
    assert found[:, 3].tolist() == pytest.approx(
        [0, six * values[values > 0].mean()]
    )  # none has any; elsewhere they have so much
    assert found[:, 4].tolist() == pytest.approx([min(drawn[0, 4], 1 - five * 0.5), 1])
    same = over_prompts("effect", np.ones((6, 2)), ("head",), "effect", "1")["effect_interval"][1]
    assert (same == 1).all()  # equal numbers that are no shares do not vary
    shares = over_prompts("right", np.ones((6, 2)), ("head",), "right", "1", share=True)["right_interval"][1]
    assert (shares[0] < 0.6).all()


@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_exact_intervals_cover(share):
    drawn = (np.random.default_rng(0).random((8, 4000)) < share).astype(float)
    low, high = share_interval(drawn)
    assert ((low <= share) & (share <= high)).mean() >= 0.95


@pytest.mark.parametrize(
    ("name", "low", "high"), [("normal", 0.92, 0.97), ("lognormal", 0.82, 0.90), ("clusters", 0.72, 0.81)]
)
def test_coverage_is_what_the_documentation_says(name, low, high):
    """12 prompts; docs/cascade.md, "Intervals"."""
    rng = np.random.default_rng(1)
    between, within = rng.normal(size=(3, 1000)), rng.normal(size=(12, 1000))
    values = {
        "normal": within,
        "lognormal": np.exp(within) - np.exp(0.5),
        "clusters": (np.repeat(between, 4, axis=0) + within) * np.sqrt(0.5),
    }[name]
    bounds = bootstrap_mean(values)
    assert low < ((bounds[0] <= 0) & (bounds[1] >= 0)).mean() < high


def test_six_of_six_right_draws_a_bar():
    model, tokens = tiny(), random_tokens(1, 5).expand(6, -1)
    best, *_, worst = model(tokens[:1])[0, -1].argsort(descending=True).tolist()
    result = analyses.ablate_heads(model, tokens, answer=best, wrong=worst, heads=[(2, 0)], controls=0)
    assert result["correct_mean"].sel(condition="intact") == 1
    for name in ("correct", "preferred"):
        low, high = result[f"{name}_interval"].sel(condition="intact").to_numpy()
        assert (low, high) == (pytest.approx(0.5407, abs=1e-4), 1)
    bars = analyses.plot(result).data
    assert [float(trace.error_y.arrayminus[0]) for trace in bars[1:]] == pytest.approx([0.4593] * 2, abs=1e-4)


def test_damage_of_no_text_bounds_it():
    model, tokens = tiny(), random_tokens(6, 5)
    result = cascade.coupled(model, tokens, cascade.Nudge(dose=1e-6), seeds=2, steps=3)
    assert (result["damage"] == 0).all()
    low, high = result["damage_interval"].sel(time=0).to_numpy()
    assert (low, high) == (0, pytest.approx(0.4593, abs=1e-4))
    curve = cascade.survival(model, tokens, cascade.Nudge(dose=1e-6), seeds=2, steps=3)
    assert curve["kaplan_meier_interval"].sel(time=0).to_numpy().tolist() == pytest.approx([0.5407, 1], abs=1e-4)


@pytest.mark.parametrize("temperature", TINIEST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_smallest_temperatures_take_the_most_probable_token(temperature, dtype):
    logits = torch.tensor([[1.0, 3.0, -2.0], [1e4, -1e4, 0.0], [-5.0, -5.5, -6.0]], dtype=dtype)
    shifted = scaled(logits, temperature)
    assert not shifted.isnan().any()
    assert shifted.softmax(-1).tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
    draw = next(Sampling(temperature, seeds=[0, 1, 2]).draws())
    assert draw(logits).tolist() == [1, 0, 0]


def test_a_temperature_that_can_be_divided_by_gives_what_it_gave():
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    for temperature in (0.3, 1.0, 7.0):
        torch.testing.assert_close(scaled(logits, temperature).softmax(-1), (logits.double() / temperature).softmax(-1))
    ties = torch.tensor([[1.0, 1.0, 0.0]]).expand(200, -1)
    draw = next(Sampling(1e-300, seeds=range(200)).draws())
    found = draw(ties)
    assert set(found.tolist()) == {0, 1}  # equal ones are drawn alike, as at every temperature
    assert 60 < int(found.sum()) < 140


def test_texts_at_the_smallest_temperatures_are_greedy_ones():
    model, tokens = tiny(), random_tokens(3, 5)
    greedy = model.generate(tokens, max_new_tokens=6, temperature=0.0)
    for temperature in TINIEST:
        assert torch.equal(model.generate(tokens, max_new_tokens=6, temperature=temperature), greedy), temperature
        kept = model.generate(tokens, max_new_tokens=6, temperature=temperature, top_k=3, top_p=0.9)
        assert torch.equal(kept, greedy), temperature
    with pytest.raises(TokenError, match="temperature must be 0"):
        model.generate(tokens, temperature=-1e-39)


@pytest.mark.parametrize("temperature", [5e-324, 1e-39, 1e-20])
def test_coupled_texts_at_the_smallest_temperatures(temperature):
    model, tokens = tiny(), random_tokens(3, 5)
    options = {"seeds": 2, "steps": 8, "temperature": temperature}
    result = cascade.coupled(model, tokens, **options)
    greedy = cascade.coupled(model, tokens, **options | {"temperature": 0.0})
    for seed in range(2):
        np.testing.assert_array_equal(result["token_id"].isel(seed=seed), greedy["token_id"].isel(seed=0))
        np.testing.assert_array_equal(result["h"].isel(seed=seed), greedy["h"].isel(seed=0))
    for name in ("h", "kl", "tv", "entropy"):
        assert result[name].notnull().all(), name
    assert (result["entropy"] == 0).all()
    curve = cascade.survival(model, tokens, **options)
    assert curve["stays"].isin([0, 1]).all()
    assert (
        cascade.reproduction(model, tokens, temperature=temperature, horizon=3, sources=2)["influence"]
        .isin([0, 0.5, 1])
        .all()
    )
    assert cascade.channels(model, tokens, **options)["h"].isel(time=slice(1, None)).isin([0, 1]).all()


def test_agreement_of_distributions_that_have_all_on_one_token():
    for gap in (1e3, 1e39, np.inf):
        log_p = torch.tensor([0.0, -gap, -2 * gap], dtype=torch.float64)
        log_q = log_p[[1, 0, 2]]
        assert float(disagreement(log_p, log_p)) == 0
        assert float(disagreement(log_p, log_q)) == 1
        assert [float(stays(log_p, log_q, torch.tensor(k))) for k in (0,)] == [0]
        assert float(stays(log_p, log_p, torch.tensor(0))) == 1


@pytest.mark.parametrize("share", [0.0, 0.0137, 0.5, 0.975, 1.0])
def test_quantiles_of_what_is_ordered_are_numpys(share):
    values = np.sort(np.random.default_rng(0).normal(size=(5, 37)), axis=1)
    np.testing.assert_allclose(_quantile(values, share), np.quantile(values, share, axis=1), atol=1e-15)
