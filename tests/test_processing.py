"""Weight processing leaves log-probabilities as they were, and does what it says to the weights."""

import pytest
import torch
from conftest import random_tokens
from hypothesis import given, settings
from test_options import build, configs

from interp import processing
from interp.errors import ConfigError

REFUSED = {
    processing.fold_layer_norm: lambda o: o["norm"] == "none" or o["norm_placement"] in ("post", "output"),
    processing.centre_writing_weights: lambda o: (
        o["norm"] != "layernorm" or o["norm_placement"] != "pre" or o["positions"] == "sinusoidal"
    ),
    processing.centre_unembedding: lambda o: o["logit_cap"] is not None,
    processing.fold_value_biases: lambda o: not (o["bias"] if o["qkv_bias"] is None else o["qkv_bias"]),
}


@settings(max_examples=60, deadline=None)
@given(options=configs)
@pytest.mark.parametrize("function", REFUSED)
def test_log_probabilities_stay_in_any_combination(function, options):
    model, tokens = build(**options), random_tokens(2, 6)
    for index, weight in enumerate(p for name, p in model.named_parameters() if ".ln" in name or "ln_final" in name):
        weight.normal_(1, 0.5, generator=torch.Generator().manual_seed(index))
    if REFUSED[function](options):
        with pytest.raises(ConfigError, match=function.__name__):
            function(model)
        return
    before = model.weight_hash()
    new = function(model)
    torch.testing.assert_close(new(tokens).log_softmax(-1), model(tokens).log_softmax(-1), atol=1e-9, rtol=1e-9)
    assert model.weight_hash() == before
    assert new.weight_hash() != before


def test_all_in_a_row_in_float32():
    model, tokens = build().float(), random_tokens(2, 6)
    new = model
    for function in REFUSED:
        new = function(new)
    torch.testing.assert_close(new(tokens).log_softmax(-1), model(tokens).log_softmax(-1), atol=1e-5, rtol=0)
    assert all((block.ln1.weight == 1).all() and (block.ln2.bias == 0).all() for block in new.blocks)
    assert (new.ln_final.weight == 1).all()
    stream = new.run_blocks(new.embed(tokens))
    assert stream.mean(-1).abs().max() < 1e-6
    assert new(tokens).mean(-1).abs().max() < 1e-5
    assert all((block.attn.qkv.bias[32:] == 0).all() for block in new.blocks)
