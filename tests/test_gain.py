"""Gain: blocks whose growth is known exactly, the controls, and the slow twin."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny
from hypothesis import given, settings
from test_options import build, configs
from torch import nn

from analyses.cascade import dose_response, gain, ledger, light_cone, lyapunov, mean_field, participation, random_twin
from analyses.cascade import gain as gain_function
from analyses.cascade.directions import KINDS, draw
from analyses.cascade.entering import Clean
from analyses.cascade.gain import doubling_depth
from analyses.cascade.injection import check_causal, check_controls, inject
from analyses.cascade.laws import fit
from analyses.cascade.linear import linearised
from interp import PAD, ModelConfig, Transformer
from interp.errors import InterpError, ResultError, TokenError
from interp.streams import streams


def linear_model(matrices):
    """Real blocks, without norms and with idle heads, that multiply the stream of each position by a matrix M: x + (M - 1) x."""
    config = ModelConfig(
        n_layers=5, d_model=64, n_heads=2, d_head=32, d_mlp=128, n_ctx=16, d_vocab=30, norm="none", activation="relu",
        bias=False, init_std=0.2,
    )  # fmt: skip
    model = Transformer(config).requires_grad_(False).double()
    one = torch.eye(64).double()
    for block, matrix in zip(model.blocks, matrices, strict=True):
        block.attn.o.weight.zero_()
        block.mlp.input.weight.copy_(torch.cat([one, -one]))  # relu(x) - relu(-x) is x
        added = (matrix - one).T
        block.mlp.output.weight.copy_(torch.cat([added, -added], dim=1))
    return model


def centred_orthogonal(seed):
    """An orthogonal matrix that maps vectors without a mean to vectors without a mean."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(64, 1), torch.randn(64, 63, generator=generator)], 1).double())
    turn, _ = torch.linalg.qr(torch.randn(63, 63, generator=generator).double())
    return basis @ torch.block_diag(torch.ones(1, 1, dtype=torch.float64), turn) @ basis.T


def test_identity_blocks_have_k_1():
    result = gain(linear_model([torch.eye(64).double()] * 5), random_tokens(2, 6, vocab=30))
    np.testing.assert_allclose(result["gain"], 1, atol=1e-6)
    np.testing.assert_allclose(result["relative_gain"], 1, atol=1e-6)
    np.testing.assert_allclose(result["reproduction"][:, :-1], 1, atol=1e-6)


@pytest.mark.parametrize("g", [0.5, 1.3])
def test_blocks_of_g_times_orthogonal_have_k_g(g):
    model = linear_model([g * centred_orthogonal(seed) for seed in range(5)])
    result = gain(model, random_tokens(6, 6, vocab=30))
    np.testing.assert_allclose(result["reproduction"][:, :-1], g, rtol=1e-6)
    np.testing.assert_allclose(result["gain"][0, 0, 0], g ** np.arange(6), rtol=1e-6)
    np.testing.assert_allclose(result["relative_gain"], 1, rtol=1e-6)  # the stream grows as the disturbance does
    np.testing.assert_allclose(result["doubling_depth"], math.log(2) / math.log(g), rtol=1e-6)
    np.testing.assert_allclose(result["log_gain_interval"][:, -1], 5 * math.log(g), rtol=1e-6)
    np.testing.assert_allclose(result["log_reproduction_interval"][:, :-1], math.log(g), rtol=1e-6)


def test_growth_that_is_not_told_from_none_never_doubles():
    same = np.full(6, 0.5)
    assert doubling_depth(same, 4) == pytest.approx(math.log(2) * 8)
    assert doubling_depth(-same, 4) == pytest.approx(-math.log(2) * 8)
    assert doubling_depth(np.array([-0.5, 0.4, 0.5, -0.3, 0.6, -0.4]), 4) == math.inf
    assert doubling_depth(np.array([0.5, 0.3]), 4) == pytest.approx(math.log(2) * 10)  # no interval to ask
    assert doubling_depth(np.array([1e-9, -2e-9]), 4, slack=1e-8) == math.inf
    identity = gain(linear_model([torch.eye(64).double()] * 5), random_tokens(6, 3, vocab=30))
    assert float(identity["doubling_depth"]) == math.inf


