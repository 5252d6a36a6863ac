"""Causal tracing: noise, restoration, and what the subject is."""

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
from interp.errors import InterpError, ResultError, TokenError

CAPITAL = "The capital of France is"


def noise_of(result, model, prompt, sigma=3.0, draws=4, seed=0):
    """The documented noise: from the prompt's own generator, on the blurred tokens."""
    where = result["blurred"][prompt].to_numpy()
    generator = torch.Generator().manual_seed(seed + prompt)
    drawn = torch.randn(draws, int(where.sum()), model.config.d_model, generator=generator, dtype=torch.float64)
    noise = torch.zeros(draws, len(where), model.config.d_model, dtype=torch.float64)
    noise[:, where] = sigma * model.W_E.double().std() * drawn
    return noise


@pytest.mark.parametrize("site", ["resid_post", "mlp_out", "z"])
@pytest.mark.parametrize("window", [1, 3])
def test_equals_whole_hooked_runs_with_the_same_noise(site, window):
    model, tokens = tiny(), random_tokens(2, 6, seed=1)
    result = analyses.causal_tracing(
        model, tokens, subject=[[1, 2], [3]], answer=5, site=site, draws=4, window=window, smallest_gap=0.0, seed=7
    )
    point = {"resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out", "z": "attn.hook_z"}[site]
    for prompt in range(2):
        row, noise = tokens[prompt : prompt + 1], noise_of(result, model, prompt, seed=7)
        _, cache = model.run_with_cache(row)
        for draw in range(4):

            def blur(value, hook, shift=noise[draw]):
                return value + shift

            with model.hooks({"hook_embed": blur}):
                corrupt = model(row)[0, -1].softmax(-1)[5]
            assert result["corrupt_baseline"][prompt, draw].item() == pytest.approx(float(corrupt), abs=1e-12)
            for layer in range(3):
                layers = [at for at in range(layer - (window - 1) // 2, layer + window // 2 + 1) if 0 <= at < 3]
                for cell in range(2 if site == "z" else 6):

                    def restore(value, hook, cell=cell, cache=cache):
                        at = (0, slice(None), cell) if site == "z" else (0, cell)
                        value[at] = cache[hook.name][at]

                    names = {f"blocks.{at}.{point}": restore for at in layers}
                    with model.hooks({"hook_embed": blur} | names):
                        p = model(row)[0, -1].softmax(-1)[5]
                    assert result["value"][prompt, draw, layer, cell].item() == pytest.approx(float(p), abs=1e-10)
    clean = model(tokens)[:, -1].softmax(-1)[:, 5].numpy()
    np.testing.assert_allclose(result["clean_baseline"], clean)
    means, corrupt = result["value"].mean("draw").to_numpy(), result["corrupt_baseline"].mean("draw").to_numpy()
    expected = (means - corrupt[:, None, None]) / (clean - corrupt)[:, None, None]
    np.testing.assert_allclose(result["effect"], expected, atol=1e-9)
    assert np.ptp(result["value"].to_numpy()) > 1e-3


def test_the_last_layer_s_last_position_restores_everything_and_the_past_nothing(smalltown):
    result = analyses.causal_tracing(smalltown, CAPITAL, subject="France")
    assert result["blurred"][0].to_numpy().tolist() == [False] * 4 + [True, False]
    assert result.sizes["draw"] == 10
    effect = result["effect"][0].to_numpy()
    assert effect[-1, -1] == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(effect[:, :4], 0, atol=1e-5)
    assert effect[0, 4] > 0.5  # the fact is looked up at the subject
    assert result["answer_id"].item() == smalltown.to_single_token(" Paris")
    assert result["clean_baseline"].item() > 0.9 > result["corrupt_baseline"].max().item() - 1


def test_the_noise_of_a_prompt_is_its_own(smalltown):
    other = "The capital of Italy is"
    both = analyses.causal_tracing(smalltown, [CAPITAL, other], subject=["France", "Italy"], draws=3)
    alone = analyses.causal_tracing(smalltown, other, subject="Italy", draws=3, seed=1)
    np.testing.assert_allclose(both["value"][1], alone["value"][0], atol=1e-5)
    assert {"effect_mean", "effect_interval"} <= set(both)
    again = analyses.causal_tracing(smalltown, [CAPITAL, other], subject=["France", "Italy"], draws=3)
    np.testing.assert_array_equal(both["value"], again["value"])


def test_part_of_a_token_blurs_the_token(smalltown):
    found = analyses.causal_tracing(smalltown, CAPITAL, subject="apital of", draws=1, smallest_gap=0.0)
    assert found["blurred"][0].to_numpy().tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subject": "Spain"}, TokenError, "stands 0 times"),
        ({"subject": "a"}, TokenError, "stands 3 times.*\n.*tokens"),
        ({"subject": ""}, TokenError, "is empty"),
        ({"subject": [6]}, TokenError, r"positions \[6\].*0 to 5"),
        ({"subject": []}, TokenError, r"positions \[\]"),
        ({"subject": ["France", "of"]}, TokenError, "2 subjects for 1 prompts"),
        ({"subject": "France", "draws": 0}, InterpError, "at least one draw"),
        ({"subject": "France", "sigma": 0.0}, InterpError, "positive sigma"),
        ({"subject": "France", "answer": " fish"}, ResultError, "nearly the same"),
    ],
)
def test_requests_that_cannot_be(smalltown, options, error, message):
    with pytest.raises(error, match=message):
        analyses.causal_tracing(smalltown, CAPITAL, **options)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("café", " café"),
        ("😀", "😀"),
        ("é", "é"),
        ("café 😀", " café 😀"),
        (" 数学", " 数学"),
        ("n\u0303", "en\u0303"),
    ],
)
def test_subjects_whose_characters_are_several_tokens(smalltown, subject, text):
    prompt = "The café 😀 near the 数学 sen\u0303or is"
    result = analyses.causal_tracing(smalltown, prompt, subject=subject, answer=" Paris", draws=1, smallest_gap=0.0)
    ids = smalltown.to_tokens(prompt)[0]
    held = ids[torch.from_numpy(result["blurred"][0].to_numpy())]
    assert smalltown.tokenizer.decode(held.tolist()) == text
    by_ids = analyses.causal_tracing(smalltown, ids, subject=subject, answer=" Paris", draws=1, smallest_gap=0.0)
    np.testing.assert_array_equal(by_ids["blurred"], result["blurred"])
    assert analyses.plot(result).data


def test_each_prompt_has_its_own_subject_in_text_and_in_ids(smalltown):
    prompts = ["The café of Paris is", "In Paris the café"]
    one = analyses.causal_tracing(smalltown, prompts, subject=["café", "Paris"], answer=" a", draws=1, smallest_gap=0.0)
    ids = smalltown.to_tokens(prompts)
    two = analyses.causal_tracing(smalltown, ids, subject=["café", "Paris"], answer=" a", draws=1, smallest_gap=0.0)
    np.testing.assert_array_equal(one["blurred"], two["blurred"])
    without = analyses.causal_tracing(
        smalltown, prompts, subject=["café", "Paris"], answer=" a", draws=1, smallest_gap=0.0, bos=False
    )
    np.testing.assert_array_equal(one["blurred"][:, 1:], without["blurred"])
