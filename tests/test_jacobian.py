"""Jacobians and Lyapunov exponents against dense ones, and against exact laws."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny
from hypothesis import given, settings
from scipy.special import digamma
from test_gain import centred_orthogonal, linear_model
from test_options import build, configs

import analyses
from analyses.cascade import gain, jacobian_spectrum, ledger, lyapunov, participation
from analyses.cascade.entering import Clean
from analyses.cascade.linear import blocks, linearised, top_singular
from analyses.cascade.lyapunov import exponents_beside
from interp import ModelConfig, Transformer
from interp.errors import InterpError, ResultError
from interp.geometry import basis


def centred(x):
    return x - x.mean(-1, keepdim=True)


CENTRE = torch.eye(16).double() - 1 / 16


def dense(model, tokens, start, stop):
    """[position out, d out, position in, d in], without the mean on either side."""
    linear = linearised(model, tokens, start, stop)
    with model.explicit_attention():
        whole = torch.func.jacrev(lambda x: model.run_blocks(x[None], start_at_layer=start, stop_at_layer=stop)[0])(
            linear.stream
        )
    return torch.einsum("ab,pbqc,cd->paqd", CENTRE, whole, CENTRE)


def test_products_equal_those_of_the_dense_jacobian():
    model, tokens = tiny(), random_tokens(1, 5)[0]
    whole, linear = dense(model, tokens, 1, 3), linearised(model, tokens, 1, 3)
    v, u = torch.randn(2, 4, 5, 16, dtype=torch.float64)
    torch.testing.assert_close(linear.jvp(v), torch.einsum("paqd,kqd->kpa", whole, v))
    torch.testing.assert_close(linear.vjp(u), torch.einsum("paqd,kpa->kqd", whole, u))
    difference = float(((u * linear.jvp(v)).sum((1, 2)) - (linear.vjp(u) * v).sum((1, 2))).abs().max())
    assert difference < 1e-10


def test_the_derivative_is_the_limit_of_differences():
    model, tokens = tiny(), random_tokens(1, 5)[0]
    linear = linearised(model, tokens, 0, 3)
    v = centred(torch.randn(5, 16, dtype=torch.float64))
    h = 1e-5
    up, down = (model.run_blocks((linear.stream + sign * h * v)[None])[0] for sign in (1, -1))
    torch.testing.assert_close(linear.jvp(v[None])[0], centred((up - down) / (2 * h)), atol=1e-7, rtol=1e-6)


def test_spectrum_equals_that_of_the_dense_jacobian():
    model, tokens = tiny(), random_tokens(2, 5)
    result = jacobian_spectrum(model, tokens, source=(0, 1), target=(3, 4), k=6)
    for row in range(2):
        block = dense(model, tokens[row], 0, 3)[4, :, 1]
        u, s, vh = torch.linalg.svd(block)
        one = result.isel(prompt=row)
        np.testing.assert_allclose(one["singular_value"], s[:6], rtol=1e-9)
        np.testing.assert_allclose(abs((torch.tensor(one["right_vector"].to_numpy()) * vh[:6]).sum(1)), 1, atol=1e-7)
        np.testing.assert_allclose(abs((torch.tensor(one["left_vector"].to_numpy()) * u.T[:6]).sum(1)), 1, atol=1e-7)
        assert float(one["frobenius"]) == pytest.approx(float(block.norm()), rel=1e-9)
        assert float(one["participation"]) == pytest.approx(float((s**2).sum() ** 2 / (s**4).sum()), rel=1e-9)
        expected = float((block @ block.T - block.T @ block).norm() / block.norm() ** 2)
        assert float(one["non_normality"]) == pytest.approx(expected, rel=1e-9)
        assert float(one["adjoint_error"]) < 1e-10
        assert float(one["residual"].max()) < 1e-9


def test_the_iterative_route_equals_the_dense_one():
    model, tokens = tiny(), random_tokens(2, 5)
    exact, found = (
        jacobian_spectrum(model, tokens, source=(0, 1), k=6, probes=4000, max_bytes=size) for size in (2**28, 1)
    )
    np.testing.assert_allclose(found["singular_value"], exact["singular_value"], rtol=1e-9)
    for side in ("left_vector", "right_vector"):
        np.testing.assert_allclose(abs((found[side] * exact[side]).sum("d_model")), 1, atol=1e-7)
    np.testing.assert_allclose(found["frobenius"], exact["frobenius"], rtol=0.01)
    np.testing.assert_allclose(found["participation"], exact["participation"], rtol=0.03)
    np.testing.assert_allclose(found["non_normality"], exact["non_normality"], rtol=0.05)
    assert jacobian_spectrum(model, tokens, source=(0, 1)).sizes["singular"] == 15
    assert jacobian_spectrum(model, tokens, source=(0, 1), max_bytes=1).sizes["singular"] == 10


def test_the_mean_is_a_direction_where_nothing_takes_it_away():
    """One block without norm that adds to each direction the sum of all: J = I + 11^T has singular values 9, 1, 1, ..."""
    one = torch.ones(8, 8).double()
    model = one_block(one)
    result = jacobian_spectrum(model, random_tokens(1, 3, vocab=30))
    np.testing.assert_allclose(result["singular_value"][0], [9, *[1] * 7], rtol=1e-9)
    exponents = lyapunov(model, random_tokens(1, 3, vocab=30))
    np.testing.assert_allclose(exponents["singular_exponent"][0], [math.log(9), *[0] * 7], atol=1e-9)
    typical = participation(model, random_tokens(1, 3, vocab=30))["log_rms_gain"][0, 0, -1]
    assert math.exp(float(typical)) == pytest.approx(math.sqrt(88 / 8))  # 3.317
    direction = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]]).double()
    entries = ledger(model, random_tokens(1, 3, vocab=30), directions=direction)
    assert entries["log_k"].item() == pytest.approx(math.log(11) / 2)  # of (2, 1, 1, 1, 1, 1, 1, 1)
    drawn = gain(model, random_tokens(4, 12, vocab=30), n_directions=200)["gain"][..., 1]
    assert float((drawn**2).mean()) == pytest.approx(11, rel=0.03)


def one_block(added):
    width = len(added)
    config = ModelConfig(
        n_layers=1, d_model=width, n_heads=2, d_head=4, d_mlp=2 * width, n_ctx=16, d_vocab=30, norm="none", activation="relu",
        bias=False, init_std=0.2,
    )  # fmt: skip
    model = Transformer(config).requires_grad_(False).double()
    (block,), one = model.blocks, torch.eye(width).double()
    block.attn.o.weight.zero_()
    block.mlp.input.weight.copy_(torch.cat([one, -one]))
    block.mlp.output.weight.copy_(torch.cat([added, -added], dim=1))
    return model


@settings(max_examples=10, deadline=None)
@given(options=configs)
def test_derivatives_equal_dense_ones_for_any_architecture(options):
    model, tokens = build(**options), random_tokens(1, 4)
    linear = linearised(model, tokens[0], 0, 3)
    with model.explicit_attention():
        whole = torch.func.jacrev(lambda x: model.run_blocks(x[None])[0])(linear.stream)
    rows = basis(model.config, whole)
    block = rows @ whole[3, :, 1] @ rows.T
    s = torch.linalg.svdvals(block)
    spectrum = jacobian_spectrum(model, tokens, source=(0, 1))
    np.testing.assert_allclose(spectrum["singular_value"][0], s, atol=1e-9 * float(s[0]))
    kept = participation(model, tokens)["participation"][0, 0, 1]
    if options["window"] is None and kept.notnull():
        assert float(kept) == pytest.approx(float(spectrum["participation"][0]), rel=1e-6)


def test_exponents_of_several_prompts_have_means():
    result = lyapunov(tiny(), random_tokens(6, 4), k=3)
    assert "exponent" in result.data_vars
    assert result["exponent_mean"].dims == ("mode",)
    np.testing.assert_allclose(result["exponent_mean"], result["exponent"].mean("prompt"))


def test_blocks_of_g_times_orthogonal():
    model = linear_model([1.3 * centred_orthogonal(seed) for seed in range(5)])
    result = jacobian_spectrum(model, random_tokens(1, 4, vocab=30))
    assert result.sizes["singular"] == 64
    np.testing.assert_allclose(result["singular_value"], 1.3**5, rtol=1e-9)
    np.testing.assert_allclose(result["participation"], 64, rtol=1e-9)
    np.testing.assert_allclose(result["non_normality"], 0, atol=1e-6)
    exponents = lyapunov(model, random_tokens(1, 4, vocab=30), k=20)
    for name in ("exponent", "singular_exponent"):
        np.testing.assert_allclose(exponents[name], math.log(1.3), rtol=1e-6)


def test_lyapunov_exponents_of_ginibre_products():
    """Nothing takes the mean away, so each block is the whole Ginibre matrix."""
    sigma, generator = 1.2, torch.Generator().manual_seed(0)
    found = []
    for _ in range(12):
        matrices = [sigma * torch.randn(64, 64, generator=generator).double() / 8 for _ in range(5)]
        found.append(lyapunov(linear_model(matrices), random_tokens(1, 2, vocab=30), k=64)["growth"][0].to_numpy())
    mean = np.mean(found, axis=(0, 1))  # QR of each factor is exact for Ginibre matrices, layer by layer
    expected = [0.5 * (math.log(2 * sigma**2 / 64) + digamma((64 - i) / 2)) for i in range(64)]
    np.testing.assert_allclose(mean[:40], expected[:40], atol=0.06)
    assert abs(np.mean(mean - expected)) < 0.02


def test_exponents_sum_to_the_determinant_and_the_largest_singular_values_are_exact():
    generator = torch.Generator().manual_seed(1)
    matrices = [torch.eye(64).double() + torch.randn(64, 64, generator=generator).double() / 10 for _ in range(5)]
    model, tokens = linear_model(matrices), random_tokens(1, 3, vocab=30)
    result = lyapunov(model, tokens, k=64)
    product = torch.eye(64).double()
    for matrix in matrices:
        product = matrix.T @ product
    s = torch.linalg.svdvals(product)
    assert float(result["exponent"].sum()) == pytest.approx(float(s.log().sum()) / 5, abs=1e-8)
    np.testing.assert_allclose(result["singular_exponent"][0], s.log() / 5, atol=1e-9)
    with pytest.raises(InterpError, match="k must be 1 to 64"):
        lyapunov(model, tokens, k=65)


def test_the_whole_state_equals_the_dense_one():
    model, tokens = tiny(), random_tokens(1, 4)
    result = lyapunov(model, tokens, k=5, position=None)
    product = torch.eye(64).double()
    for layer in range(3):
        block = dense(model, tokens[0], layer, layer + 1).reshape(64, 64)
        product = block @ product
    np.testing.assert_allclose(result["singular_exponent"][0], torch.linalg.svdvals(product)[:5].log() / 3, atol=1e-5)
    assert result.sizes["mode"] == 5


def test_on_site_leaves_out_what_goes_elsewhere():
    model, tokens = tiny(), random_tokens(1, 4)
    product = torch.eye(16).double()
    for layer, linear in enumerate(blocks(Clean.of(model, tokens).linearised(0))):
        block = dense(model, tokens[0], layer, layer + 1)[3, :, 3]
        forward, _ = linear.on_site(3, 3)
        torch.testing.assert_close(forward(torch.eye(16).double()).T, block)
        product = block @ product
    result = lyapunov(model, tokens, k=4)
    np.testing.assert_allclose(result["singular_exponent"][0], torch.linalg.svdvals(product)[:4].log() / 3, atol=1e-9)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "none"])
def test_exponents_beside_a_spectrum_equal_those_without(norm):
    """The spectrum's singular values are those of the product of the blocks, and are not computed twice."""
    model, tokens = tiny(config=replace(TINY, norm=norm)), random_tokens(2, 5)
    spectrum = jacobian_spectrum(model, tokens, source=(0, -1), k=None)
    found, whole = exponents_beside(model, tokens, spectrum, k=6, seed=3), lyapunov(model, tokens, k=6, seed=3)
    assert found.attrs["parameters"] == whole.attrs["parameters"]
    for name in ("growth", "exponent", "singular_exponent"):
        np.testing.assert_allclose(found[name], whole[name], atol=1e-9)