def test_three_relative_growths_where_streams_grow_unlike():
    """Half of the directions grow by a fifth, half shrink by it; token 1 lies in the first half, token 2 in the second. A disturbance
    of the first half at token 1 grows as its stream does; the stream of both positions does not."""
    factors = torch.tensor([1.2, 1 / 1.2], dtype=torch.float64).repeat_interleave(32)
    model = linear_model([torch.diag(factors)] * 5)
    model.W_E[1:3] = torch.eye(64).double()[[0, 40]]
    model.W_pos.zero_()
    tokens, direction = torch.tensor([[2, 1]]), torch.eye(64)[1:2].double()
    one = gain(model, tokens, directions=direction).sel(injection=1).isel(prompt=0, direction=0)
    np.testing.assert_allclose(one["gain"], 1.2 ** np.arange(6))
    np.testing.assert_allclose(one["relative_gain"], 1)  # Gamma, on site
    np.testing.assert_allclose(one["whole_relative_gain"], 1)
    both = gain(model, tokens, directions=direction)["relative_reproduction"][0, :-1]
    np.testing.assert_allclose(
        both, math.sqrt(1.2 * 1.2), rtol=1e-9
    )  # in token 2's place it grows 1.2 ** 2 as fast as its stream
    found = ledger(model, tokens, directions=direction, position=1).isel(prompt=0)
    np.testing.assert_allclose(found["log_k"], math.log(1.2))
    energies = 1.2 ** (2.0 * np.arange(6)) + 1.2 ** (-2.0 * np.arange(6))
    np.testing.assert_allclose(found["log_stream_growth"], np.diff(np.log(energies)) / 2, atol=1e-12)


def test_relative_growth_over_all_positions_is_against_the_stream_at_each():
    model, tokens = tiny(), random_tokens(1, 5)
    result = gain(model, tokens, dose=0.05, n_directions=2, seed=4)
    cone = light_cone(model, tokens, dose=0.05, n_directions=2, seed=4)
    sizes = torch.stack(streams(model, tokens))[:, 0]
    sizes = (sizes - sizes.mean(-1, keepdim=True)).norm(dim=-1).numpy()  # [layer, position]
    injected = (0.05 * sizes[0]) ** 2  # energy of each injection
    share = cone["share"][0].to_numpy()  # [injection, layer, position], mean over directions
    expected = (share * injected[:, None, None] / sizes**2).sum(-1) / 0.05**2
    np.testing.assert_allclose(np.square(result["whole_relative_gain"][0]).mean("direction"), expected, rtol=1e-9)
    assert (result["whole_relative_gain"] >= result["relative_gain"] * (1 - 1e-12)).all()
    last = result.isel(injection=-1)
    np.testing.assert_allclose(last["whole_relative_gain"], last["relative_gain"])  # it has nowhere to go
    np.testing.assert_allclose(
        result["log_whole_relative_gain"][0], np.log(result["whole_relative_gain"][0]).mean(("injection", "direction"))
    )


def test_ginibre_blocks_have_rms_k_g():
    generator = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(6):
        matrices = [1.2 * torch.randn(64, 64, generator=generator).double() / 8 for _ in range(5)]
        result = gain(linear_model(matrices), random_tokens(1, 4, vocab=30), n_directions=40)
        ratios.append(result["gain"].to_numpy()[..., 1] ** 2)
    rms = np.sqrt(np.mean(ratios))
    assert rms == pytest.approx(1.2, rel=0.03)


