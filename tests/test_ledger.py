"""The growth ledger sums exactly, for any architecture, and says what is known of hand-set parts."""

import math

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gain import linear_model
from test_options import build, configs

import analyses
from analyses.cascade import ledger
from interp import ModelConfig
from interp.errors import ConfigError, InterpError, ResultError
from interp.geometry import mean_is_seen
from interp.streams import streams

is_sum = configs.filter(lambda options: options["norm_placement"] != "post" or options["norm"] == "none")


def centred(x):
    return x - x.mean(-1, keepdim=True)


@settings(max_examples=15, deadline=None)
@given(options=is_sum, seed=st.integers(0, 10**6), dose=st.sampled_from([1e-3, 0.1, 1.0]))
def test_entries_sum_to_the_growth_for_any_architecture(options, seed, dose):
    model, tokens = build(**options), random_tokens(1, 6, seed=seed)
    result = ledger(model, tokens, dose=dose, position=3, seed=seed)
    total = result["head_entry"].sum("head") + result["mlp_entry"] + result["bias_entry"]
    np.testing.assert_allclose(total, result["log_k"], atol=1e-9)
    np.testing.assert_allclose(result["head_part"].sum("part"), result["head_entry"], atol=1e-9)
    assert float(result["residual"].max()) < 1e-6


def test_growth_is_that_of_two_whole_runs():
    model, clean, other = tiny(), random_tokens(2, 6), random_tokens(2, 6, seed=1)
    result = ledger(model, clean, other)
    for row in range(2):
        energies = []
        for layer in range(4):
            x, y = (model.run_blocks(model.embed(t[row, None]), stop_at_layer=layer)[0] for t in (clean, other))
            energies.append(float(centred(y - x).pow(2).sum()))
        np.testing.assert_allclose(result["log_k"][row], np.diff(np.log(energies)) / 2, atol=1e-10)
        x = [model.run_blocks(model.embed(clean[row, None]), stop_at_layer=layer)[0] for layer in range(4)]
        own = [float(centred(s).pow(2).sum()) for s in x]
        np.testing.assert_allclose(result["log_stream_growth"][row], np.diff(np.log(own)) / 2, atol=1e-10)
    stream = result["stream_head"].sum("head") + result["stream_mlp"] + result["stream_bias"]
    np.testing.assert_allclose(stream, result["log_stream_growth"], atol=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"norm": "rmsnorm"}, {"norm_placement": "both"}, {"norm_placement": "output", "parallel": True}]
)
def test_prompts_that_differ_at_an_ordinary_first_token_count_it(options):
    """Three pairs without BOS, against dense streams over all positions."""
    model, clean = build(**options), random_tokens(3, 5)
    other = clean.clone()
    other[:, 0] = (other[:, 0] + 1) % 20
    result = ledger(model, clean, other)
    one = torch.eye(16).double() - (1 / 16 if not mean_is_seen(model.config) else 0)
    x, y = (torch.stack(streams(model, tokens)) @ one for tokens in (clean, other))
    energies = (y - x).pow(2).sum((-1, -2)).numpy()  # [layer, prompt]
    np.testing.assert_allclose(result["log_k"], np.diff(np.log(energies), axis=0).T / 2, atol=1e-9)
    assert len(result["part"]) == (4 if "output" in model.config.norms else 3)


def test_a_norm_on_what_is_written_has_a_part_and_scales_the_bias():
    model = build(norm_placement="output")
    for block in model.blocks:
        block.attn.o.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    result = ledger(model, random_tokens(1, 6), dose=0.3, position=2)
    assert abs(result["head_part"].sel(part="output_scale")).max() > 1e-4
    assert abs(result["bias_entry"]).max() > 1e-5
    assert (ledger(tiny(), random_tokens(1, 6), dose=0.3)["bias_entry"] == 0).all()
    figure = analyses.plot(result)
    assert [note.text for note in figure.layout.annotations][-1] == "so does the norm behind"
    heights = sum(trace.y[0] for trace in figure.data if trace.name == "ln of the growth")
    assert heights == pytest.approx(float(result["log_k"].sum()))


def test_a_block_that_doubles_is_all_its_mlp():
    result = ledger(linear_model([2 * torch.eye(64).double()] * 5), random_tokens(1, 4, vocab=30))
    np.testing.assert_allclose(result["log_k"], math.log(2), atol=1e-10)
    np.testing.assert_allclose(result["mlp_entry"], math.log(2), atol=1e-10)
    np.testing.assert_allclose(result["head_entry"], 0, atol=1e-12)
    damped = ledger(linear_model([0.5 * torch.eye(64).double()] * 5), random_tokens(1, 4, vocab=30))
    np.testing.assert_allclose(damped["mlp_entry"], -math.log(2), atol=1e-10)


def test_a_pattern_that_cannot_change_leaves_nothing_to_qk():
    model = tiny()
    for block in model.blocks:
        block.attn.qkv.weight[:32].zero_()  # queries and keys
        block.attn.qkv.bias[:32].zero_()
    result = ledger(model, random_tokens(1, 6), dose=0.3, position=2)
    np.testing.assert_allclose(result["head_part"].sel(part="qk"), 0, atol=1e-12)
    assert abs(result["head_part"].sel(part="ov_direction")).max() > 1e-3
    assert abs(result["head_part"].sel(part="ov_scale")).max() > 1e-6


def test_without_a_norm_there_is_no_scale():
    model = tiny(config=ModelConfig(**(TINY.to_dict() | {"norm": "none"})))
    result = ledger(model, random_tokens(1, 6), dose=0.3, position=2)
    np.testing.assert_allclose(result["head_part"].sel(part="ov_scale"), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": 5}, "position 5 is not one of 0 to 4"),
        ({"layer": 3}, "not a place"),
        ({"other": random_tokens(1, 4)}, "same number of tokens"),
    ],
)
def test_requests_that_cannot_be(change, message):
    with pytest.raises(InterpError, match=message):
        ledger(tiny(), random_tokens(1, 5), **change)


def test_no_ledger_of_what_is_no_sum_or_has_no_growth():
    with pytest.raises(ConfigError, match="no sum of parts"):
        ledger(build(norm_placement="post"), random_tokens(1, 5))
    with pytest.raises(ResultError, match="exactly zero"):
        ledger(tiny(), random_tokens(1, 5), random_tokens(1, 5))
    with pytest.raises(InterpError, match="too coarse"):
        ledger(tiny(dtype=torch.bfloat16), random_tokens(1, 5))
