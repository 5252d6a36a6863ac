"""Every family of models against `transformers`: checkpoints that it saves, models that it holds in memory, and what we write back."""

import json

import pytest
import torch
import transformers
from conftest import random_tokens
from families import KINDS, full_precision, theirs

import interp
from interp import PAD
from interp.errors import CheckpointError, ConfigError
from interp.loading import save_directory

LENGTH = 24  # beyond every window, and beyond the context before scaling


EACH = [kind for kind in KINDS if kind.isidentifier()]
"""One of each family, where what differs within a family does not matter."""


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(params=EACH)
def each(request) -> str:
    return request.param


def saved(kind: str, folder, dtype: torch.dtype = torch.float64):
    model = theirs(kind).to(dtype)
    model.config._attn_implementation = "eager"
    model.save_pretrained(folder)
    return model


def their_streams(model, tokens):
    """Logits, and the stream that enters each block."""
    entering = []
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    handles = [
        block.register_forward_pre_hook(
            lambda m, args, kw: entering.append(args[0] if args else kw["hidden_states"]), with_kwargs=True
        )
        for block in blocks
    ]
    logits = model(tokens).logits
    for handle in handles:
        handle.remove()
    return logits, entering


def test_logits_and_stream_in_float64(kind, tmp_path, monkeypatch):
    model = saved(kind, tmp_path)
    ours = interp.load(tmp_path, dtype=torch.float64)
    tokens = random_tokens(2, LENGTH)
    with full_precision(model, monkeypatch):
        expected, streams = their_streams(model, tokens)
    logits, cache = ours.run_with_cache(tokens, "blocks.*.hook_resid_pre")
    torch.testing.assert_close(logits, expected, atol=1e-9, rtol=1e-9)
    assert len(streams) == ours.config.n_layers
    for layer, stream in enumerate(streams):
        torch.testing.assert_close(cache["resid_pre", layer], stream, atol=1e-9, rtol=1e-9)