def test_equals_two_whole_runs_with_a_hook():
    model, tokens = tiny(), random_tokens(1, 6)
    result = gain(model, tokens, dose=0.05, layer=1, n_directions=2, seed=4)
    directions = torch.randn(6, 2, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    names = ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.2.hook_resid_post"]
    centre = lambda x: x - x.mean(-1, keepdim=True)  # noqa: E731
    _, clean = model.run_with_cache(tokens, names)
    for position in range(6):
        unit = centre(directions[position, 1])
        delta = 0.05 * centre(clean[names[0]][0, position]).norm() * unit / unit.norm()

        def inject(value, hook, position=position, delta=delta):
            value[0, position] += delta

        with model.hooks({names[0]: inject}):
            _, disturbed = model.run_with_cache(tokens, names)
        energies = [float(centre(disturbed[n] - clean[n]).pow(2).sum()) for n in names]
        found = result["gain"].to_numpy()[0, position, 1]
        np.testing.assert_allclose(found, [math.sqrt(e / energies[0]) for e in energies], rtol=1e-10)
        on_site = [
            float(centre(disturbed[n] - clean[n])[0, position].norm() / centre(clean[n])[0, position].norm()) / 0.05
            for n in names
        ]
        np.testing.assert_allclose(result["relative_gain"].to_numpy()[0, position, 1], on_site, rtol=1e-10)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_direction_is_unit_and_has_no_mean(kind):
    model, tokens = tiny(), random_tokens(2, 5)
    stream, clean = model.embed(tokens), Clean.of(model, tokens)
    places = torch.tensor([[0, 2], [1, 4]])
    drawn = draw(clean, 0, places, kind, 3, 7, "test")
    assert drawn.shape == (2, 3, 16)
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(2, 3).double())
    torch.testing.assert_close(drawn.mean(-1), torch.zeros(2, 3).double(), atol=1e-12, rtol=0)
    again = draw(clean, 0, places, kind, 3, 7, "test")
    assert torch.equal(drawn, again)
    centre = lambda x: x - x.mean(-1, keepdim=True)  # noqa: E731
    sources = {"token": model.W_E, "unembedding": model.W_U.T, "activation": stream.flatten(0, 1)}
    if kind in sources:
        rows = centre(sources[kind])
        every = torch.nn.functional.normalize(rows[:, None] - rows[None], dim=-1).flatten(0, 1)
        assert float((drawn.reshape(-1, 16) @ every.T).max(1).values.min()) > 1 - 1e-9


def test_prompts_that_begin_alike_still_differ_somewhere():
    model, tokens = tiny(), random_tokens(1, 4).repeat(3, 1)
    tokens[:, 3] = torch.tensor([1, 2, 3])
    drawn = draw(Clean.of(model, tokens), 0, torch.tensor([[0, 1]]), "activation", 200, 0, "test")
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(1, 200).double())


def test_directions_drawn_from_the_covariance_have_it():
    model, tokens = tiny(), random_tokens(8, 12)
    stream = model.embed(tokens) * torch.linspace(0.1, 3, 16).double()
    clean = replace(Clean.of(model, tokens), entering=[stream])
    drawn = draw(clean, 0, torch.tensor([[0, 1]]), "covariance", 20000, 0, "test")[0]
    rows = stream.flatten(0, 1)
    rows = rows - rows.mean(-1, keepdim=True)
    covariance = torch.cov(rows.T)
    found = drawn.T @ drawn / len(drawn)
    main, expected = torch.linalg.eigh(found)[1][:, -1], torch.linalg.eigh(covariance)[1][:, -1]
    assert abs(float(main @ expected)) > 0.98


def test_planted_diagonal_gains():
    """A block that stretches each direction by its own factor: the gain of a direction is its factor, and the singular one the largest."""
    basis = torch.linalg.qr(
        torch.cat([torch.ones(64, 1), torch.randn(64, 63, generator=torch.Generator().manual_seed(0))], 1).double()
    )[0]
    factors = torch.cat([torch.ones(1), torch.linspace(0.5, 1.5, 63)]).double()
    stretch = basis @ torch.diag(factors) @ basis.T
    model, tokens = linear_model([stretch] * 5), random_tokens(1, 4, vocab=30)
    own = basis[:, [1, 32, 63]].T
    result = gain(model, tokens, directions=own)
    for number, factor in enumerate(factors[[1, 32, 63]].tolist()):
        np.testing.assert_allclose(result["gain"][0, :, number], factor ** np.arange(6)[None].repeat(4, 0), rtol=1e-5)
    largest = gain(model, tokens, directions="singular", n_directions=1)
    np.testing.assert_allclose(largest["gain"][0, :, 0, -1], 1.5**5, rtol=1e-3)


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ("isotopic", "Did you mean 'isotropic'"),
        (torch.ones(2, 5), "expected .direction, 16."),
        (torch.ones(1, 16), "is zero once its mean is taken away"),
        (torch.zeros(1, 16), "is zero"),
    ],
)
def test_directions_that_cannot_be(directions, message):
    with pytest.raises(InterpError, match=message):
        gain(tiny(), random_tokens(1, 5), directions=directions)


def test_growth_relative_to_the_stream():
    model = linear_model([1.3 * centred_orthogonal(seed) for seed in range(5)])
    result = gain(model, random_tokens(2, 6, vocab=30))
    np.testing.assert_allclose(result["relative_reproduction"][:, :-1], 1, rtol=1e-6)
    np.testing.assert_allclose(result["stream_growth"], np.broadcast_to(1.3 ** np.arange(6), (2, 6, 6)), rtol=1e-6)


