"""Activation patching: toys with known answers, the slow twin, and a real circuit."""

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
from interp import ModelConfig, Transformer
from interp.errors import InterpError, ResultError, TokenError
from interp.zoo import DEFAULT_PAIR


def toy() -> Transformer:
    """Embeddings (3, -3), (-3, 3), no positions, and blocks that add nothing: logits 6 for the last token itself, -6 for the other."""
    config = ModelConfig(n_layers=2, d_model=2, n_heads=1, d_head=2, d_mlp=1, n_ctx=4, d_vocab=2, norm_eps=1e-12)
    model = Transformer(config).requires_grad_(False).double()
    for name, weight in model.named_parameters():
        weight.fill_(1.0 if name.endswith("weight") and weight.ndim == 1 else 0.0)
    model.W_E.copy_(torch.tensor([[3.0, -3.0], [-3.0, 3.0]]))
    return model


def test_a_toy_by_hand():
    result = analyses.activation_patching(toy(), torch.tensor([[1, 0]]), torch.tensor([[1, 1]]), answer=0, wrong=1)
    assert result["clean_baseline"].item() == pytest.approx(12, abs=1e-6)
    assert result["corrupt_baseline"].item() == pytest.approx(-12, abs=1e-6)
    expected = np.array([[[-12.0, 12.0], [-12.0, 12.0]]])
    np.testing.assert_allclose(result["value"], expected, atol=1e-5)
    np.testing.assert_allclose(result["effect"], [[[0.0, 1.0], [0.0, 1.0]]], atol=1e-6)


SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "mlp_post")


