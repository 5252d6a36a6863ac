"""The logit lens."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy
import torch
from conftest import TINY, random_tokens, tiny

import analyses
from analyses.lenses import reading, vocabulary
from analyses.lenses.reading import _stands_from
from interp import PAD, ModelConfig, Transformer
from interp.errors import ConfigError, TokenError
from interp.zoo import task


def test_the_last_row_is_the_models_own_output(model, tokens):
    result = analyses.logit_lens(model, tokens, top_k=50)
    log_p = model(tokens).log_softmax(-1)
    top = log_p.topk(50, dim=-1)
    assert torch.equal(torch.tensor(result["top_id"].to_numpy()[:, -1]), top.indices)
    torch.testing.assert_close(
        torch.tensor(result["top_probability"].to_numpy()[:, -1]), top.values.exp(), atol=1e-14, rtol=0
    )
    assert (result["kl"].to_numpy()[:, -1] == 0).all()


def test_each_layer_equals_a_truncated_model(model, tokens):
    result = analyses.logit_lens(model, tokens)
    assert result["layer"].to_numpy().tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert result["step"].to_numpy().tolist() == ["embed", "0.attn", "0.mlp", "1.attn", "1.mlp", "2.attn", "2.mlp"]
    _, cache = model.run_with_cache(tokens, "blocks.*.hook_resid_mid")
    for layer in range(6):
        stream = model.run_blocks(model.embed(tokens), stop_at_layer=layer // 2)
        if layer % 2:
            stream = cache["resid_mid", layer // 2]
        distribution = torch.distributions.Categorical(logits=model.unembed(stream))
        final = torch.distributions.Categorical(logits=model(tokens))
        entropy = torch.tensor(result["entropy"].to_numpy()[:, layer])
        torch.testing.assert_close(entropy, distribution.entropy())
        kl = torch.distributions.kl_divergence(final, distribution)
        torch.testing.assert_close(torch.tensor(result["kl"].to_numpy()[:, layer]), kl)
        loss = -distribution.log_prob(tokens.roll(-1, 1))[:, :-1]
        torch.testing.assert_close(torch.tensor(result["cross_entropy"].to_numpy()[:, layer, :-1]), loss)
    assert result["cross_entropy"].isel(position=-1).isnull().all()


def test_a_hand_set_model_whose_lens_is_known():
    """Embeddings (3, -3) and (-3, 3) are normed to (1, -1) and (-1, 1): the logits are +6 and -6, each token predicts itself.
    Block 0's MLP adds (-6, 6) by its bias, which turns the first token into the second."""
    config = ModelConfig(n_layers=1, d_model=2, n_heads=1, d_head=2, d_mlp=1, n_ctx=4, d_vocab=2, norm_eps=1e-12)
    model = Transformer(config).requires_grad_(False).double()
    for name, weight in model.named_parameters():
        weight.fill_(1.0 if name.endswith("weight") and weight.ndim == 1 else 0.0)
    model.W_E.copy_(torch.tensor([[3.0, -3.0], [-3.0, 3.0]]))
    model.blocks[0].mlp.output.bias.copy_(torch.tensor([-6.0, 6.0]))
    certain = 1 / (1 + torch.exp(torch.tensor(-12.0, dtype=torch.float64)))
    top = analyses.logit_lens(model, torch.tensor([[0]]), top_k=2)
    assert top["top_id"][0, :, 0].to_numpy().tolist() == [[0, 1], [0, 1], [1, 0]]
    assert top["stands_from"][0, 0].item() == 1  # the output alone
    assert float(top["top_probability"][0, 0, 0, 0]) == pytest.approx(float(certain), abs=1e-9)
    kl = 12 * float(2 * certain - 1)
    assert float(top["kl"][0, 0, 0]) == pytest.approx(kl, rel=1e-6)


