"""Direct logit attribution: the parts sum, each is the slope of a frozen-scale model, and totals are whole hooked runs."""

import json

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_options import build, configs

import analyses
from interp import PAD, ModelConfig
from interp.errors import ConfigError, InterpError, TokenError
from interp.processing import uncapped
from interp.zoo import DEFAULT_PAIR, task

METRICS = ("logit_difference", "logit", "log_probability")


def value(model, row, metric, answer=3, wrong=4):
    logits = model(row)[0, -1]
    if metric == "logit_difference":
        return logits[answer] - logits[wrong]
    return logits[answer] if metric == "logit" else logits.log_softmax(-1)[answer]


@settings(max_examples=25, deadline=None)
@given(options=configs.filter(lambda o: o["norm_placement"] != "post"), metric=st.sampled_from(METRICS))
def test_the_parts_sum_to_the_metric_for_any_architecture(options, metric):
    model, tokens = build(**options), random_tokens(2, 5)
    tokens[1, 3:] = PAD
    result = analyses.direct_logit_attribution(model, tokens, answer=3, wrong=4, metric=metric)
    for prompt, row in enumerate((tokens[:1], tokens[1:, :3])):
        assert result["metric"][prompt].item() == pytest.approx(float(value(uncapped(model), row, metric)), abs=1e-9)
    assert json.loads(result.attrs["parameters"])["before_cap"] == (options["logit_cap"] is not None)
    np.testing.assert_allclose(result["component_effect"].sum("component"), result["metric"], atol=1e-9)
    np.testing.assert_allclose(result["residual"], 0, atol=1e-9)
    np.testing.assert_allclose(result["source_effect"].sum("key"), result["head_effect"], atol=1e-9)
    for layer in range(model.config.n_layers):
        attention = result["component_effect"].sel(component=f"{layer}.attn")
        np.testing.assert_allclose(result["head_effect"][:, layer].sum("head"), attention, atol=1e-9)
    assert (result["source_effect"][1, ..., 3:] == 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_each_part_is_the_slope_of_the_frozen_scale_model(metric):
    """A part of the stream is made a little larger at the end alone, with the norm's scale held: what the metric gains per unit."""
    model, tokens = tiny(), random_tokens(1, 6, seed=1)
    result = analyses.direct_logit_attribution(model, tokens, answer=3, wrong=4, metric=metric, top_neurons=96)
    _, cache = model.run_with_cache(tokens)
    parts = {"embed": cache["hook_embed"], "pos_embed": cache["hook_pos_embed"]}
    for layer in range(3):
        parts[f"{layer}.mlp"] = cache["mlp_out", layer]
        for head in range(2):
            parts[(layer, head)] = cache["result", layer][:, :, head]
    post, (place,) = (
        cache["mlp.hook_post", 1] if ("mlp.hook_post", 1) in cache else cache["blocks.1.mlp.hook_post"],
        (7,),
    )
    parts["neuron"] = post[..., place, None] * model.blocks[1].mlp.output.weight[:, place]
    step = 1e-6
    for name, part in parts.items():

        def gained(sign, part=part):
            def grow(stream, hook):
                return stream + sign * step * part

            def hold(scale, hook):
                return cache["ln_final.hook_scale"]

            with model.hooks({"blocks.2.hook_resid_post": grow, "ln_final.hook_scale": hold}):
                return value(model, tokens, metric)

        slope = float(gained(1) - gained(-1)) / (2 * step)
        if isinstance(name, tuple):
            found = result["head_effect"][0][name].item()
        elif name == "neuron":
            which = (result["neuron_layer"] == 1) & (result["neuron"] == place)
            found = result["neuron_effect"][0, which.to_numpy()].item()
        else:
            found = result["component_effect"].sel(component=name).item()
        assert found == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_total_effects_are_whole_hooked_runs(ablation):
    model, tokens = tiny(), random_tokens(2, 6, seed=1)
    result = analyses.direct_logit_attribution(model, tokens, answer=3, wrong=4, ablation=ablation)
    _, cache = model.run_with_cache(tokens)
    for layer in range(3):
        z = cache["z", layer]
        for head in range(2):
            new = z[:, :, head].mean((0, 1)) if ablation == "mean" else torch.zeros(8, dtype=torch.float64)

            def out(value, hook, head=head, new=new):
                value[:, :, head] = new

            for prompt in range(2):
                row = tokens[prompt : prompt + 1]
                with model.hooks({f"blocks.{layer}.attn.hook_z": out}):
                    after = value(model, row, "logit_difference")
                total = float(value(model, row, "logit_difference") - after)
                assert result["total_effect"][prompt, layer, head].item() == pytest.approx(total, abs=1e-9)
    np.testing.assert_allclose(result["self_repair"], result["replaced_effect"] - result["total_effect"])
    if ablation == "zero":
        np.testing.assert_allclose(result["replaced_effect"], result["head_effect"], atol=1e-12)


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_in_a_linear_model_direct_equals_total(ablation):
    """One layer of attention without norms: nothing stands above a head to repair anything."""
    config = ModelConfig(
        n_layers=1,
        d_model=16,
        n_heads=2,
        d_head=8,
        d_mlp=32,
        n_ctx=24,
        d_vocab=50,
        norm="none",
        mlp="none",
        init_std=0.3,
    )
    result = analyses.direct_logit_attribution(
        tiny(config=config), random_tokens(3, 6, seed=1), answer=3, wrong=4, ablation=ablation
    )
    np.testing.assert_allclose(result["self_repair"], 0, atol=1e-12)
    assert np.abs(result["total_effect"]).max() > 1e-5


def test_on_ioi_the_head_that_patching_finds_reads_the_giver_and_writes_against_the_name(smalltown):
    pairs = task("ioi").sample(40, seed=3)
    answers = {"answer": [pair.answer for pair in pairs], "wrong": [pair.wrong for pair in pairs]}
    prompts = [pair.clean for pair in pairs]
    direct = analyses.direct_logit_attribution(smalltown, prompts, **answers)
    patched = analyses.activation_patching(smalltown, prompts, [pair.corrupt for pair in pairs], **answers, site="z")
    best = np.unravel_index(int(patched["effect_mean"].to_numpy().argmax()), (6, 4))
    low, high = direct["head_effect_interval"][(slice(None), *best)].to_numpy()
    assert 0 < low < direct["head_effect_mean"][best].item() < high
    by_source = direct["source_effect"][(slice(None), *best)].to_numpy()
    for number, wrong in enumerate(answers["wrong"]):
        tokens = direct["token"][number].to_numpy().tolist()
        assert by_source[number].argmax() == len(tokens) - 1 - tokens[::-1].index(wrong)


def test_the_largest_neurons_come_first(smalltown):
    result = analyses.direct_logit_attribution(
        smalltown, DEFAULT_PAIR.clean, answer=" Mary", wrong=" John", top_neurons=5
    )
    size = np.abs(result["neuron_effect"][0].to_numpy())
    assert (np.diff(size) <= 0).all()
    assert result.sizes["top"] == 5
    assert "component_effect_mean" not in result


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "probability"}, InterpError, "'probability' cannot be attributed"),
        ({"metric": "logit_difference", "wrong": None}, InterpError, "needs a wrong answer to compare with .wrong="),
        ({"ablation": "noise"}, InterpError, "unknown ablation 'noise'"),
        ({"top_neurons": -1}, InterpError, "0 or more"),
        ({"answer": 50}, TokenError, "out of range"),
    ],
)
def test_requests_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        analyses.direct_logit_attribution(tiny(), random_tokens(1), **({"answer": 3, "wrong": 4} | options))


def test_a_post_norm_stream_is_no_sum():
    with pytest.raises(ConfigError, match="direct_logit_attribution: a post-norm model"):
        analyses.direct_logit_attribution(build(norm_placement="post"), random_tokens(1), answer=3)
