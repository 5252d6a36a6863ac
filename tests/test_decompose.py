"""The stream as a sum of parts, and reading a cache by position and layer."""

import pytest
import torch
from conftest import TINY, random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_options import build, configs

import interp
from interp.decompose import needed
from interp.errors import ConfigError, HookError


@settings(max_examples=30, deadline=None)
@given(options=configs.filter(lambda o: o["norm_placement"] != "post"), heads=st.booleans(), layer=st.integers(0, 3))
def test_the_parts_sum_to_the_stream(options, heads, layer):
    model, tokens = build(**options), random_tokens(2, 5)
    _, cache = model.run_with_cache(tokens)
    split = interp.decompose(model, cache, layer=layer, heads=heads)
    stream = cache["resid_pre", layer] if layer < 3 else cache["resid_post", 2]
    torch.testing.assert_close(split.parts.sum(0), stream, atol=1e-10, rtol=0)
    assert len(split.labels) == len(split.parts)


def test_labels_and_what_they_hold(model, tokens):
    _, cache = model.run_with_cache(tokens)
    split = interp.decompose(model, cache, layer=2, heads=True)
    expected = ["embed", "pos_embed", "0.0", "0.1", "0.attn_bias", "0.mlp", "1.0", "1.1", "1.attn_bias", "1.mlp"]
    assert list(split.labels) == expected
    assert torch.equal(split.parts[split.labels.index("1.1")], cache["result", 1][:, :, 1])
    assert torch.equal(split.parts[split.labels.index("0.mlp")], cache["mlp_out", 0])


def test_only_the_named_points_are_needed(model, tokens):
    for heads in (False, True):
        _, cache = model.run_with_cache(tokens, needed(model, heads=heads))
        assert interp.decompose(model, cache, heads=heads).parts.shape[1:] == (2, 10, 16)
    _, cache = model.run_with_cache(tokens, "hook_embed")
    with pytest.raises(HookError, match="hook_pos_embed' was not cached"):
        interp.decompose(model, cache)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_normed_parts_sum_to_the_normed_stream(norm):
    model, tokens = build(norm=norm), random_tokens(2, 5)
    logits, cache = model.run_with_cache(tokens)
    parts = interp.decompose(model, cache, heads=True).parts
    normed = interp.frozen_norm(model.ln_final, parts, cache["ln_final.hook_scale"])
    bias = 0 if model.ln_final.bias is None else model.ln_final.bias
    torch.testing.assert_close(normed.sum(0) + bias, cache["ln_final.hook_out"], atol=1e-10, rtol=0)
    torch.testing.assert_close(
        (normed @ model.W_U).sum(0) + bias @ model.W_U if norm == "layernorm" else (normed @ model.W_U).sum(0), logits
    )


def test_a_post_norm_stream_is_no_sum():
    model = build(norm_placement="post")
    _, cache = model.run_with_cache(random_tokens())
    with pytest.raises(ConfigError, match="post-norm"):
        interp.decompose(model, cache)
    with pytest.raises(ConfigError, match="layer 4 is out of range"):
        interp.decompose(tiny(), cache, layer=4)


def test_slicing_by_position(model, tokens):
    _, cache = model.run_with_cache(tokens)
    last, some, front = cache.at(-1), cache.at([1, 3]), cache.at(slice(0, 4))
    assert last["resid_pre", 1].shape == (2, 1, TINY.d_model)
    assert torch.equal(last["resid_pre", 1], cache["resid_pre", 1][:, -1:])
    assert torch.equal(some["z", 0], cache["z", 0][:, [1, 3]])
    assert torch.equal(front["pattern", 2], cache["pattern", 2][:, :, :4])
    assert some["resid_post", 0] is some["resid_pre", 1]
    assert torch.equal(some.at(0)["resid_pre", 1], cache["resid_pre", 1][:, [1]])


def test_stacking_over_layers(model, tokens):
    _, cache = model.run_with_cache(tokens)
    stacked = cache.stack("attn_out")
    assert stacked.shape == (3, 2, 10, 16)
    assert torch.equal(stacked[2], cache["attn_out", 2])
    with pytest.raises(HookError, match="names no hook point"):
        cache.stack("attnout")
    with pytest.raises(HookError, match="in this cache"):
        model.run_with_cache(tokens, "hook_embed")[1].stack("attn_out")
