"""The logit lens."""

import pytest
import torch
from conftest import random_tokens, tiny

import analyses
from interp import PAD, ModelConfig, Transformer
from interp.errors import TokenError


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
    for layer in range(3):
        stream = model.run_blocks(model.embed(tokens), stop_at_layer=layer)
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
    assert top["top_id"][0, :, 0].to_numpy().tolist() == [[0, 1], [1, 0]]
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


def test_requests_that_cannot_be(smalltown):
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
