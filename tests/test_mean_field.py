"""The mean-field prediction against measured random models, over seeds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_tokens
from test_options import build

from analyses.cascade import gain, mean_field
from analyses.cascade.mean_field import constants
from interp import ModelConfig, Transformer
from interp.errors import ConfigError

SHAPE = ModelConfig(n_layers=1, d_model=768, n_heads=12, d_head=64, d_mlp=3072, n_ctx=16, d_vocab=200)


def measured(config, seeds, length, directions=2):
    found = []
    for seed in seeds:
        model = Transformer(config, seed=seed).requires_grad_(False)
        tokens = random_tokens(1, length, seed=seed, vocab=200)
        own, predicted = gain(model, tokens, n_directions=directions, seed=seed), mean_field(model, tokens)
        squares = np.square(own["gain"].to_numpy()).mean(2)  # [prompt, injection, layer]
        found.append(
            (
                squares.mean((0, 1)),
                np.square(predicted["gain"].to_numpy()).mean((0, 1)),
                own["relative_gain"].to_numpy().mean((0, 1, 2)),
                predicted["relative_gain"].to_numpy().mean((0, 1)),
            )
        )
    return [np.mean(values, axis=0) for values in zip(*found, strict=True)]


def test_constants_by_hand():
    """With ReLU half of the squares and half of the slopes remain."""
    model = Transformer(replace(SHAPE, activation="relu"))
    of = constants(model)
    kappa, v, chi, rho = of.kappa, of.v, of.chi, of.rho
    s2, into = 0.02**2, 0.02**2 / 2
    assert kappa == pytest.approx(768**2 * s2 * into)
    assert v == pytest.approx(3072 * into * 768 * s2 / 2, rel=0.01)
    assert chi == pytest.approx(3072 * into * 768 * s2 / 2, rel=0.01)
    assert rho == pytest.approx((768 * s2) ** 2)


def test_one_block_at_gpt2_small_width_is_within_a_tenth():
    squared, predicted, relative, predicted_relative = measured(SHAPE, range(8), 8)
    assert squared[1] == pytest.approx(predicted[1], rel=0.1)
    assert relative[1] == pytest.approx(predicted_relative[1], rel=0.1)


def test_twelve_narrower_layers_are_within_a_sixth():
    config = replace(SHAPE, n_layers=12, d_model=256, n_heads=4, d_head=64, d_mlp=1024, init_std=0.035)
    squared, predicted, relative, predicted_relative = measured(config, range(3), 8)
    assert squared[-1] == pytest.approx(predicted[-1], rel=1 / 6)
    assert relative[-1] == pytest.approx(predicted_relative[-1], rel=1 / 6)
    growth = squared[1:] / squared[:-1]
    assert growth[-1] < growth[0]  # polynomial, not exponential


def test_a_longer_prompt_does_not_change_the_prediction_before_it():
    model = Transformer(SHAPE)
    tokens = random_tokens(2, 6, vocab=200)
    both = mean_field(model, tokens)
    assert both["gain"].shape == (2, 6, 2)
    np.testing.assert_allclose(both["gain"][..., 0], 1)
    assert (both["gain"][..., 1] > 1).all()
    assert (both["mean_square"][:, 1] > both["mean_square"][:, 0]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "rmsnorm"},
        {"norm_placement": "post"},
        {"mlp": "gated"},
        {"n_kv_heads": 1},
        {"positions": "alibi"},
        {"causal": False},
        {"window": 3},
        {"parallel": True},
        {"qk_norm": "head"},
        {"score_cap": 5.0},
        {"attn_scale": 1.0},
    ],
)
def test_shapes_that_the_theory_does_not_cover(options):
    (name,) = options
    with pytest.raises(ConfigError, match=f"not worked out for {name} = "):
        mean_field(build(**options), torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_positions_that_leave_attention_even_are_covered(positions):
    config = replace(SHAPE, d_model=256, n_heads=4, d_head=64, d_mlp=1024, init_std=0.035, positions=positions)
    squared, predicted, relative, predicted_relative = measured(config, range(6), 6)
    assert squared[1] == pytest.approx(predicted[1], rel=0.1)
    assert relative[1] == pytest.approx(predicted_relative[1], rel=0.1)