def graded(dtype):
    """24 blocks, each of which writes twice as much as the one before: singular values over ten orders of magnitude."""
    model = tiny(config=replace(TINY, norm="rmsnorm", n_layers=24))
    for layer, block in enumerate(model.blocks):
        for part in (block.attn.o, block.mlp.output):
            part.weight.mul_(2.0**layer)
    return model.to(dtype)


def test_values_far_below_the_largest_are_those_of_float64():
    tokens = random_tokens(1, 5)
    single, double = (jacobian_spectrum(graded(dtype), tokens) for dtype in (torch.float32, torch.float64))
    sizes = double["singular_value"][0].to_numpy()
    assert sizes[-1] < 1e-10 * sizes[0]  # what a float32 chain of all blocks would lose
    np.testing.assert_allclose(single["singular_value"][0], sizes, rtol=1e-3)
    found = exponents_beside(graded(torch.float32), tokens, single, k=16, seed=0)["singular_exponent"][0]
    np.testing.assert_allclose(found, np.log(sizes) / 24, atol=1e-4)


def test_the_residual_says_what_rounding_leaves_of_small_values():
    tokens = random_tokens(1, 5)
    apart, exact = (
        jacobian_spectrum(graded(dtype), tokens, source=(0, 2), target=(24, 4)).isel(prompt=0)
        for dtype in (torch.float32, torch.float64)
    )
    wrong = abs(apart["singular_value"] / exact["singular_value"] - 1).to_numpy()
    assert wrong.max() > 1e-2
    assert (wrong <= 30 * apart["residual"]).all()
    assert float(jacobian_spectrum(graded(torch.float32), tokens)["residual"].max()) < 1e-4


