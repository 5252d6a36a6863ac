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
from analyses.cascade.verdict import agreed, decide
from analyses.intervals import careful_interval
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
    assert decide(slopes, 0.01) == expected
    assert decide(slopes[:2], 0.01) == "undetermined"
    steep = {"on site": slopes, "all positions": slopes + 1}
    label, reason = agreed(steep, 0.01)
    assert label == ("pile" if expected == "pile" else "undetermined")
    assert ("all positions above the margin" in reason) == (label == "undetermined")


@pytest.mark.parametrize(
    ("draw", "allowed"),
    [
        (lambda rng: rng.normal(0, 1, (12, 2000)), 0.03),
        (lambda rng: np.exp(rng.normal(0, 0.5, (12, 2000))) - math.exp(0.125), 0.05),
        (lambda rng: math.exp(0.125) - np.exp(rng.normal(0, 0.5, (12, 2000))), 0.05),
    ],
)
def test_false_verdicts_are_rare_also_of_skewed_slopes(draw, allowed):
    """Mean slopes at the edge of the margin, where a label for either side of it is wrong; 6 % by Student's interval alone."""
    low, high = careful_interval(draw(np.random.default_rng(0)))
    assert max((low > 0).mean(), (high < 0).mean()) < allowed
    assert ((low <= 0) & (high >= 0)).mean() > 0.94
    narrow = careful_interval(draw(np.random.default_rng(0)), 0.05)
    assert (narrow[1] - narrow[0] <= high - low).all()


def test_the_careful_interval_is_student_s_or_wider():
    values = np.random.default_rng(0).exponential(size=(9, 5))
    low, high = careful_interval(values)
    error = stats.t.ppf(0.975, 8) * stats.sem(values, axis=0)
    assert (low <= values.mean(0) - error + 1e-12).all()
    assert (high > values.mean(0) + error).any()  # the long tail is above
    np.testing.assert_allclose(
        careful_interval(values[:4])[1], values[:4].mean(0) + stats.t.ppf(0.975, 3) * stats.sem(values[:4])
    )
    assert np.isnan(careful_interval(values[:2])).all()
    np.testing.assert_allclose(careful_interval(np.full((7, 1), 0.25)), 0.25)


@pytest.fixture(scope="module")
def pair():
    tokens = random_tokens(6, 5)
    return gain(tiny(), tokens, n_directions=2), gain(random_twin(tiny()), tokens, n_directions=2)


def test_four_numbers_of_three_subjects(pair):
    """Against polyfit and differences by hand."""
    trained, twin = pair
    found = internal_verdict(trained, null=twin)
    assert found["subject"].to_numpy().tolist() == ["trained", "twin", "difference"]
    for reach, name in (("on site", "log_relative_gain"), ("all positions", "log_whole_relative_gain")):
        both = {"trained": trained[name].to_numpy(), "twin": twin[name].to_numpy()}
        both["difference"] = both["trained"] - both["twin"]
        for subject, logs in both.items():
            one = found.sel(subject=subject, reach=reach)
            for first, start in enumerate(("injection", "one block above")):
                expected = np.polyfit(trained["layer"][first:], logs[:, first:].T, 1)[0]
                np.testing.assert_allclose(one["slope"].sel(start=start), expected)
                assert float(one["slope_mean"].sel(start=start)) == pytest.approx(expected.mean())
                np.testing.assert_allclose(one["slope_interval"].sel(start=start), careful_interval(expected))
            np.testing.assert_allclose(one["output"], logs[:, -1])
            np.testing.assert_allclose(one["output_interval"], careful_interval(logs[:, -1]))
            np.testing.assert_allclose(one["growth"], np.diff(logs, axis=1).mean(0))
            np.testing.assert_allclose(one["growth_interval"][:, 1], careful_interval(np.diff(logs, axis=1)[:, 1]))
    assert float(found["margin"]) == pytest.approx(0.1 / 3)
    assert found.attrs["weight_hash"] == trained.attrs["weight_hash"]
    alone = internal_verdict(trained)
    assert "difference" not in alone
    assert alone["verdict"].item() == found["verdict"].item()
    assert internal_verdict(twin)["verdict"].item() == found["null_verdict"].item()