def test_candidates_and_padding(smalltown):
    result = analyses.logit_lens(smalltown, ["Mary and John went to the", "Mary"], candidates=[" store", " park"])
    logits = smalltown(smalltown.to_tokens("Mary"))
    log_p = logits.log_softmax(-1)[0, :, [smalltown.to_single_token(" store"), smalltown.to_single_token(" park")]]
    ours = torch.tensor(result["candidate_log_probability"].to_numpy()[1, -1, :2])
    torch.testing.assert_close(ours, log_p, atol=2e-5, rtol=0)
    assert result["candidate_rank"].to_numpy()[1, -1, 0, 0] == int(
        (logits[0, 0] > logits[0, 0, smalltown.to_single_token(" store")]).sum()
    )
    assert result["entropy"].isel(prompt=1, position=slice(2, None)).isnull().all()
    assert (result["token_id"].to_numpy()[1, 2:] == PAD).all()
    assert result["cross_entropy"].isel(prompt=1, position=1).isnull().all()


def test_chosen_positions_are_those_of_the_whole(smalltown):
    prompts = ["Mary and John went to the store", "Once upon a"]
    whole, some = (analyses.logit_lens(smalltown, prompts, positions=at) for at in (None, [1, -1]))
    assert some["position"].to_numpy().tolist() == [1, -1]
    lengths = (whole["token_id"] >= 0).sum("position").to_numpy()
    for name in ("kl", "entropy", "final_rank", "top_probability", "stands_from", "token_id", "cross_entropy"):
        for row in range(2):
            expected = whole[name].isel(prompt=row, position=[1, lengths[row] - 1])
            np.testing.assert_allclose(some[name].isel(prompt=row), expected, atol=2e-5, err_msg=name)


def test_logits_raw_and_centred(model, tokens):
    raw, centred = (analyses.logit_lens(model, tokens, top_k=3, centred=on) for on in (False, True))
    logits = model(tokens)
    top = logits.topk(3).values
    np.testing.assert_allclose(raw["top_logit"][:, -1], top, atol=1e-12)
    np.testing.assert_allclose(centred["top_logit"][:, -1], top - logits.mean(-1, keepdim=True), atol=1e-12)
    np.testing.assert_array_equal(raw["top_id"], centred["top_id"])
    np.testing.assert_allclose(raw["top_probability"], centred["top_probability"])


def test_rank_of_the_final_prediction(model, tokens):
    found = analyses.logit_lens(model, tokens)["final_rank"]
    best = model(tokens).argmax(-1, keepdim=True)
    for layer in range(4):
        logits = model.unembed(model.run_blocks(model.embed(tokens), stop_at_layer=layer))
        expected = (logits > logits.gather(-1, best)).sum(-1)
        np.testing.assert_array_equal(found.sel(layer=layer), expected)


def test_candidates_by_id(smalltown):
    by_text, by_id = (
        analyses.logit_lens(smalltown, "Mary went", candidates=[token])
        for token in (" store", smalltown.to_single_token(" store"))
    )
    np.testing.assert_array_equal(by_text["candidate_log_probability"], by_id["candidate_log_probability"])
    assert by_text["candidate"].to_numpy().tolist() == by_id["candidate"].to_numpy().tolist() == [" store"]


def test_distributions_equal_those_of_scipy_and_torch(model, tokens):
    """Blocks of the vocabulary, against two libraries that know none."""
    normed = model.ln_final(model.embed(tokens))[0]
    found = vocabulary.predict(model, normed)
    logits = model.to_logits(normed[None])[0]
    reference, other = logits.numpy(), model(tokens)[0]
    np.testing.assert_allclose(found.log_p, scipy.special.log_softmax(reference, axis=-1), atol=1e-12)
    np.testing.assert_allclose(
        found.entropy, scipy.stats.entropy(scipy.special.softmax(reference, -1), axis=-1), atol=1e-12
    )
    np.testing.assert_allclose(found.normaliser, scipy.special.logsumexp(reference, axis=-1), atol=1e-12)
    np.testing.assert_allclose(found.mean_logit, reference.mean(-1), atol=1e-12)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=other), torch.distributions.Categorical(logits=logits)
    )
    torch.testing.assert_close(vocabulary.divergence(other.log_softmax(-1), found.log_p[None])[0], kl)


