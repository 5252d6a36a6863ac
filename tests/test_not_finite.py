"""NaN stays NaN, or is an error that names the first hook point that is none: it is never a perfect result."""

import json

import numpy as np
import pytest
import torch
from conftest import TINY, random_tokens, tiny
from test_options import build

import analyses
import interp
from analyses import cascade
from analyses.answers import top_predictions
from analyses.cascade import agreement
from analyses.lenses.vocabulary import divergence, ranks
from analyses.report import collect, summary
from interp import PAD, metrics
from interp.errors import ResultError
from interp.finite import first_not_finite
from interp.zoo.evaluation import last_logits

PAIR = {"answer": 3, "wrong": 4}
FIRST = r"blocks\.1\.mlp\.hook_pre, at position 0"


def broken(weight: str = "blocks.1.mlp.input.bias", at: int = 0) -> interp.Transformer:
    """One NaN in a weight."""
    model = tiny(dtype=torch.float32)
    model.get_parameter(weight).view(-1)[at] = torch.nan
    return model


@pytest.fixture(scope="module")
def town() -> interp.Transformer:
    model = interp.load("smalltown")
    model.get_parameter("blocks.1.mlp.input.bias")[0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("weight", "at", "first"),
    [
        ("blocks.1.ln1.bias", 0, "blocks.1.ln1.hook_out, at position 0"),
        ("blocks.1.attn.qkv.bias", 32, "blocks.1.attn.hook_v, at position 0"),
        ("blocks.1.attn.o.bias", 0, "blocks.1.hook_attn_out, at position 0"),
        ("blocks.1.mlp.input.bias", 0, "blocks.1.mlp.hook_pre, at position 0"),
        ("blocks.1.mlp.output.bias", 0, "blocks.1.hook_mlp_out, at position 0"),
        ("ln_final.weight", 0, "ln_final.hook_out, at position 0"),
        ("W_pos", 16, "hook_pos_embed, at position 1"),
    ],
)
def test_the_first_hook_point_is_named(weight, at, first):
    model = broken(weight, at)
    assert first_not_finite(model, random_tokens(1, 4)) == first
    with pytest.raises(
        ResultError, match=rf"next token's logit is not finite\. The first value that is not: {first}.*{weight}"
    ):
        model.generate(random_tokens(1, 4), max_new_tokens=2)


def test_what_is_infinite_by_right_is_not_blamed():
    """Scores under the causal mask, and what padding holds."""
    tokens = random_tokens(2, 5)
    tokens[1, 3:] = PAD
    for options in ({}, {"positions": "alibi"}, {"positions": "rotary"}, {"causal": False}, {"norm_placement": "post"}):
        assert first_not_finite(build(**options), tokens) is None, options
    assert tiny()(tokens)[1, 3:].isnan().all()
    model = tiny()
    model.W_E[7] = torch.inf
    tokens = torch.tensor([[1, 2, PAD], [1, 7, 2]])
    assert first_not_finite(model, tokens) == "hook_embed, at position 1 of prompt 1"
    untied = tiny(config=interp.ModelConfig(**{**TINY.to_dict(), "tied": False, "unembed_bias": True}))
    untied.b_U[3] = torch.nan
    with pytest.raises(ResultError, match=r"every hook point holds numbers.*not finite: b_U\."):
        untied.generate(random_tokens(1, 3), max_new_tokens=1)


def test_metrics_of_nan_are_nan():
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, torch.nan, 2.0], [0.0, torch.inf, 2.0], [-torch.inf, 1.0, 2.0]])
    log_p = metrics.log_probabilities(logits)
    for found in (
        metrics.entropy(log_p),
        metrics.kl_divergence(log_p, log_p),
        metrics.rank(logits, torch.tensor([2] * 4)),
    ):
        assert found.isnan().tolist() == [False, True, True, False]
    even = torch.zeros(4, 3).log_softmax(-1)
    assert metrics.kl_divergence(even, log_p).isnan().tolist() == [False, True, True, False]
    assert metrics.kl_divergence(even, log_p)[3] == torch.inf  # what cannot come there comes here
    assert metrics.kl_divergence(log_p, even)[3].isfinite()
    assert metrics.rank(logits, torch.tensor([2, 2, 2, 0])).tolist()[3] == 2
    for log_q in (log_p, even):
        found = divergence(log_p, log_q[None])[0]
        torch.testing.assert_close(found, metrics.kl_divergence(log_p, log_q), equal_nan=True)
    assert divergence(even, log_p[None])[0, 3] == torch.inf
    assert ranks(log_p, torch.tensor([2] * 4)).isnan().tolist() == [False, True, True, False]
    for one in (agreement.divergence, agreement.disagreement, agreement.total_variation):
        assert one(even[1], log_p[1]).isnan()
        assert one(log_p[1], even[1]).isnan()


