"""What `save_directory` writes in a family's format, `transformers` reads as the same model; what it could not read goes to another."""

import random

import pytest
import torch
import transformers
from conftest import random_tokens
from test_following import wide
from test_options import OPTIONS, SCALED

import interp
from interp import ModelConfig, Transformer
from interp.errors import ConfigError

ROTARY = {"positions": "rotary", "norm": "rmsnorm", "mlp": "gated", "activation": "silu", "bias": False}
GEMMA = ROTARY | {
    "norm_placement": "both",
    "embed_scale": 4.0,
    "window": 5,
    "windowed_layers": [0],
    "activation": "gelu_new",
}
NEARBY = {  # what each format is made for, which a few options are changed from
    "gpt2": {},
    "gpt_neo": {"qkv_bias": False, "attn_scale": 1.0},
    "gpt_neox": {"positions": "rotary", "parallel": True, "tied": False, "activation": "gelu", "rotary_dims": 2},
    "llama": ROTARY,
    "mistral": ROTARY | {"window": 5},
    "qwen2": ROTARY | {"qkv_bias": True},
    "qwen3": ROTARY | {"qk_norm": "head"},
    "gemma2": GEMMA | {"score_cap": 50.0, "logit_cap": 30.0},
    "gemma3_text": GEMMA | {"qk_norm": "head", "rotary_local_base": 50.0},
    "olmo2": ROTARY | {"norm_placement": "output", "qk_norm": "whole"},
}
MORE = {
    "attn_scale": [None, 1.0, 0.3, 0.25],
    "embed_scale": [1.0, 4.0],
    "norm_eps": [1e-5, 1.0],
    "init_std": [0.02, 2.0],
    "n_heads": [4, 3],
    "d_head": [4, 8],
    "d_mlp": [24, 64],
    "rotary_base": [50.0, 1e4],
}
SIZES = {"n_layers": 3, "d_model": 16, "n_heads": 4, "d_head": 4, "d_mlp": 24, "n_ctx": 40, "d_vocab": 50}


def model_of(fields) -> Transformer | None:
    """Such a model with weights of which every part matters; None where it cannot be."""
    try:
        model = Transformer(ModelConfig(**fields), seed=0).double()
    except ConfigError:
        return None
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64) * 0.3 + (weight.ndim == 1)
    return model.eval().requires_grad_(False)


def check_written(model: Transformer, folder, format: str | None) -> str | None:
    """Save a model, and compare what both libraries read; the format that was chosen, or None where the one asked for refuses."""
    try:
        interp.save_directory(model, folder, format=format)
    except ConfigError:
        return None
    tokens = random_tokens(1, 24)
    expected = model(tokens)
    back = interp.load(folder, dtype=torch.float64)
    torch.testing.assert_close(back(tokens), expected, atol=1e-9, rtol=1e-9)
    if back.format in ("criticalpile", "nanogpt"):
        return back.format
    with wide():
        other, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
        )
        logits = other(tokens, use_cache=False).logits
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-6)
    return back.format


def try_some(count: int, seed: int, folder) -> set[str | None]:
    """Random models near each format, as the format holds them and as `save_directory` chooses."""
    chance = random.Random(seed)
    options = OPTIONS | MORE
    chosen = set()
    for number in range(count):
        near = sorted(NEARBY)[number % len(NEARBY)]
        changed = chance.sample(sorted(options), chance.choice([0, 1, 1, 2]))
        fields = SIZES | SCALED | NEARBY[near] | {name: chance.choice(options[name]) for name in changed}
        if (model := model_of(fields)) is not None:
            for format in (None, near):
                chosen.add(check_written(model, folder / f"{number}-{format}", format))
    return chosen


def test_random_models_are_read_by_transformers_as_they_were(tmp_path):
    chosen = try_some(60, 0, tmp_path)
    assert {"gpt2", "gpt_neo", "gpt_neox", "llama", "criticalpile", None} <= chosen


@pytest.mark.slow
def test_many_random_models_are_read_by_transformers_as_they_were(tmp_path):
    assert {*NEARBY, "criticalpile", None} <= try_some(400, 1, tmp_path)


@pytest.mark.parametrize("near", ["llama", "qwen3", "olmo2", "mistral", "qwen2", "gemma2", "gemma3_text"])
def test_heads_that_are_turned_in_part_go_to_a_format_that_holds_them(near, tmp_path):
    """Their classes in `transformers` turn whole heads, or fail where positions are scaled."""
    for scaling in ({}, {"rotary_scaling": "linear", "rotary_factor": 2.0}):
        model = model_of(SIZES | NEARBY[near] | scaling | {"rotary_dims": 2})
        with pytest.raises(ConfigError, match=f"the format '{near}' cannot hold .*(rotary_dims|partial_rotary_factor)"):
            interp.save_directory(model, tmp_path / "no", format=near)
        assert check_written(model, tmp_path / f"{len(scaling)}", None) == "criticalpile"
    model = model_of(SIZES | NEARBY["gpt_neox"] | scaling)
    assert check_written(model, tmp_path / "neox", None) == "gpt_neox"


@pytest.mark.parametrize("near", ["gemma2", "gemma3_text"])
def test_gemma_without_windows_and_with_any_scale(near, tmp_path):
    model = model_of(SIZES | NEARBY[near] | {"window": None, "windowed_layers": None, "rotary_local_base": None})
    assert check_written(model, tmp_path / "full", near) == near
    assert check_written(model_of(SIZES | NEARBY[near] | {"attn_scale": 11**-0.5}), tmp_path / "11", near) == near
    uneven = model_of(SIZES | NEARBY[near] | {"attn_scale": 0.3})
    with pytest.raises(
        ConfigError, match=rf"the format '{near}' cannot hold attn_scale = 0\.3 \(it would be read as 0\.301"
    ):
        interp.save_directory(uneven, tmp_path / "no", format=near)
    assert check_written(uneven, tmp_path / "other", None) == "criticalpile"