def test_position_0_is_a_token_like_others_where_nothing_sets_it_apart():
    result = gain(tiny(), random_tokens(2, 6), layer=1)
    assert result["injection"].to_numpy().tolist() == [0, 1, 2, 3, 4, 5]
    assert json.loads(result.attrs["parameters"])["set_apart"]["massive"] == []
    assert result["layer"].to_numpy().tolist() == [1, 2, 3]
    np.testing.assert_allclose(result["gain"][..., 0], 1)
    np.testing.assert_allclose(result["relative_gain"][..., 0], 1, rtol=1e-6)


def test_chunks_change_nothing():
    arguments = {"n_directions": 3, "seed": 1}
    whole, parts = (gain(tiny(), random_tokens(1, 6), max_bytes=size, **arguments) for size in (2**28, 1))
    np.testing.assert_allclose(whole["gain"], parts["gain"], rtol=1e-6)


def test_small_doses_agree_and_float32_agrees_with_float64():
    tokens = random_tokens(1, 8)
    linear = gain(tiny(), tokens, dose=1e-6)["log_gain"].to_numpy()
    small = gain(tiny(), tokens, dose=1e-4)["log_gain"].to_numpy()
    np.testing.assert_allclose(linear, small, atol=1e-3)
    single = gain(tiny(dtype=torch.float32), tokens, dose=1e-2)["log_gain"].to_numpy()
    double = gain(tiny(), tokens, dose=1e-2)["log_gain"].to_numpy()
    np.testing.assert_allclose(single, double, atol=1e-3)


def test_unequal_prompts_equal_their_own_runs(smalltown):
    both = gain(smalltown, ["Mary went to the store", "John"], n_directions=2)
    alone = gain(smalltown, "Mary went to the store", n_directions=2)
    np.testing.assert_allclose(both["gain"][0], alone["gain"][0], rtol=1e-4)
    assert both["gain"][1, 1:].isnull().all()
    assert both["gain"][1, 0].notnull().all()
    assert both["log_gain_interval"].isnull().all()  # two prompts have no interval


def test_padding_before_a_prompt_changes_nothing():
    model, tokens = tiny(), random_tokens(2, 6)
    right, left = tokens.clone(), tokens.clone()
    right[1, 4:] = PAD
    left[1] = torch.cat([torch.tensor([PAD, PAD]), tokens[1, :4]])
    one, other = (gain(model, padded, n_directions=2) for padded in (right, left))
    np.testing.assert_allclose(one["gain"], other["gain"], rtol=1e-6)


def test_intervals_over_prompts_hold_the_mean():
    result = gain(tiny(), random_tokens(12, 6))
    lower, upper = result["log_gain_interval"].to_numpy()
    mean = result["log_gain"].mean("prompt").to_numpy()
    assert (lower[1:] < mean[1:]).all()
    assert (mean[1:] < upper[1:]).all()
    spread = 2 * 1.96 * result["log_gain"].std("prompt", ddof=1).to_numpy() / math.sqrt(12)
    np.testing.assert_allclose((upper - lower)[1:], spread[1:], rtol=0.25)


def test_a_model_that_does_not_repeat_itself_is_an_error():
    class Noisy(nn.Module):
        def forward(self, x):
            return 1e-4 * torch.rand_like(x)

    model = tiny()
    model.blocks[2].mlp = Noisy()
    with pytest.raises(ResultError, match="zero-dose control, computed again, moved by"):
        gain(model, random_tokens(1, 5), dose=1e-3)


def test_a_disturbance_before_the_injection_is_an_error():
    energies = torch.ones(1, 3, 2, 4)  # [place, row, layer, position]
    with pytest.raises(ResultError, match="causality is violated"):
        check_causal(energies, torch.tensor([2]), "gain")
    energies[..., :2] = 0
    check_causal(energies, torch.tensor([2]), "gain")
    skipped, computed = torch.zeros(1, 2, 4), torch.zeros(1, 2)
    check_controls(skipped, computed, energies, 0, "gain")
    skipped[0, 1, 3] = 1e-30
    with pytest.raises(ResultError, match="zero-dose control moved"):
        check_controls(skipped, computed, energies, 0, "gain")