def test_gradients_of_entropy_and_divergence_pass_by_tokens_that_cannot_come():
    logits = torch.tensor([0.0, 1.0, -torch.inf], dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(-1)
    (metrics.entropy(log_p) + metrics.kl_divergence(log_p, torch.zeros(3).double().log_softmax(-1))).backward()
    assert torch.isfinite(logits.grad).all()


def test_lenses_propagate_it():
    tokens = random_tokens(2, 5)
    tokens[1, 4:] = PAD
    result = analyses.logit_lens(broken(), tokens, candidates=[3])
    below, above = result.sel(layer=slice(0, 1.5)), result.sel(layer=slice(2, None))
    assert above["top_probability"].isnull().all()
    assert (above["top_id"] == -1).all()
    assert set(above["top_token"].to_numpy().ravel()) == {""}
    assert below["candidate_rank"][0].notnull().all()
    assert below["entropy"][0].notnull().all()
    for name in ("kl", "final_rank"):  # the output is unknown, so nothing is known of how far any step is from it
        assert result[name].isnull().all(), name
    assert above["candidate_rank"].isnull().all()
    assert result["stands_from"].isnull().all()
    assert result["mean_kl_mean"].isnull().all()
    assert below["mean_entropy_mean"].notnull().all()
    assert above["mean_cross_entropy_mean"].isnull().all()
    for color in ("probability", "entropy", "rank", "kl"):
        assert np.isnan(np.asarray(analyses.plot(result, color=color).data[0].z, dtype=float)).any()
    whole = analyses.logit_lens(tiny(), tokens)
    assert whole["mean_cross_entropy_mean"].notnull().all()  # the last token has no true next one, by right
    split = analyses.component_lens(broken(), tokens[:1])
    assert (split["top_id"].sel(component="1.mlp") == -1).all()
    with pytest.raises(ResultError, match=f"train_tuned_lens: the KL.*{FIRST}"):
        analyses.train_tuned_lens(broken(), random_tokens(4, 6))


def test_attention_and_stream_propagate_it():
    tokens = random_tokens(2, 5)
    tokens[1, 3:] = PAD
    result = analyses.attention_patterns(broken(), tokens)
    for name in ("entropy", "distance", "on_first", "on_itself"):
        assert result[name].isnull().any("prompt").any("head").to_numpy().tolist() == [False, False, True], name
    analyses.plot(result)
    with pytest.raises(ResultError, match=r"attention_viewer: the attention of head 2\.0 from position 0 is no number"):
        analyses.attention_viewer(result)
    stream = analyses.residual_stream(broken(), tokens)
    for name in ("mean_norm", "massive", "largest", "step_cosine"):
        lost = stream[name].isel(prompt=0, missing_dims="ignore").sel(step="1.mlp")
        assert lost.isnull().all(), name
        assert stream[name].isel(prompt=0).sel(step="0.mlp").notnull().any(), name
    scores = analyses.detect_heads(broken(), count=2, length=4)
    for name in ("induction", "entropy", "current_token"):
        assert scores[f"{name}_mean"].isnull().all("head").to_numpy().tolist() == [False, False, True]


@pytest.mark.parametrize("metric", ["logit_difference", "rank", "kl", "probability"])
def test_patching_names_it(metric):
    clean, corrupt = random_tokens(1, 5, seed=1), random_tokens(1, 5, seed=2)
    model = broken()
    with pytest.raises(ResultError, match=f"activation_patching: pair 0: .* of the clean run is not finite.*{FIRST}"):
        analyses.activation_patching(model, clean, corrupt, **PAIR, metric=metric)
    if metric != "rank":
        with pytest.raises(ResultError, match=f"attribution_patching: pair 0: .*{FIRST}"):
            analyses.attribution_patching(model, clean, corrupt, **PAIR, metric=metric)
    for name, call in {
        "compare_patching": lambda: analyses.compare_patching(model, clean, corrupt, **PAIR),
        "causal_tracing": lambda: analyses.causal_tracing(model, clean, subject=[1]),
        "direct_logit_attribution": lambda: analyses.direct_logit_attribution(model, clean, **PAIR),
        "self_repair": lambda: cascade.self_repair(model, clean, (0, 0), **PAIR),
        "head": lambda: top_predictions(model, clean, [4], "head"),
    }.items():
        with pytest.raises(ResultError, match=f"{name}: .*{FIRST}"):
            call()


def test_in_one_of_two_runs_only():
    model = tiny()
    model.W_E[9] = torch.nan
    clean, corrupt = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 9, 3]])
    untied = tiny(config=interp.ModelConfig(**{**TINY.to_dict(), "tied": False}))
    untied.W_E[9] = torch.nan
    with pytest.raises(
        ResultError, match=r"pair 0: the logit difference of the corrupt run is not finite.*hook_embed, at position 1"
    ):
        analyses.activation_patching(untied, clean, corrupt, **PAIR)