def test_the_figure_leaves_out_what_is_all_rounding():
    result = jacobian_spectrum(graded(torch.float32), random_tokens(1, 5))
    assert "rounding" not in analyses.plot(result).layout.title.text
    result["residual"].values[0, -2:] = 1.0, 40.0
    figure = analyses.plot(result)
    assert "; 2 values lost to rounding left out" in figure.layout.title.text.replace("<br>", " ")
    np.testing.assert_array_equal(np.isnan(figure.data[0].y), [False] * 14 + [True] * 2)


@pytest.mark.parametrize(("dtype", "left"), [(torch.float32, 14), (torch.float64, 15)])
def test_a_direction_that_a_norm_takes_away_has_no_exponent(dtype, left):
    """A layer norm behind each half block takes the mean away, and all but 1e-10 of the direction that it has scaled."""
    model, tokens = tiny(config=replace(TINY, norm_placement="post")).to(dtype), random_tokens(2, 5)
    result = lyapunov(model, tokens, k=16)
    spectrum = jacobian_spectrum(model, tokens)
    beside = exponents_beside(model, tokens, spectrum, k=16, seed=0)
    for found in (result, beside):
        for name, there in (("exponent", left), ("singular_exponent", 14)):
            assert np.isfinite(found[name][:, :there]).all()
            assert np.isnan(found[name][:, there:]).all()
    np.testing.assert_allclose(result["exponent"][:, :left], beside["exponent"][:, :left], atol=1e-3)


