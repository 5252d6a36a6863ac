"""Attention patterns."""

import numpy as np
import torch
from conftest import random_tokens, tiny

import analyses
from interp import PAD


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
