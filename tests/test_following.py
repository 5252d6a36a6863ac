"""What a configuration says to `transformers`, it says to us: every field of every family, changed in a few ways, is followed or refused.

`transformers` computes in float64 throughout here, by what it takes for float32 being float64.
"""

import copy
import dataclasses
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import transformers
from conftest import random_tokens
from families import KINDS, theirs

import interp
from interp.errors import CheckpointError, TokenError

LENGTH = 24  # beyond every window
PART = 6  # changes of each kind that are tried every time, beside a third of OTHERS
FAMILIES = [*(kind for kind in KINDS if kind.isidentifier()), "qwen2 untied, windowed", "gemma3 scaled"]
UNSAID = "not said"
"""In place of a value: the field is left out."""

LINEAR = {"rope_type": "linear", "factor": 2.0}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FULL, SLIDING = "full_attention", "sliding_attention"
OTHERS = [  # fields that a class does not declare, and reads all the same or not, and pairs of fields
    {"is_causal": False}, {"is_causal": None}, {"per_layer_config": {"1": {"head_dim": 8}}}, {"use_bidirectional_attention": True},
    {"rope_scaling": LINEAR}, {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_scaling": {"type": "yarn", "factor": 2.0}},
    {"rope_scaling": {}}, {"rope_scaling": "linear"}, {"rope_scaling": {FULL: LINEAR}}, {"rope_theta": 77.0}, {"rope_theta": None},
    {"rope_scaling": LLAMA3, "original_max_position_embeddings": 16}, {"rope_scaling": LLAMA3},
    {"rope_parameters": {"type": "linear", "factor": 3.0}, "rope_theta": 50.0}, {"rope_parameters": {}, "rope_theta": 50.0},
    {"rope_parameters": UNSAID, "rope_scaling": LINEAR, "rope_theta": 50.0, "rope_local_base_freq": 20.0},
    {"rope_parameters": UNSAID, "rope_scaling": {"type": "linear", "factor": 2.0}, "rotary_emb_base": 50, "rope_theta": 20.0},
    {"rope_parameters": UNSAID, "rotary_pct": 0.5}, {"rope_parameters": {"rope_theta": 50.0}, "rotary_pct": 1.0},
    {"rope_parameters": {"rope_type": "default"}, "rotary_emb_base": 50, "rotary_pct": 0.5}, {"rotary_pct": 0.25},
    {"rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}}, {"rope_parameters": {"partial_rotary_factor": 0.5}},
    {"rope_parameters": {**LINEAR, "partial_rotary_factor": 1.0}}, {"rope_parameters": LINEAR, "partial_rotary_factor": 0.5},
    {"rope_parameters": {FULL: {"partial_rotary_factor": 0.5}, SLIDING: {"rope_theta": 30.0}}}, {"rope_parameters": {FULL: LINEAR}},
    {"rope_parameters": {FULL: {}, SLIDING: LINEAR}}, {"rope_parameters": {SLIDING: {"rope_theta": 30.0}}, "rope_scaling": LINEAR},
    {"partial_rotary_factor": 0.5}, {"head_dim": 2}, {"head_dim": None}, {"attn_logit_softcapping": 5.0}, {"final_logit_softcapping": 5.0},
    {"layer_types": [SLIDING, FULL] * 2}, {"layer_types": [FULL] * 4}, {"layer_types": None}, {"layer_types": 3}, {"layer_types": [[]] * 4},
    {"layer_types": [FULL] * 4, "sliding_window": None}, {"sliding_window": None}, {"sliding_window": 3, "use_sliding_window": True},
    {"sliding_window_pattern": 2, "layer_types": UNSAID}, {"_sliding_window_pattern": 2, "layer_types": UNSAID},
    {"sliding_window_pattern": 0, "layer_types": UNSAID}, {"layer_types": UNSAID},
    {"use_sliding_window": False}, {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1, "layer_types": UNSAID},
    {"hidden_act": "gelu", "hidden_activation": UNSAID}, {"hidden_act": "quick_gelu"}, {"hidden_act": ["silu"]},
    {"activation_function": None}, {"activation_function": "gelu_fast"}, {"activation_function": {}},
    {"num_attention_heads": 2}, {"num_hidden_layers": 2}, {"hidden_size": 8}, {"max_position_embeddings": 30}, {"n_head": 2},
    {"attention_layers": UNSAID, "attention_types": UNSAID}, {"attention_layers": UNSAID, "attention_types": [[["global"], 4.0]]},
    {"attention_layers": ["local"] * 4}, {"attention_layers": 5}, {"window_size": 2}, {"n_inner": 0}, {"clip_qkv": 0.5},
    {"query_pre_attn_scalar": 0}, {"query_pre_attn_scalar": 2.5}, {"rms_norm_eps": 10**400}, {"vocab_size": "50"},
]  # fmt: skip


def changed(value: object) -> list[object]:
    """Other values for a field, some of them of another type."""
    found: list[object] = [UNSAID, None, "foo", [], {"a": 1}, -1]
    if isinstance(value, bool):
        found += [not value, 1]
    elif isinstance(value, (int, float)):
        found += [
            value * 2,
            value / 2 if isinstance(value, float) else max(value // 2, 1),
            0,
            True,
            float("inf"),
            str(value),
        ]
    elif isinstance(value, str):
        found += ["gelu", "relu", "gelu_fast", 1]
    elif value is None:
        found += [2, 0.5, True]
    elif isinstance(value, list):
        found += [value[::-1], value[:-1], [None] * len(value)]
    elif isinstance(value, dict):
        found += [
            value | {name: other} for name, inner in value.items() for other in changed(inner) if other is not UNSAID
        ]
        found += [{name: inner for name, inner in value.items() if name != left} for left in value]
        found += [
            value | LINEAR,
            value | LLAMA3,
            value | {"rope_type": "dynamic", "factor": 2.0},
            value | {"factor": 3.0},
        ]
        found += [value | {"partial_rotary_factor": 0.5}, value | {"type": "linear", "factor": 2.0}]
    return found


def changes(settings: dict[str, object], declared: list[str]) -> Iterator[dict[str, object]]:
    """Each field that the file has or that the class declares, with other values."""
    for name in dict.fromkeys([*declared, *settings]):
        if name not in ("model_type", "architectures", "transformers_version", "id2label", "label2id", "dtype"):
            yield from ({name: value} for value in changed(settings.get(name)))


@contextmanager
def wide():
    """Within, `transformers` finds float64 where it asks for float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def their_logits(folder, state, tokens):
    """What `transformers` computes of the same weights by the configuration in a folder; None where it refuses it."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
        model.load_state_dict(state)
        model.tie_weights()
        with torch.no_grad():
            return model(tokens, use_cache=False, return_dict=True).logits
    except Exception:  # noqa: BLE001 (whatever it raises, it does not read it)
        return None


def our_logits(folder, tokens):
    """What we compute; None where we refuse it by name."""
    try:
        return interp.load(folder, dtype=torch.float64)(tokens)
    except CheckpointError:
        return None
    except TokenError:  # the context is shorter than the prompt
        return None


def follow(kind: str, folder, part: int | None) -> tuple[int, int]:
    """Try the changes, or a part of them; how many we followed, and refused."""
    model = theirs(kind).double()
    model.save_pretrained(folder)
    state, tokens = model.state_dict(), random_tokens(1, LENGTH)
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    declared = [field.name for field in dataclasses.fields(type(model.config))]
    tried = list(changes(model.config.to_dict() | settings, declared))
    others = OTHERS
    if part is not None:
        tried = random.Random(0).sample(tried, part)
        others = OTHERS[list(KINDS).index(kind) % 3 :: 3]  # another third of them for the next kind
    followed = refused = 0
    misread = []
    for change in [{}, *others, *tried]:
        new = {name: value for name, value in (settings | copy.deepcopy(change)).items() if value != UNSAID}
        path.write_text(json.dumps(new))
        ours = our_logits(folder, tokens)
        if ours is None:
            refused += 1
            continue
        with wide():
            expected = their_logits(folder, state, tokens)
        if expected is not None:
            followed += 1
            if ours.shape != expected.shape or not torch.allclose(ours, expected, atol=1e-6, rtol=1e-6):
                misread.append(change)
    assert not misread
    return followed, refused


@pytest.fixture(autouse=True)
def _quiet():
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    yield
    transformers.logging.set_verbosity(before)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_changed_field_is_followed_or_refused(kind, tmp_path):
    followed, refused = follow(kind, tmp_path, PART)
    assert followed > 8
    assert refused > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_changed_field_is_followed_or_refused(kind, tmp_path):
    assert min(follow(kind, tmp_path, None)) > 50


def test_bidirectional_attention_in_memory():
    """`is_causal` set on a model that is there: followed, but not beside windows; GPT-Neo does not look at it."""
    tokens = random_tokens(1, LENGTH)
    for kind in ("gpt2", "gpt_neo", "gpt_neox", "qwen3"):
        model = theirs(kind).double()
        before = model(tokens).logits
        model.config.is_causal = False
        ours = interp.load(model, dtype=torch.float64)
        assert ours.config.causal == (kind == "gpt_neo")
        torch.testing.assert_close(ours(tokens), model(tokens, use_cache=False).logits, atol=2e-5, rtol=2e-5)
        assert torch.allclose(ours(tokens), before, atol=1e-3) == (kind == "gpt_neo")
    for kind in ("mistral", "gemma2", "gemma3", "qwen2 untied, windowed"):
        model = theirs(kind)
        model.config.is_causal = False
        with pytest.raises(CheckpointError, match="is_causal = False beside a sliding window is not supported"):
            interp.load(model)


def test_layer_types_of_mistrals_own_class_in_memory():
    """A file with them is a Ministral; the class that is there does not look at them."""
    model = theirs("mistral").double()
    model.config.layer_types = [FULL] * 4
    tokens = random_tokens(1, LENGTH)
    torch.testing.assert_close(
        interp.load(model, dtype=torch.float64)(tokens), model(tokens).logits, atol=2e-5, rtol=2e-5
    )


class Wrapped(torch.Tensor):
    """A tensor whose numbers are elsewhere, as libraries for quantised or spread weights make them."""


def test_weights_in_memory_that_are_no_plain_numbers():
    def replaced(change):
        model = theirs("llama")
        part = model.model.layers[1].mlp.up_proj
        part.weight = torch.nn.Parameter(change(part.weight.data), requires_grad=False)
        return model

    for change, found in (
        (lambda weight: weight.to(torch.int8), "a torch.Tensor of dtype torch.int8"),
        (lambda weight: weight.to(torch.float8_e4m3fn), "a torch.Tensor of dtype torch.float8_e4m3fn"),
        (lambda weight: weight.to(torch.complex64), "a torch.Tensor of dtype torch.complex64"),
        (lambda weight: weight.as_subclass(Wrapped), "Wrapped of dtype torch.float32"),
    ):
        with pytest.raises(CheckpointError, match=rf"layers.1.mlp.up_proj.weight is .*{found}, expected .*quantised"):
            interp.load(replaced(change))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_dynamically_quantised_model_in_memory():
    model = torch.ao.quantization.quantize_dynamic(theirs("llama"), {torch.nn.Linear}, dtype=torch.qint8)
    with pytest.raises(CheckpointError, match="the LlamaForCausalLM in memory: .* the weights are quantised"):
        interp.load(model)


NULL = {
    "gpt2": "activation_function", "gpt_neo": "window_size", "gpt_neox": "hidden_act", "llama": "rms_norm_eps", "mistral": "hidden_act",
    "qwen2": "use_sliding_window", "qwen3": "head_dim", "gemma2": "sliding_window", "gemma3": "query_pre_attn_scalar",
    "olmo2": "tie_word_embeddings",
}  # fmt: skip


@pytest.mark.parametrize("kind", NULL)
def test_null_that_means_nothing_is_named(kind, tmp_path):
    theirs(kind).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {NULL[kind]: None}))
    with pytest.raises(CheckpointError, match=f"{NULL[kind]} is null; it needs a value"):
        interp.load(tmp_path)
