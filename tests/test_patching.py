"""Activation patching: toys with known answers, the slow twin, and a real circuit."""

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import random_tokens, tiny
from scipy import stats

import analyses
from interp import PAD, ModelConfig, Transformer
from interp.errors import InterpError, ResultError, TokenError
from interp.names import AXES
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


def test_prompts_of_unequal_length_are_patched_where_they_match():
    model = tiny()
    clean, corrupt = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[1, 2, 7, 8, 9, 4, 6]])
    result = analyses.activation_patching(
        model, clean, corrupt, answer=3, wrong=4, align=True, site="resid_mid", smallest_gap=0.0
    )
    assert result["matched_position"][0].to_numpy().tolist() == [0, 1, -1, -1, -1, 3, 5]
    _, cache = model.run_with_cache(clean)
    for layer in range(3):
        for at, there in ((0, 0), (1, 1), (5, 3), (6, 5)):

            def put(value, hook, at=at, there=there):
                value[0, at] = cache[hook.name][0, there]

            with model.hooks({f"blocks.{layer}.hook_resid_mid": put}):
                logits = model(corrupt)[0, -1]
            assert result["value"][0, layer, at].item() == pytest.approx(float(logits[3] - logits[4]), abs=1e-10)
    assert result["value"][0, :, [2, 3, 4]].isnull().all()
    noising = analyses.activation_patching(
        model, clean, corrupt, answer=3, wrong=4, align=True, direction="noising", smallest_gap=0.0
    )
    assert noising["matched_position"][0].to_numpy().tolist() == [0, 1, -1, 5, -1, 6]
    with pytest.raises(InterpError, match="patterns of prompts of unequal length cannot be aligned"):
        analyses.activation_patching(model, clean, corrupt, answer=3, wrong=4, align=True, site="pattern")
    equally_long = torch.tensor([[1, 2, 9, 9, 5, 6]])  # a stretch of the same length is matched with what it replaces
    result = analyses.activation_patching(model, clean, equally_long, answer=3, wrong=4, align=True, smallest_gap=0.0)
    assert "matched_position" not in result.coords


def test_equal_prompts_have_no_effect_whatever_is_patched():
    model, tokens = tiny(), random_tokens(2, 6, seed=1)
    for site in SITES:
        for direction in ("denoising", "noising"):
            with pytest.raises(
                ResultError, match="pair 0: the logit difference of the clean and the corrupt run are nearly"
            ):
                analyses.activation_patching(model, tokens, tokens, answer=3, wrong=4, site=site, direction=direction)
            result = analyses.activation_patching(
                model, tokens, tokens, answer=3, wrong=4, site=site, direction=direction, smallest_gap=0.0
            )
            change = result["value"] - result["corrupt_baseline"]
            assert (change == 0).all()


def test_grouped_keys_and_values_have_heads_of_their_own():
    config = ModelConfig(
        n_layers=2, d_model=16, n_heads=4, d_head=4, d_mlp=32, n_ctx=24, d_vocab=50, init_std=0.3, n_kv_heads=2
    )  # fmt: skip
    model, clean, corrupt = tiny(config=config), random_tokens(1, 5, seed=1), random_tokens(1, 5, seed=2)
    result = analyses.activation_patching(model, clean, corrupt, answer=3, wrong=4, site="v")
    assert result["value"].dims == ("prompt", "layer", "kv_head")
    _, cache = model.run_with_cache(clean)

    def put(value, hook):
        value[:, :, 1] = cache[hook.name][:, :, 1]

    with model.hooks({"blocks.1.attn.hook_v": put}):
        logits = model(corrupt)[0, -1]
    assert result["value"][0, 1, 1].item() == pytest.approx(float(logits[3] - logits[4]), abs=1e-10)


def test_statistics_over_pairs_and_any_memory_bound():
    model, clean, corrupt = tiny(), random_tokens(6, 5, seed=1), random_tokens(6, 5, seed=2)
    arguments = {"answer": 3, "wrong": 4, "site": "attn_out", "smallest_gap": 0.0}
    result = analyses.activation_patching(model, clean, corrupt, **arguments)
    small = analyses.activation_patching(model, clean, corrupt, **arguments, max_bytes=1)
    np.testing.assert_allclose(small["value"], result["value"], atol=1e-10)
    effect = result["effect"].to_numpy()
    np.testing.assert_allclose(result["effect_mean"], effect.mean(0))
    np.testing.assert_allclose(result["effect_standard_error"], stats.sem(effect, axis=0))
    drawn = stats.bootstrap(
        (effect[:, 1, 3],), np.mean, n_resamples=20_000, confidence_level=1 - 2 * 0.002432, rng=1, method="percentile"
    )
    spread = result["effect_standard_error"][1, 3].item()
    np.testing.assert_allclose(result["effect_interval"][:, 1, 3], drawn.confidence_interval, atol=0.3 * spread)