def test_logits_in_float32_from_disk_and_memory(kind, tmp_path):
    model = saved(kind, tmp_path, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tokens = random_tokens(2, LENGTH)
    expected = model(tokens).logits
    ours, copied = interp.load(tmp_path), interp.load(model)
    torch.testing.assert_close(ours(tokens), expected, atol=1e-4, rtol=1e-4)
    assert ours.weight_hash() == copied.weight_hash()
    assert ours.config == copied.config
    copied.W_E.mul_(2)  # a copy: the model in memory is left untouched
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unequal_prompts_equal_their_single_runs(each):
    ours = interp.load(theirs(each).double(), dtype=torch.float64)
    rows = [random_tokens(1, length, seed=length) for length in (LENGTH, 3, 11)]
    padded = torch.full((3, LENGTH), PAD)
    left = padded.clone()
    for number, row in enumerate(rows):
        padded[number, : row.shape[1]] = row[0]
        left[number, LENGTH - row.shape[1] :] = row[0]
    after, before = ours(padded), ours(left)
    for number, row in enumerate(rows):
        torch.testing.assert_close(after[number, : row.shape[1]], ours(row)[0], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(before[number, LENGTH - row.shape[1] :], ours(row)[0], atol=1e-9, rtol=1e-9)


def test_decoding_with_kept_keys_and_values_gives_the_same(each):
    ours = interp.load(theirs(each).double(), dtype=torch.float64)
    prompt = random_tokens(2, 3)
    options = {"max_new_tokens": 9, "temperature": 1.0, "seed": 1}  # beyond the windows
    assert torch.equal(ours.generate(prompt, **options), ours.generate(prompt, use_cache=False, **options))


def test_greedy_decoding_equals_theirs(each):
    model = theirs(each)
    prompt = random_tokens(2, 3)
    expected = model.generate(
        prompt,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        attention_mask=torch.ones_like(prompt),
    )
    assert torch.equal(interp.load(model).generate(prompt, max_new_tokens=12, temperature=0.0, stop=[]), expected)


def test_written_back_both_read_it_as_it_was(kind, tmp_path):
    """In the family's own format: `transformers` reads the same weights from it, and so do we, to the bit."""
    model = saved(kind, tmp_path / "theirs", torch.float32)
    ours = interp.load(tmp_path / "theirs")
    save_directory(ours, tmp_path / "ours", format=model.config.model_type)
    again = interp.load(tmp_path / "ours")
    assert again.config == ours.config
    assert again.weight_hash() == ours.weight_hash()
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert type(back) is type(model)
    tokens = random_tokens(2, LENGTH)
    torch.testing.assert_close(back(tokens).logits, ours(tokens), atol=1e-4, rtol=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, atol=1e-6, rtol=1e-6)  # 1 + w is rounded


OLD = {  # configurations as releases of `transformers` before 5 wrote them
    "gpt_neox": ({"rope_parameters": None, "rotary_pct": 0.5, "rotary_emb_base": 10000}, {}),
    "llama scaled as llama3": (
        {
            "rope_parameters": None, "rope_theta": 100.0,
            "rope_scaling": {
                "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        {},
    ),
    "llama scaled linearly, wide heads": (
        {"rope_parameters": None, "rope_theta": 1000.0, "rope_scaling": {"type": "linear", "factor": 3.0}}, {},
    ),
    "gemma3": (
        {"rope_parameters": None, "rope_theta": 1e6, "rope_local_base_freq": 1e4}, {},
    ),
    "gemma3 scaled": (
        {
            "rope_parameters": None, "rope_theta": 5000.0, "rope_local_base_freq": 50.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        {},
    ),
    "gemma2": ({"layer_types": None, "hidden_activation": None, "hidden_act": "gelu_pytorch_tanh"}, {}),
    "gpt_neo": ({"attention_layers": None}, {}),
    "qwen2 untied, windowed": ({"layer_types": None}, {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", OLD)
def test_configurations_of_older_releases_say_the_same(kind, tmp_path):
    saved(kind, tmp_path)
    expected = interp.load(tmp_path).config
    path = tmp_path / "config.json"
    settings = {
        name: value for name, value in (json.loads(path.read_text()) | OLD[kind][0]).items() if value is not None
    }
    path.write_text(json.dumps(settings))
    assert interp.load(tmp_path).config == expected


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "scaled as 'yarn' are not supported"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "no field 'low_freq_factor'"),
        ("llama", {"hidden_act": "mish"}, "hidden_act 'mish' is unknown"),
        ("llama", {"num_hidden_layers": 2.5}, "num_hidden_layers must be a whole number"),
        ("llama", {"num_hidden_layers": float("inf")}, "Infinity is no JSON number"),
        ("llama", {"vocab_size": float("nan")}, "NaN is no JSON number"),
        ("llama", {"rms_norm_eps": float("inf")}, "Infinity is no JSON number"),
        ("llama", {"rms_norm_eps": -1.0}, "norm_eps must be positive"),
        ("llama", {"num_hidden_layers": 5}, "the tensor 'layers.4.self_attn.q_proj.weight' is missing"),
        ("llama", {"num_hidden_layers": 3}, "tensors are not part of this model"),
        ("llama", {"intermediate_size": 32}, "mlp.gate_proj.weight has shape"),
        ("llama", {"num_key_value_heads": 4}, "self_attn.k_proj.weight has shape .* expected"),
        ("llama", {"num_key_value_heads": 3}, "n_kv_heads must divide n_heads"),
        ("llama", {"tie_word_embeddings": False}, "the unembedding 'lm_head.weight' is missing"),
        ("llama untied, with biases", {"tie_word_embeddings": True}, "'lm_head.weight' differs from it"),
        ("llama untied, with biases", {"attention_bias": False}, "are not part of this model"),
        ("qwen2 untied, windowed", {"layer_types": ["full_attention"]}, "layer_types must name"),
        (
            "gpt_neo",
            {"attention_layers": ["global", "sparse", "local", "local"]},
            "attention_types must give global or local",
        ),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True is not supported"),
        ("olmo2", {"clip_qkv": 8.0}, "clip_qkv = 8.0 is not supported"),
    ],
)
def test_what_is_not_as_it_says_is_named(kind, change, message, tmp_path):
    saved(kind, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        interp.load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "format", "message"),
    [
        ("gemma2", "llama", "cannot hold .*norm_placement = 'both'"),
        ("llama", "gpt2", "cannot hold .*positions = 'rotary'"),
        ("gpt_neox", "gpt_neo", "cannot hold .*parallel = True"),
        ("qwen3", "qwen2", "cannot hold .*qk_norm = 'head'"),
        ("mistral", "llama", "cannot hold .*windowed_layers"),
    ],
)
def test_a_format_that_cannot_hold_a_model_names_what_is_lost(kind, format, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        save_directory(interp.load(theirs(kind)), tmp_path / "out", format=format)
