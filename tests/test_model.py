"""The forward pass: against `transformers`, against itself on other paths, and on bad input."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from conftest import TINY, random_tokens, tiny

import interp
from interp import PAD, ModelConfig, Transformer
from interp.errors import ConfigError, TokenError

CONFIGS = [
    {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16, "vocab_size": 11},
    {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 32, "vocab_size": 77, "activation_function": "gelu"},
    {
        "n_layer": 1,
        "n_head": 1,
        "n_embd": 12,
        "n_positions": 20,
        "vocab_size": 30,
        "n_inner": 20,
        "activation_function": "relu",
    },
    {
        "n_layer": 2,
        "n_head": 3,
        "n_embd": 24,
        "n_positions": 16,
        "vocab_size": 40,
        "layer_norm_epsilon": 1e-3,
        "activation_function": "silu",
    },
]
FULL = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257}


def reference(settings: dict, dtype: torch.dtype) -> transformers.GPT2LMHeadModel:
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings, initializer_range=0.1)).eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias") or ".ln_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.to(dtype)


def compare(settings: dict, tmp_path, dtype: torch.dtype, tolerance: float, length: int) -> None:
    theirs = reference(settings, torch.float64 if dtype == torch.float64 else torch.float32)
    theirs.save_pretrained(tmp_path)
    ours = interp.load(str(tmp_path), dtype=dtype)
    tokens = random_tokens(2, length, vocab=settings["vocab_size"])
    logits, cache = ours.run_with_cache(tokens, ["blocks.*.hook_resid_pre", "ln_final.hook_out"])
    with torch.no_grad():
        expected = theirs(tokens, output_hidden_states=True)
    states = [cache["resid_pre", layer] for layer in range(settings["n_layer"])] + [cache["ln_final.hook_out"]]
    assert len(states) == len(expected.hidden_states)
    for state, hidden in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(state, hidden, atol=tolerance, rtol=0)
    torch.testing.assert_close(logits, expected.logits, atol=tolerance, rtol=0)


@pytest.mark.parametrize("settings", CONFIGS)
def test_equals_transformers_float64(settings, tmp_path):
    compare(settings, tmp_path, torch.float64, 1e-10, 12)


@pytest.mark.parametrize("settings", CONFIGS[:2])
def test_equals_transformers_float32(settings, tmp_path):
    compare(settings, tmp_path, torch.float32, 1e-4, 12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_equals_transformers_at_gpt2_small_shape(tmp_path, dtype, tolerance):
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**FULL)).eval().to(dtype)
    theirs.save_pretrained(tmp_path)
    ours = interp.load(str(tmp_path), dtype=dtype)
    tokens = random_tokens(2, 24, vocab=50257)
    logits, cache = ours.run_with_cache(tokens, "blocks.*.hook_resid_pre")
    with torch.no_grad():
        expected = theirs(tokens, output_hidden_states=True)
    for layer in range(12):
        torch.testing.assert_close(cache["resid_pre", layer], expected.hidden_states[layer], atol=tolerance, rtol=0)
    torch.testing.assert_close(logits, expected.logits, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("padded", [False, True])
def test_explicit_attention_equals_fused(dtype, tolerance, padded):
    model, tokens = tiny(dtype=dtype), random_tokens()
    if padded:
        tokens[1, 6:] = PAD
    fused = model(tokens)
    for name in ("blocks.*.attn.hook_attn_scores", "blocks.*.attn.hook_pattern", "*hook_scale", "*.hook_result", None):
        explicit, _ = model.run_with_cache(tokens, name)
        torch.testing.assert_close(explicit, fused, atol=tolerance, rtol=0, equal_nan=True)


def test_every_hook_value_against_plain_arithmetic():
    """The whole block rebuilt from the definitions, weights read from the state dict."""
    model, tokens = tiny(), random_tokens(1, 7)
    _, cache = model.run_with_cache(tokens)
    weights = model.state_dict()

    def norm(x, name):
        scale = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return scale, (x - x.mean(-1, keepdim=True)) / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["W_E"][tokens] + weights["W_pos"][:7]
    same = torch.testing.assert_close
    same(cache["hook_embed"], weights["W_E"][tokens])
    same(cache["hook_pos_embed"], weights["W_pos"][:7][None])
    for layer in range(3):
        name = f"blocks.{layer}"
        same(cache["resid_pre", layer], x)
        scale, normed = norm(x, f"{name}.ln1")
        same(cache[f"{name}.ln1.hook_scale"], scale)
        same(cache[f"{name}.ln1.hook_out"], normed)
        same(cache[f"{name}.ln1.hook_normalized"] * weights[f"{name}.ln1.weight"] + weights[f"{name}.ln1.bias"], normed)
        total = weights[f"{name}.attn.o.bias"].clone()
        for head in range(2):
            rows = [slice(16 * part + 8 * head, 16 * part + 8 * head + 8) for part in range(3)]
            q, k, v = (
                normed[0] @ weights[f"{name}.attn.qkv.weight"][r].T + weights[f"{name}.attn.qkv.bias"][r] for r in rows
            )
            for short, value in zip("qkv", (q, k, v), strict=True):
                same(cache[short, layer][0, :, head], value)
            scores = q @ k.T / math.sqrt(8)
            scores[torch.ones(7, 7).triu(1).bool()] = -torch.inf
            same(cache["attn_scores", layer][0, head], scores)
            pattern = scores.exp() / scores.exp().sum(-1, keepdim=True)
            same(cache["pattern", layer][0, head], pattern)
            z = pattern @ v
            same(cache["z", layer][0, :, head], z)
            result = z @ weights[f"{name}.attn.o.weight"][:, 8 * head : 8 * head + 8].T
            same(cache["result", layer][0, :, head], result)
            total = total + result
        same(cache["attn_out", layer][0], total)
        x = x + total
        same(cache["resid_mid", layer], x)
        scale, normed = norm(x, f"{name}.ln2")
        same(cache[f"{name}.ln2.hook_out"], normed)
        pre = normed @ weights[f"{name}.mlp.input.weight"].T + weights[f"{name}.mlp.input.bias"]
        same(cache["pre", layer], pre)
        post = 0.5 * pre * (1 + torch.tanh(math.sqrt(2 / math.pi) * (pre + 0.044715 * pre**3)))
        same(cache["post", layer], post)
        out = post @ weights[f"{name}.mlp.output.weight"].T + weights[f"{name}.mlp.output.bias"]
        same(cache["mlp_out", layer], out)
        x = x + out
        same(cache["resid_post", layer], x)
    scale, normed = norm(x, "ln_final")
    same(cache["ln_final.hook_scale"], scale)
    same(cache["ln_final.hook_out"], normed)


@pytest.mark.parametrize("lengths", [(10, 10), (10, 3), (1, 10), (7, 4)])
def test_unequal_rows_equal_their_single_runs(model, lengths):
    rows = [random_tokens(1, length, seed=length) for length in lengths]
    padded = torch.full((len(rows), max(lengths)), PAD)
    for row, tokens in enumerate(rows):
        padded[row, : lengths[row]] = tokens[0]
    logits = model(padded)
    for row, tokens in enumerate(rows):
        torch.testing.assert_close(logits[row, : lengths[row]], model(tokens)[0], atol=1e-12, rtol=0)
        assert logits[row, lengths[row] :].isnan().all()


def test_padding_on_the_left_counts_no_positions(model):
    row = random_tokens(1, 6)
    padded = torch.cat([torch.full((1, 3), PAD), row], dim=1)
    torch.testing.assert_close(model(padded)[:, 3:], model(row), atol=1e-12, rtol=0)


def test_extreme_scores_give_no_nan(model, tokens):
    for size in (1e4, -1e4):
        fn = lambda scores, hook, size=size: torch.where(scores.isinf(), scores, torch.sign(scores) * size)  # noqa: E731
        with model.hooks({"blocks.*.attn.hook_attn_scores": fn}):
            logits, cache = model.run_with_cache(tokens, ["blocks.*.attn.hook_pattern"])
        assert logits.isfinite().all()
        for layer in range(3):
            torch.testing.assert_close(cache["pattern", layer].sum(-1), torch.ones(2, 2, 10, dtype=torch.float64))


def test_bfloat16_runs_and_is_close(tokens):
    model = tiny(dtype=torch.float32)
    exact = model(tokens)
    coarse = model.to(torch.bfloat16)(tokens)
    assert coarse.dtype == torch.float32
    assert (coarse.float() - exact).abs().max() < 0.15 * exact.abs().max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu(model, tokens):
    expected = model(tokens)
    torch.testing.assert_close(model.to("cuda")(tokens.to("cuda")).cpu(), expected, atol=1e-10, rtol=0)


def test_start_and_stop_compose_and_skip(model, tokens):
    whole, cache = model.run_with_cache(tokens, "blocks.*.hook_resid_pre")
    middle = model.run_blocks(model.embed(tokens), stop_at_layer=2)
    assert torch.equal(middle, cache["resid_pre", 2])
    with model.capture("blocks.2.hook_resid_pre") as seen:
        top = model.run_blocks(middle, start_at_layer=2)
    assert list(seen) == ["blocks.2.hook_resid_pre"]
    assert torch.equal(model.unembed(top), whole)
    ran = []
    handles = [block.register_forward_hook(lambda m, i, o, k=k: ran.append(k)) for k, block in enumerate(model.blocks)]
    model.run_blocks(middle, start_at_layer=1, stop_at_layer=2)
    assert ran == [1]
    for handle in handles:
        handle.remove()
    with pytest.raises(ConfigError, match="0 <= start <= stop <= 3"):
        model.run_blocks(middle, start_at_layer=2, stop_at_layer=1)


def test_the_future_does_not_reach_the_past(model):
    tokens = random_tokens(1, 8)
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % TINY.d_vocab
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amax(-1).min() > 1e-6


def test_initialisation_is_seeded_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (Transformer(TINY, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.W_E, again.W_E)
    assert not torch.equal(first.W_E, other.W_E)
    config = ModelConfig(n_layers=8, d_model=256, n_heads=4, d_head=64, d_mlp=1024, n_ctx=8, d_vocab=9)
    big = Transformer(config)
    assert float(big.blocks[0].mlp.input.weight.detach().std()) == pytest.approx(0.02, rel=0.01)
    assert float(big.blocks[0].mlp.output.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.01)
    assert float(big.blocks[3].attn.o.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.01)


def test_head_weights_are_views_of_the_stored_ones(model):
    x = torch.randn(5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stored = model.blocks[0].attn
    q = (x @ stored.qkv.weight.T)[:, 8:16]  # head 1 of the queries
    torch.testing.assert_close(x @ stored.W_Q[1], q)
    torch.testing.assert_close(x[:, :8] @ stored.W_O[1], x[:, :8] @ stored.o.weight[:, 8:].T)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(1, 0, dtype=torch.long), "empty"),
        (torch.zeros(4, dtype=torch.long), r"\[batch, position\]"),
        (torch.zeros(1, 25, dtype=torch.long), "25 tokens; .* at most 24"),
        (torch.tensor([[0, 50]]), "id 50 is out of range: .* 0 to 49"),
        (torch.tensor([[0, -2]]), "id -2 is out of range"),
        (torch.tensor([[1, 2], [PAD, PAD]]), "only padding"),
    ],
)
def test_tokens_the_model_cannot_take(model, bad, message):
    with pytest.raises(TokenError, match=message):
        model.check_tokens(bad)


def test_float_tokens_are_refused(model):
    with pytest.raises(TokenError, match="integer ids"):
        model.to_tokens(torch.zeros(1, 3))


def test_prompt_text_without_a_tokenizer_is_an_error(model):
    with pytest.raises(TokenError, match="no tokenizer"):
        model.to_tokens("hello")


@pytest.mark.parametrize(
    "change", [{"n_layers": 0}, {"d_vocab": -3}, {"norm_eps": 0.0}, {"init_std": -1.0}, {"init_std": float("nan")}]
)
def test_configurations_that_cannot_be(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        ModelConfig(**(TINY.to_dict() | change))


def test_weight_hash_follows_the_weights():
    model = tiny()
    before = model.weight_hash()
    assert before == tiny().weight_hash()
    model.W_E[0, 0] += 1
    assert model.weight_hash() != before


def test_weight_hash_is_of_the_numbers_however_they_lie():
    model, other = tiny(), tiny()
    weight = other.blocks[0].mlp.input.weight
    weight.data = weight.detach().T.contiguous().T
    assert not weight.is_contiguous()
    assert other.weight_hash() == model.weight_hash()
    weight.data[1, 2] += 1
    assert other.weight_hash() != model.weight_hash()
    square = tiny(config=replace(TINY, d_head=8, d_mlp=16))
    before = square.weight_hash()
    weight = square.blocks[0].mlp.input.weight
    weight.data = weight.detach().T  # the same bytes as another matrix
    assert square.weight_hash() != before


def test_config_to_logits_is_one_readable_file():
    assert len(Path(interp.model.__file__).read_text().splitlines()) <= 350
