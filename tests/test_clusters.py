"""Intervals over clusters of prompts: against the clusters' means, in what coverage they have, and every kind of label."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import random_tokens, tiny

import analyses
from analyses import cascade, clustered
from analyses.clusters import units_of, units_of_result
from analyses.intervals import bootstrap_mean, over_prompts, ratio_interval, resampled, share_interval
from interp.errors import InterpError

LABELS = [f"template {number % 8}" for number in range(24)]


@pytest.fixture
def eight():
    return np.random.default_rng(0).normal(1, 1, (8, 3))


def test_prompts_that_repeat_one_another_count_once(eight):
    """Three times the same eight prompts have the intervals of the eight, and without clusters narrower ones."""
    thrice = np.tile(eight, (3, 1))
    ratio = (eight[:, 0] ** 2, 1 + eight[:, 1] ** 2)
    with clustered(LABELS):
        np.testing.assert_allclose(bootstrap_mean(thrice), bootstrap_mean(eight), atol=1e-12)
        np.testing.assert_allclose(
            ratio_interval(*(np.tile(one, 3) for one in ratio)), ratio_interval(*ratio), atol=1e-12
        )
        found = over_prompts("x", thrice, ("cell",), "x", "1")
        of_median = resampled(thrice, lambda drawn: np.median(drawn, axis=0))
    alone, narrow = (over_prompts("x", one, ("cell",), "x", "1") for one in (eight, thrice))
    for name in ("x_mean", "x_standard_error", "x_interval"):
        np.testing.assert_allclose(found[name][1], alone[name][1], atol=1e-12)
    np.testing.assert_allclose(of_median, resampled(eight, lambda drawn: np.median(drawn, axis=0)), atol=1e-12)
    assert (np.diff(narrow["x_interval"][1], axis=0) < 0.8 * np.diff(found["x_interval"][1], axis=0)).all()
    assert found["x_interval"][2] == "95 % interval over 8 clusters of prompts: x"


def test_shares_over_clusters():
    shares = np.repeat([1.0] * 7 + [0.0], 3)
    low, high = share_interval(shares[:, None])
    with clustered(np.repeat(np.arange(8), 3)):
        wide_low, wide_high = share_interval(shares[:, None])
        assert share_interval(np.ones((24, 1)))[0, 0] == pytest.approx(1 - 0.3694, abs=1e-4)  # Clopper-Pearson, 8 of 8
    assert wide_low < low < high <= wide_high <= 1


def test_clusters_of_unlike_size_are_covered():
    """12 clusters of 1 to 8 prompts with a common part: the mean over prompts is covered, and by prompts it is not."""
    rng, inside, naive = np.random.default_rng(1), 0, 0
    sizes = np.resize([1, 2, 3, 8], 12)
    units = np.repeat(np.arange(12), sizes)
    for _ in range(300):
        values = rng.normal(0, 1, 12)[units, None] + rng.normal(0, 0.3, (len(units), 1))
        low, high = bootstrap_mean(values, units)[:, 0]
        inside += low <= 0 <= high
        low, high = bootstrap_mean(values)[:, 0]
        naive += low <= 0 <= high
    assert inside / 300 > 0.87
    assert naive / 300 < 0.75


def test_those_that_are_kept_keep_their_clusters(eight):
    thrice, kept = np.tile(eight, (3, 1)), np.arange(24) % 8 != 7
    with clustered(LABELS):
        found = over_prompts("x", thrice, ("cell",), "x", "1", kept=kept)
    expected = over_prompts("x", eight[:7], ("cell",), "x", "1")
    np.testing.assert_allclose(found["x_interval"][1], expected["x_interval"][1], atol=1e-12)
    assert found["x_interval"][2] == "95 % interval over 7 clusters of 21 of 24 prompts: x"


def test_too_few_clusters_have_no_interval(eight):
    with clustered([1, 2, 3, 4, 5, 1, 2, 3]):
        assert np.isnan(bootstrap_mean(eight)).all()
        assert np.isnan(ratio_interval(eight[:, 0], eight[:, 1] + 9)).all()
        assert np.isnan(resampled(eight, lambda drawn: drawn.mean(0))).all()


def test_a_result_keeps_its_clusters_and_its_figure_uses_them():
    model, tokens = tiny(), random_tokens(4, 6).repeat(2, 1)
    names = list("abcdabcd")
    plain = cascade.ledger(model, tokens)
    with clustered(names):
        found = cascade.ledger(model, tokens)
    assert json.loads(found.attrs["parameters"])["clusters"] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert units_of_result(found).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert "clusters" not in json.loads(plain.attrs["parameters"])
    assert units_of_result(found.isel(prompt=[0])) is None
    drawn = [[trace.to_plotly_json().get("error_y") for trace in analyses.plot(one).data] for one in (plain, found)]
    assert any(drawn[0])
    assert not any(drawn[1])  # four clusters have no interval


def test_verdict_and_measurement_take_the_clusters_around():
    model, tokens = tiny(), random_tokens(8, 6)
    measured = cascade.gain(model, tokens)
    names = list("aabbccdd")
    given = cascade.internal_verdict(measured, clusters=names)
    with clustered(names):
        around = cascade.internal_verdict(measured)
        assert np.isnan(cascade.gain(model, tokens)["log_gain_interval"]).all()
    xr.testing.assert_equal(given, around)
    assert given["cluster"].to_numpy().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_figure_of_growth_says_over_what_its_bands_are():
    model, tokens = tiny(), random_tokens(8, 6)
    with clustered(list("aabcdefg")):
        found = cascade.gain(model, tokens)
    assert "95 % bootstrap interval over their 7 clusters" in analyses.plot(found).layout.title.text
    assert "interval over prompts" in analyses.plot(cascade.gain(model, tokens)).layout.title.text


@pytest.mark.parametrize(
    "labels",
    [
        ["a", None, "a", None, "b", "b"],
        pd.Series(["a", None, "a", None, "b", "b"]),
        pd.Series([1, np.nan, 1, np.nan, 2, 2]),
        [1.0, float("nan"), 1.0, np.float64("nan"), 2.0, 2.0],
        [1, pd.NA, 1, pd.NaT, 2, 2],
        np.array([1, np.nan, 1, np.nan, 2, 2]),
        xr.DataArray([1, np.nan, 1, np.nan, 2, 2]),
        [("a", 1), None, ("a", 1), None, "b", "b"],
    ],
)
def test_labels(labels):
    assert units_of(labels, 6).tolist() == [0, 1, 0, 2, 3, 3]


def test_one_missing_value_many_times_is_many_prompts():
    missing = float("nan")
    assert units_of([missing] * 4, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([["a"]] * 6, "cannot name a cluster"),
        ([{}] * 6, "cannot name a cluster"),
        (np.zeros((6, 2)), "cannot name a cluster"),
        (6, "got int"),
        ("abcdef", "got str"),
        (set("abcdef"), "got set"),
        (dict.fromkeys("abcdef"), "got dict"),
        ((label for label in "abcdef"), "got generator"),
        (["a"] * 5, "for each of the 6 prompts, got 5"),
    ],
)
def test_what_names_no_clusters(labels, said):
    with pytest.raises(InterpError, match=said):
        units_of(labels, 6)


def test_an_analysis_of_other_prompts_is_refused():
    with clustered(["a", "b", "c"]), pytest.raises(InterpError, match="named for 3 prompts, and an interval was asked"):
        bootstrap_mean(np.ones((8, 1)))
    with pytest.raises(InterpError, match="got str"), clustered("abc"):
        pass