def test_impossible_tokens_take_no_part():
    config = ModelConfig(
        n_layers=1, d_model=4, n_heads=1, d_head=4, d_mlp=4, n_ctx=4, d_vocab=5, tied=False, unembed_bias=True
    )
    model = Transformer(config).requires_grad_(False).double()
    model.b_U.copy_(torch.tensor([0.0, 1.0, 2.0, -torch.inf, -torch.inf]))
    found = vocabulary.predict(model, torch.randn(3, 4, dtype=torch.float64))
    assert found.entropy.isfinite().all()
    np.testing.assert_allclose(found.log_p.exp().sum(-1), 1)
    assert (vocabulary.divergence(found.log_p, found.log_p[None]) == 0).all()


def test_components_sum_to_the_logits(smalltown):
    prompts, candidates = ["Mary and John went to the", "Mary"], [" store", " park"]
    ids = [smalltown.to_single_token(token) for token in candidates]
    for heads in (False, True):
        result = analyses.component_lens(smalltown, prompts, heads=heads, candidates=candidates, centred=False)
        total = result["candidate_logit"].sum("component") + result["candidate_rest"]
        for row, prompt in enumerate(prompts):
            logits = smalltown(smalltown.to_tokens(prompt))[0, :, ids]
            np.testing.assert_allclose(total[row, : len(logits)], logits, atol=5e-4)
    assert "3.2" in result["component"].to_numpy()
    assert result["top_logit"][1, :, 2:].isnull().all()
    assert (result["top_id"][1, :, 2:] == PAD).all()


def test_a_component_is_read_with_the_scale_of_the_whole(model, tokens):
    result = analyses.component_lens(model, tokens, top_k=4, positions=[2])
    _, cache = model.run_with_cache(tokens)
    part = cache["mlp_out", 1][:, 2]
    normed = (part - part.mean(-1, keepdim=True)) / cache["ln_final.hook_scale"][:, 2] * model.ln_final.weight
    logits = normed @ model.W_U
    logits = logits - logits.mean(-1, keepdim=True)
    one = result.sel(component="1.mlp", position=2)
    np.testing.assert_allclose(one["top_logit"], logits.topk(4).values, atol=1e-12)
    np.testing.assert_array_equal(one["bottom_id"], logits.topk(4, largest=False).indices)


def test_components_of_a_post_norm_model_are_an_error():
    with pytest.raises(ConfigError, match="no sum of parts"):
        analyses.component_lens(tiny(config=replace(TINY, norm_placement="post")), random_tokens())


def test_requests_that_cannot_be(smalltown):
    with pytest.raises(TokenError, match="position 9 is out of range; the shortest prompt has 2 tokens"):
        analyses.logit_lens(smalltown, ["Mary", "Mary went home"], positions=[9])
    with pytest.raises(TokenError, match="empty"):
        analyses.logit_lens(smalltown, "Mary", positions=[])
    with pytest.raises(TokenError, match="out of range"):
        analyses.logit_lens(smalltown, "Mary", candidates=[99999])
    with pytest.raises(TokenError, match="top_k must be between 1 and"):
        analyses.logit_lens(smalltown, "Mary", top_k=0)
    with pytest.raises(TokenError, match="single token"):
        analyses.logit_lens(smalltown, "Mary", candidates=[" Mary John"])


def test_the_model_is_left_as_it_was():
    model = tiny()
    before = model.weight_hash()
    analyses.logit_lens(model, random_tokens())
    assert model.weight_hash() == before
    assert not any(point.active for point in model.hook_points.values())


def test_the_layer_from_which_a_prediction_stands():
    top = torch.tensor([[[5, 5, 1], [4, 5, 2], [5, 5, 3], [5, 5, 4]]])  # [prompt, step, position]
    assert _stands_from(top).tolist() == [[2, 0, 3]]