@pytest.mark.parametrize("k", [1, 7, 20])
def test_flat_spectra_converge(k):
    """Attention only, before training: singular values from 0.84 to 1.2, close together."""
    config = ModelConfig(n_layers=4, d_model=64, n_heads=4, d_head=16, d_mlp=256, n_ctx=16, d_vocab=50, mlp="none")
    model, tokens = Transformer(config, seed=2).requires_grad_(False), random_tokens(1, 5)
    whole, found = (jacobian_spectrum(model, tokens, k=k, max_bytes=size)["singular_value"] for size in (2**28, 1))
    assert 0.8 < float(whole[0, -1]) <= float(whole[0, 0]) < 1.3
    np.testing.assert_allclose(found, whole, rtol=1e-5)
    state = lyapunov(model, tokens[:, :3], k=k, position=None)["singular_exponent"][0]
    with model.explicit_attention():
        dense_map = torch.func.jacrev(lambda x: model.run_blocks(x[None])[0])(model.embed(tokens[:, :3])[0])
    rows = torch.block_diag(*[basis(config, dense_map)] * 3)
    s = torch.linalg.svdvals(rows @ dense_map.reshape(192, 192) @ rows.T)
    np.testing.assert_allclose(state, s[:k].log() / 4, atol=1e-6)


