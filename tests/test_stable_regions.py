"""Stable regions: affine models, quadratic forms, planted thresholds and jumps."""

import sys

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
from analyses.cascade import random_twin, stable_regions
from analyses.cascade.stable_regions import MIXED, crossing, inverse_exponent
from interp import ModelConfig, Transformer
from interp.errors import InterpError

WIDTH = 6


regions = sys.modules["analyses.cascade.stable_regions"]  # the package has a function of that name


def affine() -> Transformer:
    """The logits are a linear map of the stream."""
    config = ModelConfig(
        n_layers=1, d_model=WIDTH, n_heads=1, d_head=WIDTH, d_mlp=1, n_ctx=8, d_vocab=2 * WIDTH, norm="none", mlp="none", tied=False
    )  # fmt: skip
    model = Transformer(config, seed=0).requires_grad_(False).to(torch.float64)
    for weight in model.parameters():
        weight.zero_()
    generator = torch.Generator().manual_seed(1)
    for matrix in (model.W_E, model.unembedding):
        matrix.copy_(torch.randn(2 * WIDTH, WIDTH, generator=generator, dtype=torch.float64))
    return model


def thresholds() -> Transformer:
    """The stream is 1 everywhere; the logits read how far its numbers 0 and 1 are beyond 1 from that, each by itself."""
    config = ModelConfig(
        n_layers=1, d_model=WIDTH, n_heads=1, d_head=WIDTH, d_mlp=4, n_ctx=8, d_vocab=8, norm="none", activation="relu", tied=False
    )  # fmt: skip
    model = Transformer(config).requires_grad_(False).to(torch.float64)
    for weight in model.parameters():
        weight.zero_()
    model.W_E.fill_(1)
    mlp = model.blocks[0].mlp
    for neuron, (number, sign) in enumerate([(0, 1), (0, -1), (1, 1), (1, -1)]):
        mlp.input.weight[neuron, number] = sign
        mlp.input.bias[neuron] = -sign - 1
        mlp.output.weight[2 + neuron, neuron] = 1
        model.unembedding[neuron, 2 + neuron], model.unembedding[4 + neuron, 2 + neuron] = 1, -1  # their mean is 0
    return model


def test_an_affine_model_has_slope_one_and_a_quadratic_form():
    result = stable_regions(affine(), torch.arange(12).reshape(6, 2), pairs=3)
    np.testing.assert_allclose(result["slope"], 1, rtol=1e-9)
    np.testing.assert_allclose(result["distance"], np.broadcast_to(result["a"], result["distance"].shape), atol=1e-12)
    np.testing.assert_allclose(result["inverse_exponent"], 0.5, atol=1e-9)
    np.testing.assert_allclose(result["exponent"], 2, rtol=1e-8)
    np.testing.assert_allclose(result["slope_interval"], 1, rtol=1e-9)


@pytest.mark.parametrize(("power", "expected"), [(1.0, 1.0), (2.0, 0.5), (4.0, 0.25)])
def test_planted_exponents_of_mixtures(power, expected):
    """A response |a|^p + |b|^p reaches its level at 2^(-1/p) of both thresholds."""
    level = np.array([1.0])
    reached = crossing((2 * MIXED**power)[None], MIXED, level)
    assert float(inverse_exponent(np.stack([reached, reached], -1))[0]) == pytest.approx(expected)


def test_a_quadratic_form_with_cross_terms_is_one_all_the_same():
    for rho in (-0.7, 0.0, 0.4):
        squares = 2 * MIXED**2 * np.array([1 + rho, 1 - rho])[:, None]
        reached = crossing(squares**0.5, MIXED, np.ones(2))
        assert inverse_exponent(reached[None])[0] == pytest.approx(0.5)


def test_planted_thresholds_have_more_than_two():
    """|x| is sqrt(6): alone each answers beyond 1 by 2 sqrt(6) - 1 at most, and by half of that, the level, at t; together at s t, where
    sqrt(2) (s t - 1) is the level."""
    axes = torch.eye(WIDTH, dtype=torch.float64)[:2]
    result = stable_regions(
        thresholds(),
        torch.zeros(6, 2, dtype=torch.long),
        directions=axes,
        pairs=1,
        doses=np.linspace(0.1, 2, 400).tolist(),
    )
    level = (2 * np.sqrt(6) - 1) / 2
    s = (level / np.sqrt(2) + 1) / (level + 1)
    expected = np.log(s**-2.0) / (2 * np.log(2))
    np.testing.assert_allclose(result["inverse_exponent"], expected, atol=0.01)  # MIXED has twelve points
    assert (result["exponent"] > 2.5).all()