def test_any_memory_bound_gives_the_same(smalltown, monkeypatch):
    prompts = ["Mary and John went to the store", "Once upon"]
    expected = analyses.logit_lens(smalltown, prompts, candidates=[" to"])
    monkeypatch.setattr(reading, "LARGEST", smalltown.config.d_vocab * 4 * 3)  # three places at a time
    found = analyses.logit_lens(smalltown, prompts, candidates=[" to"])
    for name in ("entropy", "kl", "cross_entropy", "candidate_log_probability"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5)
    np.testing.assert_array_equal(found["top_id"], expected["top_id"])


def test_means_over_positions_and_prompts(smalltown):
    prompts = [
        "Mary and John went to the store",
        "Once upon a time",
        "The dogs near the",
        "Rose gave a book",
        "Then Peter and Mary",
        "The cat sat on",
    ]
    result = analyses.logit_lens(smalltown, prompts)
    kl = result["kl"].mean("position")  # padding is NaN and left out
    np.testing.assert_allclose(result["mean_kl_mean"], kl.mean("prompt"), rtol=1e-5)
    low, high = result["mean_kl_interval"].to_numpy()
    assert (low <= result["mean_kl_mean"]).all()
    assert (result["mean_kl_mean"] <= high).all()
    assert high[0] > low[0]


PEAK = """
import torch
from pathlib import Path
import analyses
from interp import ModelConfig, Transformer

def high_water():
    return next(int(x.split()[1]) for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")) / 1024

torch.set_num_threads(1)
model = Transformer(ModelConfig(n_layers=2, d_model=64, n_heads=2, d_head=32, d_mlp=64, n_ctx=512, d_vocab=50257)).requires_grad_(False)
tokens = torch.arange(512)[None]
analyses.logit_lens(model, tokens[:, :8])
before = high_water()
analyses.logit_lens(model, tokens)
print(high_water() - before)
"""


def test_the_vocabulary_is_streamed():
    """All logits of one step would take 103 MB, and what is made of them several times that."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 200  # 50 MB are live; the allocator may keep more


def test_capitals_are_read_where_patching_says_that_they_are(smalltown):
    """The country's stream holds the answer in the low layers and the last token's in the high ones; the lens reads it at the last
    token no earlier than patching there restores it."""
    pairs = task("capitals").sample(40, seed=3)
    prompts = [pair.clean for pair in pairs]
    answers = {"answer": [p.answer for p in pairs], "wrong": [p.wrong for p in pairs]}
    lens = analyses.logit_lens(smalltown, prompts, positions=[-1])
    patched = analyses.activation_patching(smalltown, prompts, [pair.corrupt for pair in pairs], align=True, **answers)
    last = (patched["clean_token_id"] >= 0).sum("position").to_numpy() - 1
    at_last = patched["effect"].to_numpy()[np.arange(40), :, last]
    restored = (at_last > 0.5).argmax(1)
    stands = lens["stands_from"].to_numpy()[:, 0]
    assert (np.abs(stands - restored) <= 1).mean() >= 0.9


def test_on_ioi_the_answer_appears_where_patching_says_that_it_is_written(smalltown):
    """At the last token the answer leads from the layer at which patching the stream there restores a third of the difference."""
    pairs = task("ioi").sample(40, seed=3)
    prompts, answers = (
        [pair.clean for pair in pairs],
        {"answer": [p.answer for p in pairs], "wrong": [p.wrong for p in pairs]},
    )
    lens = analyses.logit_lens(smalltown, prompts)
    patched = analyses.activation_patching(smalltown, prompts, [pair.corrupt for pair in pairs], **answers)
    last = (lens["token_id"] >= 0).sum("position").to_numpy() - 1
    stands = lens["stands_from"].to_numpy()[np.arange(40), last]
    at_last = patched["effect"].to_numpy()[np.arange(40), :, last]  # [pair, layer]
    restored = np.where((at_last > 1 / 3).any(1), (at_last > 1 / 3).argmax(1), smalltown.config.n_layers)
    assert (np.abs(stands - restored) <= 1).mean() >= 0.9