def test_prompts_of_one_cluster_count_as_one(pair):
    """The same as of the means of their curves."""
    names = ["a", "a", None, "b", None, "b"]
    found = internal_verdict(pair[0], null=pair[1], clusters=names)
    assert int(found["clusters"]) == 4
    assert int(found["prompts"]) == 6
    logs = pair[0]["log_relative_gain"].to_numpy() - pair[1]["log_relative_gain"].to_numpy()
    units = np.stack([logs[some].mean(0) for some in ([0, 1], [2], [3, 5], [4])])
    one = found.sel(subject="difference", reach="on site")
    slopes = np.polyfit(pair[0]["layer"], units.T, 1)[0]
    assert float(one["slope_mean"].sel(start="injection")) == pytest.approx(slopes.mean())
    np.testing.assert_allclose(one["slope_interval"].sel(start="injection"), careful_interval(slopes))
    np.testing.assert_allclose(one["output_interval"], careful_interval(units[:, -1]))
    np.testing.assert_allclose(one["growth"], np.diff(units, axis=1).mean(0))
    np.testing.assert_allclose(one["growth_interval"], careful_interval(np.diff(units, axis=1)))
    assert one["slope"].sizes["prompt"] == 6
    few = internal_verdict(pair[0], clusters=["a", "b"] * 3)
    assert few["reason"].item() == "2 of the 3 prompts or clusters that a verdict needs at least"
    with pytest.raises(InterpError, match="one for each of the 6 prompts, got 2"):
        internal_verdict(pair[0], clusters=["a", "b"])
    assert "4 clusters" in analyses.plot(found).layout.title.text


def test_a_model_beside_itself_is_as_before_training(pair):
    found = internal_verdict(pair[0], null=pair[0])
    assert (found["slope"].sel(subject="difference") == 0).all()
    assert found["difference"].item() == "as before training"


def test_figure(pair):
    result = internal_verdict(pair[0], null=pair[1])
    figure = analyses.plot(result)
    above = result["slope"].sel(start="one block above")
    dots = [trace for trace in figure.data if trace.xaxis == "x" and trace.marker.opacity == 0.35]
    drawn = {(trace.y[0] > round(trace.y[0]), 2 - round(trace.y[0])): trace.x for trace in dots}
    for row, subject in enumerate(result["subject"].to_numpy()):
        for on_site, reach in ((True, "on site"), (False, "all positions")):
            np.testing.assert_allclose(drawn[on_site, row], above.sel(subject=subject, reach=reach))
    means = [trace.x[0] for trace in figure.data if trace.xaxis == "x" and trace.marker.symbol == "diamond"]
    np.testing.assert_allclose(
        sorted(means), np.sort(result["slope_mean"].sel(start="one block above").to_numpy().ravel())
    )
    lines = {trace.name: trace.y for trace in figure.data if trace.xaxis == "x3"}
    np.testing.assert_allclose(lines["at random init, on site"], result["growth"].sel(subject="twin", reach="on site"))
    assert f"Inside: {result['verdict'].item()}" in figure.layout.title.text
    assert str(result["null_verdict"].item()) in figure.layout.title.text
    assert [shape.x1 for shape in figure.layout.shapes if shape.type == "rect"] == [pytest.approx(0.1 / 3)]
    assert analyses.plot(internal_verdict(pair[0])).layout.yaxis.ticktext == ("as trained",)


def test_of_blocks_that_are_known():
    """The stream grows as the disturbance does: near-critical; beside a single block there is no slope above it."""
    model = linear_model([1.3 * centred_orthogonal(seed) for seed in range(5)])
    found = internal_verdict(gain(model, random_tokens(4, 5, vocab=30)))
    assert (found["verdict"].item(), found["reason"].item()) == ("near-critical", "")
    np.testing.assert_allclose(found["slope"], 0, atol=1e-6)
    single = internal_verdict(gain(tiny(), random_tokens(4, 5), layer=2))
    assert (single["verdict"].item(), single["reason"].item()) == (
        "undetermined",
        "a single block leaves no slope above it",
    )
    few = internal_verdict(gain(model, random_tokens(2, 5, vocab=30)))
    assert few["reason"].item() == "2 of the 3 prompts or clusters that a verdict needs at least"


def test_verdicts_that_cannot_be(pair):
    with pytest.raises(ResultError, match="expected a result of"):
        internal_verdict(internal_verdict(pair[0]))
    with pytest.raises(ResultError, match="other prompts or layers"):
        internal_verdict(pair[0], null=gain(random_twin(tiny()), random_tokens(6, 5, seed=1), n_directions=1))
    with pytest.raises(ResultError, match="other prompts or layers"):
        internal_verdict(pair[0], null=gain(random_twin(tiny()), random_tokens(6, 5), n_directions=1, layer=1))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_gain_that_is_no_number_is_named(value):
    measured = gain(tiny(), random_tokens(4, 6))
    measured["log_relative_gain"].values[2, 3] = value
    with pytest.raises(ResultError, match="of prompt 2 at layer 3 is no finite number"):
        internal_verdict(measured)