def test_crossing_by_hand():
    doses = np.array([1.0, 2.0, 4.0])
    response = np.array([[1.0, 4.0, 16.0], [1.0, 1.0, 1.0], [0.0, 0.0, 9.0], [1.0, 8.0, 2.0]])
    found = crossing(response, doses, np.array([8.0, 3.0, 3.0, 4.0]))
    assert found[0] == pytest.approx(np.sqrt(8))
    assert np.isnan(found[1])
    assert np.isnan(found[2])
    assert found[3] == pytest.approx(2 ** (2 / 3))
    assert crossing(response[:1], doses, np.array([64.0]))[0] == pytest.approx(8)  # beyond the doses


@pytest.mark.parametrize("unlike", [False, True])
def test_between_equal_activations_there_is_no_way_whatever_rounding_makes_of_it(monkeypatch, unlike):
    """At the first layer the last position has its token's embedding and nothing else; rounding differs by processor, so it is put in."""
    model, prompts = tiny(), random_tokens(2, 6)
    prompts[:, -1] = torch.tensor([4, 9 if unlike else 4])
    outputs = regions._Place._outputs

    def rounded(self, *given):
        exact = outputs(self, *given)
        return exact * (1 + 1e-16 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(0)).double())

    monkeypatch.setattr(regions._Place, "_outputs", rounded)
    distance = stable_regions(model, prompts, points=5)["distance"].to_numpy()
    assert np.isnan(distance[:, 0]).all() != unlike
    assert np.isfinite(distance[:, 1:]).all()


def test_a_planted_jump_is_steep():
    """A norm that is steep where the stream is small: between two opposite activations the output turns at once, halfway."""
    config = ModelConfig(
        n_layers=1, d_model=2, n_heads=1, d_head=2, d_mlp=2, n_ctx=4, d_vocab=2, norm="rmsnorm", mlp="none", tied=False
    )  # fmt: skip
    model = Transformer(config).requires_grad_(False).to(torch.float64)
    for name, weight in model.named_parameters():
        if "ln" not in name:
            weight.zero_()
    model.W_E.copy_(torch.tensor([[1.0, 0.01], [-1.0, 0.01]]))
    model.unembedding.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    result = stable_regions(model, torch.tensor([[0], [1]]), points=101)
    assert (result["slope"] > 20).all()
    np.testing.assert_allclose(result["distance"].sel(a=0.5), 0.5, atol=1e-9)
    assert (result["distance"].sel(a=0.4) < 0.05).all()


def test_the_sweep_equals_whole_runs():
    model, tokens = tiny(), random_tokens(6, 6)
    others = random_tokens(6, 4, seed=3)
    result = stable_regions(model, tokens, others, layers=[2, 0], points=5, position=-2)
    streams = [{}, {}]
    for number, rows in enumerate((tokens, others)):
        _, cache = model.run_with_cache(rows, names=["blocks.*.hook_resid_pre"])
        streams[number] = cache
    for at, layer in enumerate((2, 0)):
        x, y = (cache[f"blocks.{layer}.hook_resid_pre"][1, -2] for cache in streams)
        outs = []
        for a in np.linspace(0, 1, 5):

            def put(value, hook, moved=x + a * (y - x)):
                value = value.clone()
                value[:, -2] = moved
                return value

            with model.hooks({f"blocks.{layer}.hook_resid_pre": put}):
                logits = model(tokens[1:2])[0, -1]
            outs.append(logits - logits.mean())
        begun, left = ([float((out - end).norm()) for out in outs] for end in (outs[0], outs[-1]))
        expected = [b / (b + left[n]) for n, b in enumerate(begun)]
        np.testing.assert_allclose(result["distance"][1, at], expected, atol=1e-9)
        np.testing.assert_allclose(result["slope"][1, at], np.diff(expected).max() * 4, rtol=1e-6)
    null = stable_regions(random_twin(model), tokens, others, layers=[0, 2])
    figure = analyses.plot(stable_regions(model, tokens, others, layers=[0, 2]), null=null)
    assert {trace.name for trace in figure.data if trace.showlegend} == {"as trained", "at random init"}
    with pytest.raises(InterpError, match="6 prompts but 5 others"):
        stable_regions(model, tokens, others[:5])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"doses": [0.1, 0.2]}, "three at least"),
        ({"layers": [5]}, "some of 0 to 2"),
        ({"layers": []}, "some of 0 to 2"),
        ({"points": 2}, "points must be at least 3"),
        ({"directions": torch.eye(16, dtype=torch.float64)[:2]}, "2 pairs need 4 directions"),
    ],
)
def test_requests_that_cannot_be(options, said):
    with pytest.raises(InterpError, match=said):
        stable_regions(tiny(), random_tokens(2, 4), **options)
    with pytest.raises(InterpError, match="give another prompt"):
        stable_regions(tiny(), random_tokens(1, 4))