@pytest.mark.parametrize(
    "analysis",
    [
        "activation_patching",
        "compare_patching",
        "attribution_patching",
        "causal_tracing",
        "ablate_heads",
        "direct_logit_attribution",
    ],
)
def test_results_are_kept_whole(smalltown, tmp_path, analysis):
    pair = {"answer": " Mary", "wrong": " John"}
    prompts = [DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt]
    if analysis == "causal_tracing":
        prompts, pair = ["The capital of France is"], {"subject": "France"}
    elif analysis == "ablate_heads":
        prompts, pair = prompts[:1], pair | {"heads": [(4, 1)]}
    elif analysis == "direct_logit_attribution":
        prompts = prompts[:1]
    result = getattr(analyses, analysis)(smalltown, *prompts, **pair)
    analyses.save(result, tmp_path / "result.nc")
    xr.testing.assert_identical(analyses.load(tmp_path / "result.nc"), result)
    assert result.attrs["weight_hash"] == smalltown.weight_hash()
    assert set(result.dims) <= set(AXES)
    for variable in result.data_vars.values():
        assert variable.attrs["units"]
        assert variable.attrs["long_name"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "sideways"}, "unknown direction 'sideways'"),
        ({"replacement": "means"}, "unknown replacement 'means'. Did you mean 'mean'"),
        ({"metric": "logits"}, "unknown metric 'logits'"),
        ({"layers": [6]}, "layers 0 to 5"),
        ({"layers": []}, "layers 0 to 5"),
        ({"window": 7}, "a window of 7 layers; the model has 6"),
        ({"replacement": "add"}, "needs vector="),
        ({"replacement": "add", "vector": torch.zeros(3)}, r"shape \(3,\) at resid_pre"),
        ({"vector": torch.zeros(128)}, "nothing else takes one"),
        ({"site": "pattern", "replacement": "mean"}, "a mean pattern means nothing"),
        ({"replacement": "mean_by_position", "reference": "Mary went"}, "longest reference prompt has 3 tokens"),
        ({"wrong": None}, "needs a wrong answer to compare with .wrong="),
        ({"metric": lambda logits, pair: logits}, r"returned shape .*; expected \(1,\)"),
    ],
)
def test_options_that_cannot_be(smalltown, options, message):
    arguments = {"answer": " Mary", "wrong": " John"} | options
    with pytest.raises(InterpError, match=message):
        analyses.activation_patching(smalltown, DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt, **arguments)


def test_a_site_that_the_model_lacks():
    config = ModelConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32, n_ctx=24, d_vocab=50, mlp="none")
    with pytest.raises(InterpError, match="has no such value"):
        analyses.activation_patching(
            tiny(config=config), random_tokens(1), random_tokens(1, seed=1), answer=3, wrong=4, site="mlp_out"
        )


def test_progress_is_shown_on_standard_error(smalltown, capfd):
    analyses.activation_patching(
        smalltown, DEFAULT_PAIR.clean, DEFAULT_PAIR.corrupt, answer=" Mary", wrong=" John", progress=True
    )
    captured = capfd.readouterr()
    assert "patching" in captured.err
    assert captured.out == ""


def test_padding_may_stand_anywhere():
    model, clean, corrupt = tiny(), random_tokens(2, 6, seed=1), random_tokens(2, 6, seed=2)
    for tokens in (clean, corrupt):
        tokens[1, 4:] = PAD
    arguments = {"answer": 3, "wrong": 4, "site": "z", "replacement": "mean_by_position", "smallest_gap": 0.0}
    expected = analyses.activation_patching(model, clean, corrupt, **arguments)
    shifted = (torch.stack([tokens[0], tokens[1].roll(2)]) for tokens in (clean, corrupt))
    found = analyses.activation_patching(model, *shifted, **arguments)
    np.testing.assert_allclose(found["value"], expected["value"], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision(dtype):
    exact, half = tiny(), tiny(dtype=dtype)
    arguments = (random_tokens(3, 5, seed=1), random_tokens(3, 5, seed=2))
    options = {"answer": 3, "wrong": 4, "site": "z", "smallest_gap": 0.0}
    expected, found = (analyses.activation_patching(model, *arguments, **options) for model in (exact, half))
    assert found["effect_mean"].dtype == np.float64
    np.testing.assert_allclose(found["value"], expected["value"], atol=0.1)
    screened = analyses.attribution_patching(half, *arguments, **options, verify=2)
    assert screened["effect"].notnull().sum() == 6
    traced = analyses.causal_tracing(half, arguments[0], subject=[1], answer=3, draws=2, smallest_gap=0.0)
    assert traced["value"].dtype == np.float32


@pytest.mark.parametrize("gap", [-1.0, float("nan")])
@pytest.mark.parametrize(
    "call",
    [analyses.activation_patching, analyses.attribution_patching, analyses.compare_patching, analyses.edge_patching],
)
def test_a_least_gap_that_is_none_is_refused_before_any_run(call, gap, monkeypatch):
    model = tiny()
    monkeypatch.setattr(type(model), "run_blocks", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(InterpError, match="smallest_gap must be a number of 0 or more"):
        call(model, random_tokens(1, 4), random_tokens(1, 4, seed=1), answer=3, wrong=4, smallest_gap=gap)