def test_what_does_not_converge_is_an_error():
    values = torch.ones(40).double()
    with pytest.raises(ResultError, match="did not converge"):
        top_singular(lambda v: v * values, lambda u: u * torch.linspace(1, 2, 40).double(), values, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": (4, 0)}, "is not a place"),
        ({"source": (0, 7)}, "is not a place"),
        ({"source": (2, 0), "target": (1, 3)}, "higher layer"),
        ({"source": (0, 3), "target": (3, 1)}, "no earlier"),
        ({"k": 16}, "k must be 1 to 15"),
    ],
)
def test_requests_that_cannot_be(change, message):
    with pytest.raises(InterpError, match=message):
        jacobian_spectrum(tiny(), random_tokens(1, 5), **change)


@pytest.mark.parametrize("change", [{"source": (0, 0)}, {"source": (0, -5)}, {"source": (0, 2), "target": (3, 0)}])
def test_a_position_that_is_set_apart_is_neither_source_nor_target(smalltown, change):
    with pytest.raises(InterpError, match="jacobian_spectrum: position .* is set apart"):
        jacobian_spectrum(smalltown, "Anna went home.", bos=True, **change)
    jacobian_spectrum(smalltown, "Anna went home.", bos=False, source=(0, 0), k=2)  # a token like others
    with pytest.raises(InterpError, match="is set apart"):
        jacobian_spectrum(smalltown, torch.tensor([[smalltown.tokenizer.bos]]))


def test_participation_of_every_place_equals_that_of_the_dense_jacobian():
    model, tokens = tiny(), random_tokens(2, 5)
    result = participation(model, tokens, position=3, layer=1)
    for row in range(2):
        for layer in (1, 2):
            for at in range(4):
                block = dense(model, tokens[row], layer, 3)[3, :, at]
                s = torch.linalg.svdvals(block)
                there = result.sel(layer=layer, position=at).isel(prompt=row)
                assert float(there["participation"]) == pytest.approx(float((s**2).sum() ** 2 / (s**4).sum()))
                assert float(there["log_rms_gain"]) == pytest.approx(math.log(float((s**2).sum()) / 15) / 2)
    assert result.sel(position=4)["participation"].isnull().all()  # after the target: nothing arrives
    figure = analyses.plot(result, prompt=1)
    np.testing.assert_allclose(figure.data[0].z, result["participation"][1])
    assert (figure.data[1].zmid, figure.data[0].zmid) == (0, None)
    assert "position 3" in figure.layout.title.text
    short = torch.cat([tokens[:, :4], torch.full((2, 1), -1)], dim=1)
    np.testing.assert_allclose(
        participation(model, short)["participation"][:, 1:, :4], result["participation"][..., :4]
    )


def test_participation_is_estimated_by_random_directions():
    model, tokens = tiny(), random_tokens(1, 5)
    exact = participation(model, tokens)
    drawn = [participation(model, tokens, probes=24, seed=seed) for seed in range(40)]
    for name in ("participation", "log_rms_gain"):
        found = np.stack([one[name].to_numpy() for one in drawn])
        errors = np.stack([one[f"{name}_standard_error"].to_numpy() for one in drawn])
        truth = exact[name].to_numpy()
        assert (np.isnan(found) == np.isnan(truth)).all()
        off = (found.mean(0) - truth) / (found.std(0) / math.sqrt(len(drawn)))
        assert np.nanmax(np.abs(off)) < 5  # no bias to speak of
        spread = np.nanmean(errors, 0) / found.std(0)
        assert 0.7 < np.nanmin(spread) <= np.nanmax(spread) < 1.6
        within = np.abs(found - truth) < 2 * errors
        assert within[~np.isnan(found)].mean() > 0.88
    assert "24 random directions" in analyses.plot(drawn[0]).layout.title.text
    assert drawn[0].attrs["seed"] == "0"
    with pytest.raises(InterpError, match="probes must be at least 8"):
        participation(model, tokens, probes=7)


@pytest.mark.parametrize("place", [{"position": 5}, {"position": -6}, {"layer": 3}])
def test_participation_of_places_that_are_not_there(place):
    with pytest.raises(InterpError, match="layers are 0 to 2 and positions 0 to 4"):
        participation(tiny(), random_tokens(1, 5), **place)
