"""Means over prompts of unequal length, or of pairs some of which have no effect: of what is the same in all, and never by index."""

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
import xarray as xr
from conftest import random_tokens, tiny
from scipy import stats

import analyses
from analyses.from_end import from_end, side_by_side
from analyses.intervals import over_prompts
from analyses.report.tables import strongest_cells
from interp import PAD
from interp.errors import ResultError
from interp.zoo import task

PAIR = {"answer": 3, "wrong": 4}
LENGTHS = [6, 4, 6, 5, 6, 6]


def pairs(seed: int) -> torch.Tensor:
    tokens = random_tokens(len(LENGTHS), 6, seed=seed)
    for row, length in enumerate(LENGTHS):
        tokens[row, length:] = PAD
    return tokens


@pytest.fixture(scope="module")
def fifty(smalltown):
    drawn = task("ioi").sample(50, seed=0)
    return {name: [getattr(pair, name) for pair in drawn] for name in ("clean", "corrupt", "answer", "wrong")}


def test_from_the_end():
    values = np.array([[[1.0, 2, 3]], [[4, 5, np.nan]]])  # [prompt, layer, position]
    expected = [[[1, 2, 3]], [[np.nan, 4, 5]]]
    np.testing.assert_array_equal(from_end(values, 2, [3, 2]), expected)
    dims, moved = side_by_side(values, ("layer", "position"), [3, 2])
    assert dims == ("layer", "position_from_end")
    np.testing.assert_array_equal(moved, expected)
    dims, same = side_by_side(values, ("layer", "position"), [3, 3])
    assert dims == ("layer", "position")
    assert same is values
    found = over_prompts("effect", values, ("layer", "position"), "effect", "1", lengths=[3, 2])
    np.testing.assert_array_equal(found["effect_mean"][1], [[np.nan, 3, 4]])
    with pytest.raises(ValueError, match="by position, so the prompts' lengths are needed"):
        over_prompts("effect", values, ("layer", "position"), "effect", "1")


def test_fifty_pairs_keep_what_their_last_tokens_have(smalltown, fifty):
    result = analyses.activation_patching(smalltown, **fifty)
    lengths = (result["corrupt_token_id"] >= 0).sum("position").to_numpy()
    assert set(lengths.tolist()) == {14, 15, 16}
    mean = result["effect_mean"]
    assert mean.dims == ("layer", "position_from_end")
    effect = result["effect"].to_numpy()
    for back in (1, 2, 5):
        own = np.stack([effect[pair, :, length - back] for pair, length in enumerate(lengths)])
        np.testing.assert_allclose(mean.sel(position_from_end=-back), own.mean(0), atol=1e-6)
    assert mean.sel(position_from_end=-1)[-1].item() == pytest.approx(0.488, abs=0.002)
    assert mean.sel(position_from_end=slice(None, -int(lengths.min()) - 1)).isnull().all()
    assert result["effect_interval"].sel(position_from_end=-1, layer=5).notnull().all()
    figure = analyses.plot(result)
    (trace,) = figure.data
    assert (
        f"mean over 50 pairs of {lengths.min()} to {lengths.max()} tokens, aligned at their ends"
        in figure.layout.title.text
    )
    assert np.asarray(trace.z).shape == (6, lengths.min())
    assert np.asarray(trace.z)[-1, -1] == pytest.approx(0.488, abs=0.002)
    assert list(figure.layout.xaxis.ticktext)[-1] == "-1"
    assert trace.customdata[5][-1][0] == "layer 5, position -1 (from the end)"
    assert "95 % interval" in trace.customdata[5][-1][1]
    table = strongest_cells(result)
    assert "position -1 (from the end)" in str(table.columns[0]._cells)
    one = analyses.plot(result, prompt=1)
    assert np.asarray(one.data[0].z).shape == (6, lengths[1])


def test_equally_long_prompts_stay_by_position():
    result = analyses.activation_patching(
        tiny(), random_tokens(3, 5, seed=1), random_tokens(3, 5, seed=2), **PAIR, smallest_gap=0.0
    )
    assert result["effect_mean"].dims == ("layer", "position")
    assert "position_from_end" not in result.dims
    assert analyses.plot(result).layout.title.text.endswith("mean over 3 pairs</sup>")


