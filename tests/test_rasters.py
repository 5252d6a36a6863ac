"""Rasters: independent cells, planted ratios, and nulls that keep the marginals."""

from inspect import unwrap
from itertools import permutations, product

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
from analyses.cascade import coupled, gain, random_twin, rasters
from analyses.cascade.rasters import against_nulls, branching, can_differ, largest, over_directions
from analyses.report.cascade_sentences import rasters_read
from interp.errors import InterpError, ResultError


@pytest.mark.parametrize("rate", [0.1, 0.4])
@pytest.mark.parametrize("columns", [2, 12])
def test_independent_cells_have_their_rate_and_no_difference(rate, columns):
    """b = rho (T-1)/T: the last column's cells have no next one."""
    rng = np.random.default_rng(0)
    cells = rng.random((400, 60, columns)) < rate
    b = branching(cells)
    assert b.mean() == pytest.approx(rate * (columns - 1) / columns, abs=4 * b.std() / 20)
    found = np.array([against_nulls(one, 20, rng) for one in cells])
    for null in (1, 2):
        difference = found[:, 0] - found[:, null]
        assert np.nanmean(difference) == pytest.approx(0, abs=4 * np.nanstd(difference) / 20)  # NaN: a column is empty


@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_a_planted_ratio_is_recovered(ratio):
    """Active cells stay so with that probability, and others become active as often as keeps the rate at a tenth."""
    rng, rate, columns = np.random.default_rng(0), 0.1, 20
    cells = np.empty((2000, columns), dtype=bool)
    cells[:, 0] = rng.random(2000) < rate
    for t in range(1, columns):
        chance = np.where(cells[:, t - 1], ratio, rate * (1 - ratio) / (1 - rate))
        cells[:, t] = rng.random(2000) < chance
    assert branching(cells) == pytest.approx(ratio * (columns - 1) / columns, abs=0.02)
    own, permuted, shifted, *p = against_nulls(cells, 50, rng)
    for null in (permuted, shifted):
        assert own - null == pytest.approx((ratio - rate) * (columns - 1) / columns, abs=0.03)
    assert p == [0, 0]


def test_the_nulls_keep_how_much_is_active_in_each_column():
    """Either null's mean is sum n_t n_(t+1) / units over all that is active, and the shifted one keeps stretches of tokens."""
    rng = np.random.default_rng(0)
    cells = np.zeros((12, 3), dtype=bool)
    cells[:3, 0] = cells[2:8, 1] = cells[5:6, 2] = True
    own, permuted, shifted, *_ = against_nulls(cells, 20_000, rng)
    assert own == pytest.approx((1 + 1) / 10)
    for null in (permuted, shifted):
        assert null == pytest.approx((3 * 6 / 12 + 6 * 1 / 12) / 10, abs=0.003)
    assert np.isnan(against_nulls(np.zeros((3, 3), dtype=bool), 5, rng)).all()
    assert np.isnan(against_nulls(np.ones((3, 3), dtype=bool), 5, rng)).all()


def test_a_null_is_known_where_some_order_of_it_has_another_b():
    """Against all orders of every raster of up to 3 units and 3 columns, each column in any order or moved on by any number."""
    for units, columns in product((1, 2, 3), (2, 3)):
        for cells in product((False, True), repeat=units * columns):
            raster = np.array(cells).reshape(units, columns)
            if raster.any() and not raster.all():
                assert can_differ(raster).tolist() == [differs(raster, moved) for moved in (False, True)]
    alike_when_moved = np.array([[1, 0, 1, 0], [1, 1, 0, 0]], dtype=bool).T
    assert (
        can_differ(alike_when_moved).tolist() == [True, False] == [differs(alike_when_moved, m) for m in (False, True)]
    )


def differs(raster, moved):
    """By trying: whether any order of the columns has another branching ratio."""
    units, columns = raster.shape
    whole = list(range(units))
    orders = [whole[n:] + whole[:n] for n in range(units)] if moved else list(permutations(whole))
    tried = [
        branching(np.stack([raster[list(order), column] for column, order in enumerate(one)], axis=1))
        for one in product(orders, repeat=columns)
    ]
    return len({float(b) for b in tried}) > 1


def test_directions_that_are_not_known_are_left_out():
    nan = np.nan
    each = [np.array([0.5, 0.2, 0.3, 0.1, 0.2]), np.array([0.1, nan, 0.1, nan, 0.4])]
    np.testing.assert_allclose(over_directions(each), [0.3, 0.2, 0.2, 0.3, 0.1, 0.1, 0.3])
    assert np.isnan(over_directions([np.full(5, nan)])).all()