def test_directions_beside_others_share_their_zero_dose():
    model, tokens = tiny(), random_tokens(2, 6)
    common = {"dose": 1e-2, "layer": 1, "n_directions": 2, "seed": 0, "who": "gain"}
    base = inject(model, tokens, **common)
    alone, beside = (inject(model, tokens, directions="token", beside=one, **common) for one in (None, base))
    torch.testing.assert_close(beside.energies, alone.energies)
    torch.testing.assert_close(beside.rounding, alone.rounding)
    assert beside.energies.shape == base.energies.shape
    noisy = replace(base, rounding=base.rounding + 1)
    with pytest.raises(ResultError, match="zero-dose control, computed again, moved by"):
        inject(model, tokens, directions="token", beside=noisy, **common)


def test_rounding_is_measured():
    single, double = (
        gain(tiny(dtype=dtype), random_tokens(2, 8))["rounding"] for dtype in (torch.float32, torch.float64)
    )
    assert float(single.max()) < 2e-3
    assert float(double.max()) < 1e-11
    with pytest.raises(ResultError, match="Raise the dose or load the model in float64"):
        check_controls(torch.zeros(1, 1, 1), torch.full((1, 1), 1e-3), torch.ones(1, 1, 1, 1), 0, "gain")


def test_a_disturbance_that_vanishes_is_an_error():
    with pytest.raises(ResultError, match="exactly zero at layer 3"):
        gain(
            linear_model([torch.eye(64).double()] * 2 + [torch.zeros(64, 64).double()] * 3),
            random_tokens(1, 5, vocab=30),
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dose": 1e-11}, "at least 1e-10"),
        ({"dose": float("nan")}, "out of range"),
        ({"layer": 3}, "layer 3 is out of range"),
        ({"n_directions": 0}, "at least 1"),
        ({"directions": "up"}, "unknown directions"),
    ],
)
def test_requests_that_cannot_be(change, message):
    with pytest.raises(InterpError, match=message):
        gain_function(tiny(), **({"prompts": random_tokens(1, 5)} | change))


def test_coarse_dtypes_and_small_doses_in_float32_are_refused():
    with pytest.raises(InterpError, match="at least 0.0001.*float64"):
        gain(tiny(dtype=torch.float32), random_tokens(1, 5), dose=5e-5)
    with pytest.raises(InterpError, match="too coarse"):
        gain(tiny(dtype=torch.bfloat16), random_tokens(1, 5))
    with pytest.raises(TokenError, match="out of range"):
        gain(tiny(), torch.tensor([[1, 99]]))


def test_infinitely_small_is_the_limit_of_small():
    model, tokens = tiny(), random_tokens(2, 6)
    tokens[1, 4:] = PAD
    exact, small = (gain(model, tokens, dose=dose, layer=1, seed=3) for dose in (None, 1e-7))
    for name in ("gain", "relative_gain", "stream_growth"):
        np.testing.assert_allclose(exact[name], small[name], rtol=1e-5, err_msg=name)
    assert (exact["rounding"].fillna(0) == 0).all()
    linear = linear_model([1.3 * centred_orthogonal(seed) for seed in range(5)])
    np.testing.assert_allclose(
        gain(linear, random_tokens(1, 4, vocab=30), dose=None)["gain"][..., -1], 1.3**5, rtol=1e-6
    )


@settings(max_examples=10, deadline=None)
@given(options=configs)
def test_infinitely_small_is_the_limit_of_small_for_any_architecture(options):
    model, tokens = build(**options), random_tokens(1, 5)
    exact, small = (gain(model, tokens, dose=dose, n_directions=2, seed=1) for dose in (None, 1e-7))
    for name in ("gain", "relative_gain"):
        np.testing.assert_allclose(exact[name], small[name], rtol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "rmsnorm"},
        {"norm": "none"},
        {"norm_placement": "post"},
        {"norm": "rmsnorm", "norm_placement": "post"},
    ],
)
def test_the_derivative_is_the_limit_for_every_norm(options):
    model, tokens = build(**options), random_tokens(1, 6)
    exact, small = (gain(model, tokens, dose=dose, n_directions=2)["log_gain"] for dose in (None, 1e-7))
    np.testing.assert_allclose(exact, small, atol=1e-6)


def massive(model, at=2, size=3000.0):
    """The model, with a stream at the token id of `at` that is that long from layer 1 on."""
    model.W_E[at] *= size
    return model