def test_heads_taken_out_of_it_are_neither_right_nor_wrong():
    result = analyses.ablate_heads(broken(), random_tokens(6, 5), **PAIR, heads=[(0, 0)], controls=0)
    for name in ("logit_difference", "preferred", "correct"):
        assert result[name].isnull().all()
        assert result[f"{name}_interval"].isnull().all()


@pytest.mark.parametrize(
    "call",
    [
        lambda model, tokens: cascade.coupled(model, tokens, steps=4, seeds=1, disturbance=cascade.Nudge()),
        lambda model, tokens: cascade.coupled(model, tokens, steps=4, temperature=0.0, disturbance=cascade.Nudge()),
        lambda model, tokens: cascade.coupled(model, tokens, steps=4),
        lambda model, tokens: cascade.channels(model, tokens, steps=4, seeds=1),
        lambda model, tokens: cascade.survival(model, tokens, steps=4, seeds=1, disturbance=cascade.Nudge()),
        lambda model, tokens: cascade.reproduction(model, tokens, horizon=2),
        cascade.gain,
        cascade.light_cone,
        cascade.damping,
        cascade.ledger,
        lambda model, tokens: cascade.ledger(model, tokens, tokens.flip(0)),
        cascade.dose_response,
        cascade.jacobian_spectrum,
        cascade.lyapunov,
        cascade.participation,
        lambda model, tokens: cascade.gain(model, tokens, dose=None),
        lambda model, tokens: cascade.driven(model, tokens, steps=4, seeds=1, horizon=2),
        lambda model, tokens: cascade.commitment(model, tokens, steps=4, seeds=1),
        lambda model, tokens: cascade.wavefront(model, tokens[:1], steps=2),
        cascade.precision,
        cascade.stable_regions,
        cascade.rasters,
    ],
)
def test_the_cascade_names_it(call):
    with pytest.raises(ResultError, match=rf"is not finite\. The first value that is not: {FIRST}"):
        call(broken(), random_tokens(2, 5))


def test_generation_names_it_wherever_it_comes_in(town):
    with pytest.raises(ResultError, match="blocks.1.mlp.hook_pre"):
        town.generate("Mary went", max_new_tokens=3, temperature=0.0)
    model, tokens = tiny(), random_tokens(2, 4)

    def spoil(value, hook):
        value[1][hook.positions.expand(len(value), -1)[1] == 5] = torch.nan

    for use_cache in (True, False):
        with model.hooks({"blocks.2.hook_attn_out": spoil}):
            stream = model.stream(tokens, max_new_tokens=4, use_cache=use_cache)
            next(stream), next(stream)
            with pytest.raises(ResultError, match=r"blocks\.2\.hook_attn_out, at position 5 of prompt 1"):
                next(stream)
    with pytest.raises(ResultError, match="generate: the next token's logit"):
        town.generate_with_cache("Mary went", ["blocks.0.hook_resid_pre"], max_new_tokens=3)


def test_a_report_names_it(town):
    with pytest.raises(ResultError, match=r"evaluation: .*blocks\.1\.mlp\.hook_pre"):
        last_logits(town, ["Mary went to the"])
    with pytest.raises(ResultError, match=r"the model's prediction is not finite.*blocks\.1\.mlp\.hook_pre"):
        collect(town, "Mary went to the")
    lens = analyses.logit_lens(town, "Mary went to the")
    with pytest.raises(ResultError, match="the prediction of these results is no number"):
        summary({"lens": lens})


def test_a_reference_is_not_made_of_it(town):
    from analyses.verification import reference_of
    from analyses.verification.measures import next_token

    assert json.dumps(next_token(town, "Mary went to the", " store", bos=True)) == '{"rank": NaN, "probability": NaN}'
    pairs = [("When Mary and John went to the store, John gave a drink to", " Mary", " John"),
             ("When Mary and John went to the store, Mary gave a drink to", " John", " Mary")]  # fmt: skip
    with pytest.raises(ResultError, match=r"blocks\.1\.mlp\.hook_pre"):
        reference_of(town, pairs)
    with pytest.raises(ResultError, match="W_E holds values that are not finite"):
        analyses.embedding_structure(broken("W_E"), [3])


@pytest.mark.parametrize("length", [1, 3, 7, 10])
@pytest.mark.parametrize("place", [0, 16, 32], ids=["query", "key", "value"])
def test_a_query_key_or_value_that_is_no_number_shows_in_the_logits(place, length):
    """For few keys torch's fused kernel gives 0 where all scores of a row are NaN."""
    model = tiny()
    model.blocks[1].attn.qkv.bias[place] = torch.nan
    assert bool(model(random_tokens(1, length)).isnan().all())