def by_hand(model, clean, corrupt, site, *, direction="denoising", replacement="resample", by_position=False, window=1):
    """The logit difference 3 - 4 of one whole hooked run for each cell."""
    base, source = (corrupt, clean) if direction == "denoising" else (clean, corrupt)
    point = {"z": "attn.hook_", "q": "attn.hook_", "k": "attn.hook_", "v": "attn.hook_", "pattern": "attn.hook_"}
    prefix = "mlp.hook_post" if site == "mlp_post" else point.get(site, "hook_") + site
    _, cache = model.run_with_cache(source)
    length, heads = clean.shape[1], {"mlp_post": 32, **dict.fromkeys(point, 2)}.get(site)
    positions = range(length) if by_position or heads is None else [slice(None)]
    found = []
    for layer in range(3):
        names = [
            f"blocks.{at}.{prefix}" for at in range(layer - (window - 1) // 2, layer + window // 2 + 1) if 0 <= at < 3
        ]
        for inner in range(heads) if heads else [None]:
            for position in positions:

                def put(value, hook, inner=inner, position=position):
                    at = (0, position) if inner is None else (0, position, inner)
                    if "key" in hook.axes:
                        at = (0, inner, position)
                    mean = cache[hook.name][0].mean(0)
                    new = {"resample": cache[hook.name][at], "zero": torch.zeros(()), "mean": mean}[replacement]
                    value[at] = new if replacement != "mean" or inner is None else mean[inner]

                with model.hooks(dict.fromkeys(names, put)):
                    logits = model(base)[0, -1]
                found.append(float(logits[3] - logits[4]))
    shape = [3, *([heads] if heads else []), *([length] if len(positions) > 1 else [])]
    return np.array(found).reshape(shape)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_every_site_equals_the_loop_of_whole_hooked_runs(site, direction):
    model, clean, corrupt = tiny(), random_tokens(1, 6, seed=1), random_tokens(1, 6, seed=2)
    result = analyses.activation_patching(
        model, clean, corrupt, answer=3, wrong=4, site=site, direction=direction, max_bytes=100_000
    )
    expected = by_hand(model, clean, corrupt, site, direction=direction)
    np.testing.assert_allclose(result["value"][0], expected, atol=1e-9)
    assert np.ptp(expected) > 0.05  # the patches do move the answer


@pytest.mark.parametrize(
    ("site", "options"),
    [
        ("z", {"by_position": True}),
        ("pattern", {"by_position": True}),
        ("mlp_post", {"by_position": True}),
        ("attn_out", {"window": 2}),
        ("z", {"window": 3}),
        ("z", {"replacement": "zero", "direction": "noising"}),
        ("mlp_out", {"replacement": "mean", "direction": "noising"}),
        ("k", {"replacement": "mean", "direction": "denoising"}),
    ],
)
def test_options_equal_the_loop_of_whole_hooked_runs(site, options):
    model, clean, corrupt = tiny(), random_tokens(1, 5, seed=1), random_tokens(1, 5, seed=2)
    result = analyses.activation_patching(model, clean, corrupt, answer=3, wrong=4, site=site, **options)
    np.testing.assert_allclose(result["value"][0], by_hand(model, clean, corrupt, site, **options), atol=1e-9)


def test_nothing_before_the_first_difference_matters():
    model = tiny()
    clean = random_tokens(1, 8, seed=1)
    corrupt = clean.clone()
    corrupt[0, 4] = (corrupt[0, 4] + 1) % 50
    result = analyses.activation_patching(model, clean, corrupt, answer=3, wrong=4)
    np.testing.assert_allclose(result["effect"][0, :, :4], 0, atol=1e-6)
    assert result["effect"][0, 0, 4].item() == pytest.approx(1, abs=1e-6)  # the embedding of the one token that differs
    np.testing.assert_allclose(result["effect"][0, 0, 5:], 0, atol=1e-6)


def test_several_pairs_keep_their_values(smalltown):
    one = (
        "Mary and John were at the park. John showed a ring to",
        "Mary and John were at the park. Mary showed a ring to",
    )
    both = analyses.activation_patching(
        smalltown,
        [DEFAULT_PAIR.clean, one[0]],
        [DEFAULT_PAIR.corrupt, one[1]],
        answer=" Mary",
        wrong=[" John", " John"],
    )
    alone = analyses.activation_patching(smalltown, *one, answer=" Mary", wrong=" John")
    length = alone.sizes["position"]
    np.testing.assert_allclose(both["effect"][1, :, :length], alone["effect"][0], atol=1e-4)
    padding = both["clean_token_id"][1].to_numpy() == -1
    assert both["effect"][1, :, padding].isnull().all()


def test_on_ioi_the_answer_moves_from_the_second_name_to_the_end(smalltown):
    result = analyses.activation_patching(
        smalltown, DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt, answer=" Mary", wrong=" John"
    )
    assert result["clean_baseline"].item() > 2
    assert result["corrupt_baseline"].item() < -2
    tokens = result["clean_token"][0].to_numpy().tolist()
    second = len(tokens) - 1 - tokens[::-1].index(" John")
    assert int(np.argmax(result["effect"].to_numpy()[0, 0])) == second
    assert result["effect"][0, -1, -1].item() > 0.5
    assert np.abs(result["effect"][0, :, :second]).max() < 1e-3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"corrupt": "When Mary went"},
            TokenError,
            r"(?s)clean prompt has 15 tokens and the corrupt one 4.*differ at position 3.*clean: .*' and'",
        ),
        ({"corrupt": [DEFAULT_PAIR.corrupt] * 2}, TokenError, "1 clean prompts but 2 corrupt"),
        ({"corrupt": ""}, TokenError, "empty"),
        ({"corrupt": DEFAULT_PAIR.clean}, ResultError, "nearly the same"),
        ({"answer": " Mary John"}, TokenError, r"single token but is 2: ' Mary', ' John'"),
        ({"answer": [" Mary", " John"]}, TokenError, "2 values of answer for 1 pairs"),
        ({"wrong": 10**6}, TokenError, "wrong id 1000000 is out of range"),
        ({"site": "residpre"}, InterpError, "site 'residpre' is not supported"),
    ],
)
def test_requests_that_cannot_be(smalltown, change, error, message):
    arguments = {
        "clean": DEFAULT_PAIR.clean,
        "corrupt": DEFAULT_PAIR.corrupt,
        "answer": " Mary",
        "wrong": " John",
    } | change
    with pytest.raises(error, match=message):
        analyses.activation_patching(smalltown, **arguments)