def test_massive_positions_are_set_apart_wherever_they_are():
    tokens = torch.tensor([[5, 9, 2, 11, 7, 3], [2, 9, 4, 11, 7, 3]])
    model = massive(tiny())
    result = gain(model, tokens, n_directions=2)
    assert json.loads(result.attrs["parameters"])["set_apart"] == {
        "bos": False,
        "massive": [0, 2],
        "times_the_median": 10.0,
    }
    assert result["gain"][0, 2].isnull().all()
    assert result["gain"][1, 0].isnull().all()
    assert result["gain"].notnull().sum() == 10 * 2 * 4
    cone = light_cone(model, tokens, n_directions=2)
    share = cone["share"][0].sel(injection=1).to_numpy()
    rest = np.delete(share, 2, axis=1).sum(1)
    np.testing.assert_allclose(
        np.sqrt(rest / rest[0]),
        np.sqrt((gain(model, tokens[:1], n_directions=2)["gain"][0, 1] ** 2).mean("direction")),
        rtol=1e-5,
    )
    exact = gain(model, tokens, n_directions=2, dose=None)
    small = gain(model, tokens, n_directions=2, dose=1e-6)
    np.testing.assert_allclose(exact["gain"], small["gain"], rtol=1e-4)
    assert participation(model, tokens)["participation"][0, :, 2].isnull().all()
    for call in (ledger, dose_response, lyapunov, participation):
        with pytest.raises(
            InterpError, match="position 2 of prompt 0 is set apart, since the stream there is more than 10 times"
        ):
            call(model, tokens[:1], position=2)
    assert lyapunov(model, tokens[:1], position=None, k=75).sizes["mode"] == 75
    with pytest.raises(InterpError, match="k must be 1 to 75"):
        lyapunov(model, tokens[:1], position=None, k=76)


def test_a_prompt_of_bos_alone_leaves_nothing(smalltown):
    for call in (gain, light_cone, ledger, mean_field):
        with pytest.raises(
            InterpError, match="no position left to disturb. Set apart is position 0, since the beginning-of-text"
        ):
            call(smalltown, torch.tensor([[smalltown.tokenizer.bos]]))
    assert gain(smalltown, "Mary went to")["injection"].to_numpy().tolist() == [1, 2, 3]


def test_in_single_precision_a_central_difference_at_a_hundredth_is_the_derivative():
    """The specification's figure: an error of about 2e-4."""
    model, tokens = tiny(dtype=torch.float32), random_tokens(1, 6)
    x = model.embed(tokens)
    direction = torch.nn.functional.normalize(torch.randn(16, generator=torch.Generator().manual_seed(0)), dim=0)
    direction = direction - direction.mean()
    size = 1e-2 * x[0, 3].norm()
    ends = []
    for sign in (1, -1):
        moved = x.clone()
        moved[0, 3] += sign * size * direction
        ends.append(model.run_blocks(moved)[0])
    central = (ends[0] - ends[1]) / (2 * size)
    placed = torch.zeros(1, 6, 16)
    placed[0, 3] = direction
    pushed = linearised(model, tokens[0], 0, 3).jvp(placed)[0]
    central = central - central.mean(-1, keepdim=True)
    assert float((central - pushed).norm() / pushed.norm()) < 2e-3


def test_growth_laws():
    exponential = gain(
        linear_model([1.3 * centred_orthogonal(seed) for seed in range(5)]), random_tokens(2, 5, vocab=30)
    )
    assert exponential["growth_aic"].sel(law="exponential") < exponential["growth_aic"].sel(law="power") - 10
    assert float(exponential["growth_rate"]) == pytest.approx(math.log(1.3), rel=1e-5)
    steps = [2.0, 1.5, 4 / 3, 1.25, 1.2]  # 2, 3, 4, 5, 6 after layers 1 to 5: G is depth + 1
    power = fit(np.arange(6.0), np.concatenate([[1.0], np.cumprod(steps)]))
    assert power.aic[0] < power.aic[1]
    assert np.isnan(gain(tiny(), random_tokens(1, 5))["growth_aic"]).all()  # three layers


def test_the_twin_is_the_same_shape_at_initialisation():
    model = tiny()
    twin = random_twin(model, seed=3)
    assert twin.config == model.config
    assert twin.dtype == model.dtype
    assert torch.equal(twin.W_E, Transformer(TINY, seed=3).W_E.double())
    assert twin.weight_hash() != model.weight_hash()