def test_every_analysis_of_pairs_aligns_them(tmp_path):
    model, clean, corrupt = tiny(), pairs(1), pairs(2)
    options = {**PAIR, "smallest_gap": 0.0}
    screened = analyses.attribution_patching(model, clean, corrupt, **options, site="resid_mid", verify=4)
    compared = analyses.compare_patching(model, clean, corrupt, **options, site="resid_mid")
    heads = analyses.compare_patching(model, clean, corrupt, **options, site="z", by_position=True)
    traced = analyses.causal_tracing(model, clean, subject=[1], draws=2, smallest_gap=0.0)
    exact = analyses.activation_patching(model, clean, corrupt, **options, site="resid_mid")
    moved = from_end(exact["effect"].to_numpy(), 2, LENGTHS)
    np.testing.assert_allclose(exact["effect_mean"], moved.mean(0))
    np.testing.assert_allclose(compared["moved_mean"][0], moved.mean(0), atol=1e-10)
    np.testing.assert_allclose(traced["effect_mean"], from_end(traced["effect"].to_numpy(), 2, LENGTHS).mean(0))
    assert heads["moved_mean"].dims == ("variant", "layer", "head", "position_from_end")
    there = from_end(screened["effect"].to_numpy(), 2, LENGTHS)
    checked = np.isfinite(there).any(0)
    assert checked.sum() == 4
    assert np.isfinite(there[:, checked]).all()  # the same cells of every pair, by their place from the end
    np.testing.assert_allclose(there[:, checked], moved[:, checked], atol=1e-10)
    np.testing.assert_allclose(screened["effect_mean"].to_numpy()[checked], moved.mean(0)[checked], atol=1e-10)
    cells = [compared["moved_mean"][number].to_numpy()[:, -4:].ravel() for number in range(2)]
    assert compared["rank_correlation"][0, 1].item() == pytest.approx(stats.spearmanr(*cells).statistic)
    for number, result in enumerate((screened, compared, heads, traced, exact)):
        figure = analyses.plot(result)
        assert "aligned at their ends" in figure.layout.title.text
        assert all(
            trace.z is None or np.asarray(trace.z).shape[-1] in (4, 6)
            for trace in figure.data
            if isinstance(trace, go.Heatmap)
        )
        analyses.save(result, tmp_path / f"{number}.nc")
        xr.testing.assert_identical(analyses.load(tmp_path / f"{number}.nc"), result)


def test_a_mean_by_index_of_an_older_result_is_not_drawn():
    result = analyses.activation_patching(tiny(), pairs(1), pairs(2), **PAIR, smallest_gap=0.0)
    old = result.drop_vars([name for name in result.data_vars if "position_from_end" in result[name].dims])
    with pytest.raises(ResultError, match="unequal length, so a mean over them by position mixes different tokens"):
        analyses.plot(old)
    analyses.plot(old, prompt=1)


@pytest.fixture(scope="module")
def one_equal():
    clean, corrupt = random_tokens(4, 5, seed=1), random_tokens(4, 5, seed=2)
    corrupt[2] = clean[2]
    return clean, corrupt


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_pair_without_an_effect_is_left_out_of_the_mean(one_equal, direction):
    options = {**PAIR, "direction": direction, "smallest_gap": 0.0}
    result = analyses.activation_patching(tiny(), *one_equal, **options)
    assert result["left_out"].to_numpy().tolist() == [False, False, True, False]
    assert result["effect"][2].isnull().all()
    kept = result["effect"].to_numpy()[[0, 1, 3]]
    np.testing.assert_allclose(result["effect_mean"], kept.mean(0))
    np.testing.assert_allclose(result["effect_standard_error"], kept.std(0, ddof=1) / np.sqrt(3))
    assert result["effect_mean"].attrs["long_name"].startswith("mean over 3 of 4 prompts")
    assert "mean over 3 of 4 pairs, the others' runs being equal" in analyses.plot(result).layout.title.text
    with pytest.raises(
        ResultError, match="pair 2: the logit difference of the clean and the corrupt run are nearly the same"
    ):
        analyses.activation_patching(tiny(), *one_equal, **options | {"smallest_gap": 1e-6})


def test_so_it_is_in_every_analysis_of_pairs(one_equal):
    options = {**PAIR, "smallest_gap": 0.0}
    model = tiny()
    compared = analyses.compare_patching(model, *one_equal, **options)
    assert compared["left_out"].to_numpy().tolist() == [[False, False, True, False]] * 6
    np.testing.assert_allclose(compared["moved_mean"], compared["moved"].to_numpy()[:, [0, 1, 3]].mean(1))
    assert compared["rank_correlation"].notnull().all()
    screened = analyses.attribution_patching(model, *one_equal, **options, verify=6)
    assert np.isfinite(screened["estimate_mean"]).all()
    assert screened["effect_mean"].notnull().sum() == 6
    assert screened["rank_correlation"].notnull()
    importance = analyses.head_importance(model, *one_equal, **options)
    assert np.isfinite(importance["importance_mean"]).all()
    assert importance["importance"].isel(prompt=2).isnull().all()
    for result in (compared, screened, importance):
        analyses.plot(result)


def test_with_one_pair_left_or_none(one_equal):
    clean, corrupt = one_equal
    options = {**PAIR, "smallest_gap": 0.0}
    one = analyses.activation_patching(tiny(), clean[1:3], corrupt[1:3], **options)
    np.testing.assert_allclose(one["effect_mean"], one["effect"][0])
    assert one["effect_standard_error"].isnull().all()
    none = analyses.activation_patching(tiny(), clean, clean, **options)
    assert none["left_out"].all()
    assert none["effect_mean"].isnull().all()
    assert analyses.compare_patching(tiny(), clean, clean, **options)["rank_correlation"].isnull().all()
    analyses.plot(none)


def test_metrics_of_few_values_leave_out_ties():
    """By rank two runs are often equal."""
    model, clean, corrupt = tiny(), random_tokens(8, 5, seed=1), random_tokens(8, 5, seed=2)
    result = analyses.activation_patching(model, clean, corrupt, answer=3, metric="rank", smallest_gap=0.0)
    assert np.isfinite(result["effect_mean"]).all()
    clean[:4] = corrupt[:4]
    result = analyses.activation_patching(model, clean, corrupt, answer=3, metric="rank", smallest_gap=0.0)
    assert result["left_out"].sum() >= 4
    assert np.isfinite(result["effect_mean"]).all()
