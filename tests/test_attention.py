"""Attention patterns."""

import base64
import json
import re
import zlib

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from test_options import build

import analyses
from analyses import cascade
from analyses.plots import plot_head
from interp import PAD
from interp.errors import ConfigError


def test_patterns_are_the_models_own(model, tokens):
    result = analyses.attention_patterns(model, tokens)
    _, cache = model.run_with_cache(tokens)
    for layer in range(3):
        np.testing.assert_allclose(result["pattern"][:, layer], cache["pattern", layer], atol=1e-14)
    np.testing.assert_allclose(result["pattern"].sum("key"), 1, atol=1e-12)
    assert (result["pattern"].to_numpy()[..., *np.triu_indices(10, 1)] == 0).all()


def test_padding_is_not_a_number():
    model, tokens = tiny(), random_tokens(2, 6)
    tokens[1, 4:] = PAD
    result = analyses.attention_patterns(model, tokens)
    alone = analyses.attention_patterns(model, tokens[1:, :4])
    np.testing.assert_allclose(result["pattern"][1, ..., :4, :4], alone["pattern"][0], atol=1e-12)
    assert result["pattern"][1, ..., 4:, :].isnull().all()
    assert result["pattern"][1, ..., 4:].isnull().all()


def test_tokens_stand_along_both_axes(smalltown):
    result = analyses.attention_patterns(smalltown, "Mary went home")
    for axis in ("query", "key"):
        assert result[f"{axis}_token"][0].to_numpy().tolist() == smalltown.to_str_tokens("Mary went home")[0]


def test_a_head_built_to_look_at_the_first_token():
    """Queries from a constant bias, keys that only position 0's embedding excites."""
    model = tiny()
    attn = model.blocks[0].attn
    attn.qkv.weight.zero_()
    attn.qkv.bias.zero_()
    attn.qkv.bias[:8] = 50.0  # queries of head 0, everywhere the same
    model.W_E.zero_()
    model.W_pos.zero_()
    model.W_pos[0, 0] = 1.0
    attn.qkv.weight[16:24, 0] = 1.0  # keys of head 0 read dimension 0
    model.blocks[0].ln1.bias.zero_()
    pattern = torch.tensor(analyses.attention_patterns(model, random_tokens(1, 6))["pattern"].to_numpy())
    torch.testing.assert_close(pattern[0, 0, 0, :, 0], torch.ones(6, dtype=torch.float64), atol=1e-6, rtol=0)
    uniform = 1 / torch.arange(1, 7, dtype=torch.float64)
    torch.testing.assert_close(pattern[0, 0, 1, :, 0], uniform)  # head 1 sees no difference between keys


@pytest.fixture(scope="module")
def both_ways():
    """A bidirectional model's patterns, of two prompts of unequal length."""
    tokens = random_tokens(2, 6)
    tokens[1, 4:] = PAD
    return analyses.attention_patterns(build(causal=False), tokens)


def test_figures_of_bidirectional_attention_show_later_keys(both_ways):
    later = np.triu_indices(6, 1)
    pattern = both_ways["pattern"][0].to_numpy()
    assert (pattern[..., *later] > 0).all()
    figure = analyses.plot(both_ways)
    for trace, expected in zip(figure.data, pattern.reshape(-1, 6, 6), strict=True):
        np.testing.assert_allclose(np.asarray(trace.z, dtype=float), expected)
    one = plot_head(both_ways, layer=1, head=2, prompt=1).data[0]
    np.testing.assert_allclose(np.asarray(one.z, dtype=float), both_ways["pattern"][1, 1, 2, :4, :4])
    causal = analyses.attention_patterns(build(), random_tokens(1, 6))
    assert np.isnan(np.asarray(analyses.plot(causal).data[0].z, dtype=float)[later]).all()


def test_the_viewer_of_bidirectional_attention_holds_later_keys(both_ways):
    def packed(html: str) -> dict:
        return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])

    data = packed(analyses.attention_viewer(both_ways).html)
    assert data["causal"] is False
    shares = (
        np.frombuffer(zlib.decompress(base64.b64decode(data["texts"][0]["patterns"][5])), dtype=np.uint8)
        / data["steps"]
    )
    np.testing.assert_allclose(shares.reshape(6, 6) ** 2, both_ways["pattern"][0, 1, 1], atol=0.005)
    seen_once = both_ways.copy(deep=True)  # a model that may look ahead and does not: what it may do is what counts
    seen_once["pattern"][..., *np.triu_indices(6, 1)] = 0.0
    assert packed(analyses.attention_viewer(seen_once).html)["causal"] is False
    assert (
        packed(analyses.attention_viewer(analyses.attention_patterns(build(), random_tokens(1, 6))).html)["causal"]
        is True
    )


def test_a_disturbance_of_a_bidirectional_model_leaves_to_both_sides():
    model, tokens = build(causal=False), random_tokens(1, 5)
    result = cascade.light_cone(model, tokens, n_directions=2)
    share = result["share"][0, :, -1].to_numpy()  # [injection, position], of what was injected
    share = share / share.sum(1, keepdims=True)
    off = [1 - share[row, row] for row in range(5)]  # without BOS no position is set apart
    np.testing.assert_allclose(result["off_site"][0, -1], np.mean(off), rtol=1e-5)
    for distance in (1, 2):
        there = [share[row, at] for row in range(5) for at in range(5) if abs(at - row) == distance]
        np.testing.assert_allclose(result["by_distance"][0, distance], np.mean(there), rtol=1e-5)
    figure = analyses.plot(result)
    assert np.isfinite(np.asarray(figure.data[0].z, dtype=float)[1:]).all()
    with pytest.raises(ConfigError, match="not worked out for .*causal = False"):
        cascade.mean_field(model, tokens)
