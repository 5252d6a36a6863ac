"""What is saved comes back: every configuration, to the bit; or the format says which option it cannot hold."""

import copy
import json
import types
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
import transformers
from conftest import TINY, random_tokens, tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizer_kinds import KINDS

import interp
from interp import ModelConfig, Tokenizer, Transformer, processing
from interp.errors import CheckpointError, ConfigError, InterpError
from interp.loading.exact import spelt_out
from interp.loading.families import FAMILIES

SIZES = {"n_layers": 2, "d_model": 8, "n_heads": 4, "d_head": 2, "d_mlp": 12, "n_ctx": 12, "d_vocab": 20}
CHANGED = {  # an option of ModelConfig with another value than GPT-2's, for each that GPT-2 has not
    "positions": "rotary",
    "norm": "rmsnorm",
    "norm_placement": "post",
    "mlp": "gated",
    "n_kv_heads": 2,
    "bias": False,
    "unembed_bias": True,
    "causal": False,
    "d_head": 4,
}


def values(hint) -> list[object]:
    """Some values of an option, by its type alone, so that a new one is tried too."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return [value for one in get_args(hint) for value in values(one)]
    if get_origin(hint) in (tuple, Sequence):
        return [(0,), (0, 1)]
    return {bool: [True, False], int: [1, 2], float: [1e-6, 0.3, 7.0], type(None): [None]}[hint]


OPTIONS = {
    name: st.sampled_from(values(hint)) for name, hint in get_type_hints(ModelConfig).items() if name not in SIZES
}


ALIKE = [  # GPT-2, Llama, GPT-NeoX: where a few options are changed from
    {},
    {"positions": "rotary", "norm": "rmsnorm", "mlp": "gated", "activation": "silu", "bias": False, "tied": False},
    {"positions": "rotary", "parallel": True, "activation": "gelu", "tied": False, "d_mlp": 32},
]


@st.composite
def choices(draw) -> dict[str, object]:
    """The fields of a configuration, a few of them changed at a time, so that other formats hold some."""
    changed = draw(st.sets(st.sampled_from(sorted(OPTIONS)), max_size=4))
    sizes = SIZES | {"d_head": draw(st.sampled_from([2, 4])), "d_mlp": draw(st.sampled_from([12, 32]))}
    return sizes | draw(st.sampled_from(ALIKE)) | {name: draw(OPTIONS[name]) for name in sorted(changed)}


def configuration(fields: dict[str, object]) -> ModelConfig:
    """Such a configuration, where it can be."""
    try:
        return ModelConfig(**fields)
    except ConfigError:
        assume(False)
        raise


def identical(one: Transformer, other: Transformer) -> None:
    assert other.config == one.config
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert one.weight_hash() == other.weight_hash()
    same_logits(one, other)


def same_logits(one: Transformer, other: Transformer) -> None:
    """In float64, since weights that a format keeps transposed are multiplied in another order."""
    tokens = random_tokens(2, 6, vocab=one.config.d_vocab)
    logits = [copy.deepcopy(model).double()(tokens) for model in (one, other)]
    torch.testing.assert_close(*logits, atol=1e-11, rtol=1e-11)


@settings(max_examples=100, deadline=None)
@given(chosen=choices(), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_any_configuration_comes_back_to_the_bit(chosen, dtype):
    config = configuration(chosen)
    model = tiny(config=config, dtype=dtype)
    with TemporaryDirectory() as folder:
        interp.save_directory(model, folder)
        again = interp.load(folder, dtype=dtype)
        identical(model, again)
        interp.save_directory(again, folder)  # over its own files
        identical(model, interp.load(folder, dtype=dtype))


@settings(max_examples=50, deadline=None)
@given(chosen=choices(), format=st.sampled_from(sorted(FAMILIES)))
def test_a_format_holds_a_model_exactly_or_names_what_it_cannot(chosen, format):
    config = configuration(chosen)
    model = tiny(config=config, dtype=torch.float32)
    with TemporaryDirectory() as folder:
        refused = None
        try:
            interp.save_directory(model, folder, format=format)
        except ConfigError as error:
            refused = str(error)
        if refused is not None:
            assert any(field.name in refused for field in fields(ModelConfig))
            assert not list(Path(folder).iterdir())
            return
        again = interp.load(folder)
        assert again.format == format
        assert spelt_out(again.config) == spelt_out(config)
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
        same_logits(model, again)


@pytest.mark.parametrize("name", CHANGED)
def test_gpt2s_format_names_the_option_that_it_has_not(tmp_path, name):
    model = tiny(
        config=ModelConfig(
            **(
                TINY.to_dict()
                | {"n_heads": 4, "d_head": 4}
                | {name: CHANGED[name]}
                | ({"d_head": 8} if name == "d_head" else {})
            )
        )
    )
    with pytest.raises(ConfigError, match=rf"format 'gpt2' cannot hold .*{name} = .*'criticalpile' holds every model"):
        interp.save_directory(model, tmp_path, format="gpt2")
    assert not list(tmp_path.iterdir())
    for format in (None, "criticalpile"):
        interp.save_directory(model.float(), tmp_path, format=format)
        again = interp.load(tmp_path)
        assert again.format != "gpt2"
        identical(model, again)


STEPS = {
    "fold_layer_norm": (processing.fold_layer_norm, "criticalpile"),
    "centre_writing_weights": (processing.centre_writing_weights, "gpt2"),
    "centre_unembedding": (processing.centre_unembedding, "gpt2"),
    "fold_value_biases": (processing.fold_value_biases, "gpt2"),
    "all": (
        lambda model: processing.fold_value_biases(
            processing.centre_unembedding(processing.centre_writing_weights(processing.fold_layer_norm(model)))
        ),
        "criticalpile",
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_processed_weights_come_back(tmp_path, smalltown, step):
    process, format = STEPS[step]
    model = process(smalltown)
    interp.save_directory(model, tmp_path)
    again = interp.load(tmp_path)
    assert again.format == format
    identical(model, again)
    assert again.tokenizer.hash() == smalltown.tokenizer.hash()
    assert again.to_str_tokens("Mary went") == smalltown.to_str_tokens("Mary went")
    if format == "gpt2":
        theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
        tokens = model.to_tokens("Mary went to the store")
        with torch.no_grad():
            torch.testing.assert_close(theirs(tokens).logits, model(tokens), atol=2e-4, rtol=0)


def test_an_untied_gpt2_both_ways(tmp_path):
    torch.manual_seed(0)
    shape = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=8, n_positions=12, vocab_size=20, tie_word_embeddings=False, initializer_range=0.3
    )
    theirs = transformers.GPT2LMHeadModel(shape).eval()
    tokens = random_tokens(2, 6, vocab=20)
    theirs.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        expected = theirs(tokens).logits
    assert not torch.equal(theirs.lm_head.weight, theirs.transformer.wte.weight)
    for source in (theirs, tmp_path / "theirs"):
        ours = interp.load(source)
        assert not ours.config.tied
        torch.testing.assert_close(ours(tokens), expected, atol=1e-5, rtol=0)
    interp.save_directory(ours, tmp_path / "ours", format="gpt2")
    identical(ours, interp.load(tmp_path / "ours"))
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, expected)


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, Llama 3's", "sentencepiece, Llama 2's"])
def test_the_tokenizer_comes_back_with_the_model(tmp_path, kind):
    backend = KINDS[kind]()
    tokenizer = Tokenizer(backend, bos=1 if "sentence" in kind else None, eos=0, opening=1, stops=[2])
    model = tiny(config=replace(TINY, d_vocab=len(tokenizer) + 5), dtype=torch.float32)
    model.tokenizer = tokenizer
    interp.save_directory(model, tmp_path)
    again = interp.load(tmp_path).tokenizer
    ours = (tokenizer.hash(), tokenizer.bos, tokenizer.eos, tokenizer.opening, tokenizer.stops)
    assert (again.hash(), again.bos, again.eos, again.opening, again.stops) == ours


def test_memory_that_is_shared_or_not_contiguous(tmp_path):
    model = tiny(config=replace(TINY, tied=False), dtype=torch.float32)
    model.unembedding = model.W_E
    whole = torch.randn(3, 16)
    model.blocks[0].ln1.weight = torch.nn.Parameter(whole[0], requires_grad=False)
    model.blocks[0].ln2.weight = torch.nn.Parameter(whole[1], requires_grad=False)
    model.blocks[1].mlp.input.weight = torch.nn.Parameter(torch.randn(16, 32).T, requires_grad=False)
    model.W_pos = torch.nn.Parameter(torch.randn(48, 16)[::2], requires_grad=False)
    for format in ("gpt2", "criticalpile"):
        interp.save_directory(model, tmp_path / format, format=format)
        again = interp.load(tmp_path / format)
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert load_file(tmp_path / "criticalpile" / "model.safetensors")["blocks.0.ln1.weight"].shape == (16,)


def test_what_cannot_be_saved(tmp_path, smalltown):
    with pytest.raises(CheckpointError, match="has no weights yet"):
        interp.save_directory(Transformer(TINY, seed=None), tmp_path / "x")
    broken = tiny(dtype=torch.float32)
    broken.blocks[1].attn.o.bias[3] = torch.nan
    with pytest.raises(CheckpointError, match="blocks.1.attn.o.bias holds NaN"):
        interp.save_directory(broken, tmp_path / "x")
    with pytest.raises(ConfigError, match="format 'gtp2' is unknown. Did you mean 'gpt2'"):
        interp.save_directory(tiny(), tmp_path / "x", format="gtp2")
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InterpError, match="the folder .*file cannot be made"):
        interp.save_directory(tiny(), tmp_path / "file")


@pytest.mark.parametrize("left", ["tokenizer.json", "vocab.json", "adapter_config.json"])
def test_files_of_another_model_are_not_taken_for_its_own(tmp_path, left):
    (tmp_path / left).write_text("{}")
    with pytest.raises(InterpError, match=f"holds {left}, of another model"):
        interp.save_directory(tiny(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [left]


def test_a_checkpoint_is_saved_over_the_one_it_came_from(tmp_path, smalltown):
    source = interp.loading.EMBEDDED / "smalltown"
    transformers.GPT2LMHeadModel.from_pretrained(source).save_pretrained(tmp_path)
    smalltown.tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 5], "temperature": 0.5}')
    model = interp.load(tmp_path)
    assert model.tokenizer.stops == (0, 5)
    model.tokenizer = smalltown.tokenizer
    interp.save_directory(model, tmp_path)
    assert interp.load(tmp_path).tokenizer.stops == (0,)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"eos_token_id": [0], "temperature": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version 2 is newer than 1.*Upgrade"),
        ({"format_version": "1"}, "format_version must be a whole number"),
        ({"format_version": None}, "format_version must be"),
        ({"config": None}, "no 'config'"),
        ({"config": {"n_leyers": 1}}, "field 'n_leyers' is unknown to this release. Did you mean 'n_layers'"),
        ({"config": {"n_layers": 1}}, "no field 'd_model'"),
        ({"config": TINY.to_dict() | {"norm": "batchnorm"}}, "not usable"),
        ({"config": TINY.to_dict() | {"bias": "no"}}, "not usable"),
    ],
)
def test_our_format_refuses_what_it_does_not_know(tmp_path, change, message):
    interp.save_directory(tiny(dtype=torch.float32), tmp_path, format="criticalpile")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        interp.load(tmp_path)


def test_our_format_of_an_older_release_lacks_options_that_came_later(tmp_path):
    interp.save_directory(tiny(dtype=torch.float32), tmp_path, format="criticalpile")
    path = tmp_path / "config.json"
    written = json.loads(path.read_text())
    assert set(written["config"]) == {field.name for field in fields(ModelConfig)}
    assert (written["model_type"], written["format_version"]) == ("criticalpile", 1)
    del written["config"]["rotary_base"]
    path.write_text(json.dumps(written))
    identical(tiny(dtype=torch.float32), interp.load(tmp_path))
    del written["config"]["n_ctx"]
    path.write_text(json.dumps(written))
    with pytest.raises(CheckpointError, match="no field 'n_ctx'"):
        interp.load(tmp_path)


def test_tensors_of_our_format_by_name(tmp_path):
    from safetensors.torch import save_file

    interp.save_directory(tiny(dtype=torch.float32), tmp_path, format="criticalpile")
    good = load_file(tmp_path / "model.safetensors")
    for change, message in (
        ({"blocks.0.ln1.weight": None}, "'blocks.0.ln1.weight' is missing"),
        ({"blocks.9.ln1.weight": torch.ones(16)}, "1 tensors are not part of this model: blocks.9.ln1.weight"),
        ({"W_E": torch.ones(4, 16)}, r"W_E has shape \(4, 16\), expected \(50, 16\)"),
        ({"W_E": torch.ones(50, 16, dtype=torch.float8_e4m3fn)}, "dtype torch.float8_e4m3fn, expected floating point"),
    ):
        changed = {name: value for name, value in (good | change).items() if value is not None}
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            interp.load(tmp_path)