def test_one_draw_says_nothing_of_texts():
    """A single row is the same in any order: its difference of zero is no result."""
    model, tokens = tiny(), random_tokens(7, 6)
    texts = coupled(model, tokens, seeds=1, steps=12)
    result = rasters(model, tokens, texts=texts, n_directions=2, draws=20)
    text = result.sel(raster="text")
    assert np.isfinite(text["branching"]).any()
    for name in ("null_branching", "difference", "p", "difference_mean", "difference_interval"):
        assert np.isnan(text[name]).all()
    assert np.isfinite(result["difference_interval"].sel(raster="depth")).all()
    assert "text it is not known, since in any order it would be the same" in rasters_read(result)


def test_the_largest_cells_by_hand():
    values = np.array([[0.1, 0.5], [0.4, 0.5], [0.2, 0.0]])
    assert largest(values, 0.5).tolist() == [[False, True], [True, True], [False, False]]
    assert largest(values, 1 / 6).tolist() == [[False, True], [False, False], [False, False]]
    assert largest(values, 0.01).sum() == 1


def test_sizes_are_those_of_the_injections():
    """|delta| / |x| at the injected position is Gamma on site, as `gain` has it."""
    model, tokens = tiny(), random_tokens(6, 7)
    result = rasters(model, tokens, n_directions=2, position=3, dose=1e-2, seed=5)
    along = torch.eye(model.config.d_model, dtype=torch.float64)[:2]
    along = along - along.mean(-1, keepdim=True)
    along = along / along.norm(dim=-1, keepdim=True)
    own = rasters(model, tokens, directions=along, n_directions=2, position=3)
    expected = gain(model, tokens, directions=along, dose=1e-2)["relative_gain"].sel(injection=3, layer=slice(1, None))
    np.testing.assert_allclose(
        own["relative"].sel(position=3), np.exp(np.log(expected).mean("direction")).to_numpy(), rtol=1e-6
    )
    assert np.isnan(result["relative"].sel(position=slice(0, 2))).all()
    active = result["active"].sel(position=slice(3, None)).to_numpy()
    np.testing.assert_allclose(active.mean((1, 2)), round(0.2 * 12) / 12)
    np.testing.assert_allclose(
        result["difference"], result["branching"].to_numpy() - result["null_branching"].to_numpy()
    )


def test_texts_the_twin_and_the_figure():
    model, tokens = tiny(), random_tokens(6, 7)
    texts = coupled(model, tokens, seeds=8, steps=12)
    result = rasters(model, tokens, texts=texts)
    assert result["raster"].to_numpy().tolist() == ["depth", "text"]
    expected = branching(texts["aligned_damage"].to_numpy() > 0)
    np.testing.assert_allclose(result["branching"].sel(raster="text"), expected)
    null = rasters(random_twin(model), tokens)
    figure = analyses.plot(result, null=null, prompt=2)
    np.testing.assert_array_equal(figure.data[0].z, result["active"][2])
    means = [float(trace.x[0]) for trace in figure.data[1:] if trace.marker.symbol == "diamond"]
    for which in (result, null):
        assert any(np.isclose(means, float(which["difference"].sel(raster="depth", null="permuted").mean())))
    with pytest.raises(ResultError, match="on the same 6 prompts"):
        rasters(model, tokens, texts=texts.isel(prompt=slice(0, 3)))
    with pytest.raises(ResultError, match="on the same 6 prompts"):
        rasters(model, tokens.flip(0), texts=texts)


def test_a_dose_that_overflows_is_told():
    model, tokens = tiny(dtype=torch.float32), random_tokens(2, 6)
    with pytest.raises(ResultError, match=r"at dose 1e\+38 .* overflows in torch.float32. Lower the dose"):
        rasters(model, tokens, dose=1e38)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": 1.0}, "between 0 and 1"),
        ({"position": 3}, "nothing comes after position 3"),
        ({"layer": 2}, "one block only"),
        ({"dose": 0.0}, "dose 0 is out of range"),
        ({"rate": float("nan")}, "between 0 and 1"),
    ],
)
def test_requests_that_cannot_be(options, said):
    with pytest.raises(InterpError, match=said):
        rasters(tiny(), random_tokens(2, 4), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": "x"}, "a number between 0 and 1, got 'x'"),
        ({"texts": 3}, "must be a result of analyses.cascade.coupled"),
    ],
)
def test_the_wrong_kind_of_argument_is_told(options, said):
    with pytest.raises(InterpError, match=said):  # past the type check, which users do not have
        unwrap(rasters)(tiny(), random_tokens(2, 4), **options)
