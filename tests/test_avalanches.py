"""Avalanches against Poisson branching processes, whose sizes follow Borel's law exactly."""

import json

import numpy as np
import powerlaw
import pytest
import xarray as xr
from scipy import stats
from test_reproduction import spreading

import analyses
from analyses.cascade import avalanches
from analyses.cascade.avalanches import _counts, borel, borel_ccdf, measure, power_law
from analyses.cascade.reproduction import branching_ratio
from analyses.intervals import ratio_interval
from interp.errors import ResultError


def trees(sigma: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Total progeny of Poisson branching processes."""
    size = alive = np.ones(shape, dtype=int)
    while alive.any():
        alive = rng.poisson(sigma * alive)
        size = size + alive
    return size


def result_of(damage: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {"aligned_damage": (("prompt", "seed", "time"), damage)},
        attrs={
            "kind": "cascade_coupled",
            "model": "made",
            "schema_version": 1,
            "parameters": json.dumps({"temperature": 1.0, "disturbance": {"kind": "swap"}}),
        },
    )


def influence_of(kernel: np.ndarray, **attrs: object) -> xr.Dataset:
    about = {"kind": "cascade_reproduction", "parameters": json.dumps({"temperature": 1.0})}
    return xr.Dataset({"influence_mean": (("lag",), kernel)}, attrs=about | attrs)


def test_borels_law():
    n = np.arange(1, 400)
    p = np.exp(borel(n, 0.7))
    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert (n * p).sum() == pytest.approx(1 / 0.3, rel=1e-6)
    assert p[0] == pytest.approx(np.exp(-0.7))
    assert p[1] == pytest.approx(0.7 * np.exp(-1.4))
    np.testing.assert_allclose(borel_ccdf(0.7, 5), 1 - np.concatenate([[0], p.cumsum()[:4]]))
    assert np.exp(borel(np.array([1, 2]), 0.0)).tolist() == [1, 0]


@pytest.mark.parametrize("sigma", [0.3, 0.8])
def test_sizes_of_branching_processes_follow_it(sigma):
    sizes = trees(sigma, (20_000,), np.random.default_rng(0))
    n = np.arange(1, 8)
    counted = [(sizes == k).sum() for k in n] + [(sizes >= 8).sum()]
    expected = [*np.exp(borel(n, sigma)), borel_ccdf(sigma, 8)[7]]
    assert stats.chisquare(counted, 20_000 * np.array(expected) / sum(expected)).pvalue > 0.001
    assert branching_ratio(sizes - 1, sizes) == pytest.approx(sigma, abs=0.02)


def test_the_interval_of_the_ratio_covers():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(1000):
        sizes = trees(0.6, (20, 4), rng)
        low, high = ratio_interval((sizes - 1).sum(1), sizes.sum(1))
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 1000 <= 0.98


def test_the_exponent_is_that_of_the_package_and_of_the_law():
    rng = np.random.default_rng(0)
    n = np.arange(1, 65)
    weights = n**-1.5
    sizes = rng.choice(n, 5000, p=weights / weights.sum())
    own = power_law(sizes, 64)
    assert own == pytest.approx(1.5, abs=0.06)
    assert own == pytest.approx(
        powerlaw.Fit(sizes, discrete=True, xmin=1, xmax=64, verbose=0).power_law.alpha, abs=0.02
    )


def test_measured_by_hand():
    damage = np.array(
        [
            [1, 0, 1, 0, 0, 0, 1, 0],  # at rest after step 2; what comes later is not of it
            [0, 0, 0, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 1, 0, 0, 1],  # never three unchanged
        ],
        dtype=bool,
    )
    size, duration, rest = measure(damage, 3)
    assert size.tolist() == [3, 1, 5]
    assert duration.tolist() == [3, 0, 8]
    assert rest.tolist() == [True, True, False]


def test_laws_are_told_apart():
    """Sizes of a subcritical process: the power law loses to Borel's; sizes drawn from a power law: it wins over the exponential."""
    rng = np.random.default_rng(0)
    for name, sizes in {
        "borel": np.minimum(trees(0.5, (40, 10), rng), 50),
        "power": rng.choice(np.arange(1, 50), (40, 10), p=np.arange(1, 50) ** -1.6 / (np.arange(1, 50) ** -1.6).sum()),
    }.items():
        damage = np.zeros((40, 10, 60), dtype=np.int64)
        for at in np.ndindex(40, 10):
            damage[(*at, slice(0, sizes[at] - 1))] = 1
        found = avalanches(result_of(damage))
        np.testing.assert_array_equal(found["avalanche_size"], sizes)
        ratio, p = (found[key].to_series() for key in ("log_ratio", "ratio_p"))
        if name == "borel":
            assert ratio["borel"] < 0
            assert p["borel"] < 0.05
            assert float(found["branching_ratio"]) == pytest.approx(0.5, abs=0.06)
        else:
            assert ratio["exponential"] > 0
            assert p["exponential"] < 0.05
            low, high = found["exponent_interval"].to_numpy()
            assert low <= 1.6 <= high
        figure = analyses.plot(found)
        measured = figure.data[0]
        assert measured.y[0] == 1
        np.testing.assert_allclose(measured.y[1], (sizes >= 2).mean())
        np.testing.assert_allclose(figure.data[1].y[:3], found["borel_ccdf"][:3])


@pytest.mark.parametrize("r", [0.5, 1.0, 1.5])
def test_the_ratio_of_avalanches_that_do_not_come_to_rest(r):
    """Sizes less 1 over sizes can never exceed 1, and made 0.95 of 1.5."""
    kernel = np.full(8, 1 / 8)
    damage = spreading(r, kernel, (300, 8, 64), np.random.default_rng(0))
    children, parents = _counts(result_of(damage), damage, 8, influence_of(0.2 * kernel))
    assert branching_ratio(children, parents) == pytest.approx(r, rel=0.03)


def test_damage_that_never_ends_has_a_ratio_above_one_and_none_without_influence():
    damage = np.zeros((8, 2, 40), dtype=np.int64)
    damage[:, 0] = 1
    kernel = np.array([0.5, 0.5])
    found = avalanches(result_of(damage), reproduction=influence_of(kernel))
    assert float(found["branching_ratio"]) == pytest.approx(40 / (1 + 38 + 0.5 + 1))  # and the run without damage
    alone = damage[:, :1]
    assert float(avalanches(result_of(alone), reproduction=influence_of(kernel))["branching_ratio"]) > 1
    unknown = avalanches(result_of(damage))
    assert np.isnan(unknown["branching_ratio"])
    assert np.isnan(unknown["branching_ratio_interval"]).all()
    title = analyses.plot(unknown).layout.title.text
    assert "branching ratio not known without reproduction=" in title
    for wrong in ({"kind": "cascade_gain"}, {"weight_hash": "x"}, {"parameters": json.dumps({"temperature": 2.0})}):
        with pytest.raises(ResultError, match="of the same model and temperature"):
            avalanches(result_of(damage), reproduction=influence_of(kernel, **wrong))


def test_too_little_to_say():
    damage = np.zeros((2, 3, 20), dtype=np.int64)
    found = avalanches(result_of(damage))
    assert float(found["branching_ratio"]) == 0
    assert np.isnan(found["exponent"])
    assert "too few for a law" in analyses.plot(found).layout.title.text
    with pytest.raises(ResultError, match="more than 30 steps"):
        avalanches(result_of(damage), gap=30)
    with pytest.raises(ResultError, match="expected a result"):
        avalanches(xr.Dataset())
