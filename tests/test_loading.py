"""Checkpoints: what loads, and what is refused with a clear error."""

import json
import sys

import pytest
import torch
import transformers
from conftest import TINY, random_tokens, tiny
from safetensors.torch import load_file, save_file

import interp
import interp.processing
from interp.errors import CheckpointError, InterpError, TokenError
from interp.files import write_whole
from interp.loading import embedded_models, save_directory

WEIGHTS = "model.safetensors"


@pytest.fixture
def directory(tmp_path):
    save_directory(tiny(dtype=torch.float32), tmp_path / "tiny")
    return tmp_path / "tiny"


def rewrite(directory, change):
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


def test_a_saved_model_comes_back_bit_for_bit(directory):
    model, tokens = tiny(dtype=torch.float32), random_tokens()
    again = interp.load(directory)
    assert again.config == TINY
    assert torch.equal(again(tokens), model(tokens))
    assert again.weight_hash() == model.weight_hash()
    assert again.name == "tiny"
    assert not any(p.requires_grad for p in again.parameters())


def test_transformers_reads_what_we_save(directory):
    theirs = transformers.GPT2LMHeadModel.from_pretrained(directory).eval()
    tokens = random_tokens()
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, tiny(dtype=torch.float32)(tokens), atol=1e-5, rtol=0)


def test_smalltown_loads_in_transformers_too(smalltown):
    theirs = transformers.GPT2LMHeadModel.from_pretrained(interp.loading.EMBEDDED / "smalltown").eval()
    tokens = smalltown.to_tokens("When Mary and John went to the store")
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, smalltown(tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [transformers.GPT2LMHeadModel, transformers.GPT2Model])
def test_a_model_in_memory_is_left_untouched(kind):
    theirs = kind(transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, n_positions=16, vocab_size=50)).train()
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    tokens = random_tokens(1, 8)
    ours = interp.load(theirs)
    ours.W_E.zero_()
    ours(tokens)
    assert theirs.training
    assert all(p.requires_grad for p in theirs.parameters())
    assert not any(p.grad is not None for p in theirs.parameters())
    assert all(torch.equal(value, before[name]) for name, value in theirs.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in theirs.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_the_one_asked_for(directory, dtype):
    model = interp.load(directory, dtype=dtype)
    assert model.dtype == dtype
    assert model(random_tokens()).dtype == torch.promote_types(dtype, torch.float32)


def test_loading_takes_nothing_from_the_global_generator(directory):
    state = torch.get_rng_state()
    interp.load(directory)
    assert torch.equal(torch.get_rng_state(), state)


def test_buffers_of_older_checkpoints_are_passed_over(directory):
    def add(tensors):
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 24, 24)
        tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
        for key in list(tensors):
            tensors[f"transformer.{key}"] = tensors.pop(key)

    rewrite(directory, add)
    assert interp.load(directory).weight_hash() == tiny(dtype=torch.float32).weight_hash()


def test_tied_head_is_accepted_and_untied_refused(directory):
    rewrite(directory, lambda t: t.update({"lm_head.weight": t["wte.weight"].clone()}))
    interp.load(directory)
    rewrite(directory, lambda t: t.update({"lm_head.weight": t["wte.weight"] + 1}))
    with pytest.raises(CheckpointError, match="lm_head.weight differs"):
        interp.load(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("h.1.attn.c_attn.weight"), "'h.1.attn.c_attn.weight' is missing.*Did you mean"),
        (lambda t: t.update({"h.7.ln_1.weight": torch.ones(16)}), "not part of GPT-2 with 3 layers: h.7.ln_1.weight"),
        (lambda t: t.update({"wpe.weight": torch.ones(5, 16)}), r"W_pos has shape \(5, 16\), expected \(24, 16\)"),
        (lambda t: t["h.0.mlp.c_fc.bias"].fill_(torch.nan), "h.0.mlp.c_fc.bias holds NaN"),
        (lambda t: t["wte.weight"].fill_(torch.inf), "wte.weight holds NaN or infinite"),
        (lambda t: t.update({"wte.weight": torch.ones(50, 16, dtype=torch.int32)}), "dtype torch.int32"),
        (lambda t: t.update({"ln_f.bias": torch.ones(16, dtype=torch.float64)}), "mix dtypes"),
    ],
)
def test_damaged_weights(directory, change, message):
    rewrite(directory, change)
    with pytest.raises(CheckpointError, match=message):
        interp.load(directory)


@pytest.mark.parametrize("keep", [0, 7, 100, -10])
def test_truncated_weights(directory, keep):
    content = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        interp.load(directory)


def test_pickles_are_refused_and_never_opened(directory):
    (directory / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=f"there is no {WEIGHTS}"):
        interp.load(directory)
    (directory / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin, a pickle, .* refused"):
        interp.load(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not supported. Supported: gpt2"),
        ({"model_type": None}, "model_type None"),
        ({"n_embd": None}, "n_embd is null; it needs a value"),
        ({"n_embd": 15}, "not a multiple of n_head"),
        ({"n_layer": 0}, "n_layers must be a positive"),
        ({"activation_function": "gelu_neww"}, "Did you mean 'gelu_new'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True is not supported"),
        ({"add_cross_attention": True}, "add_cross_attention"),
    ],
)
def test_configurations_that_are_not_ours(directory, change, message):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        interp.load(directory)


def test_configuration_without_a_field(directory):
    path = directory / "config.json"
    settings = json.loads(path.read_text())
    del settings["n_head"]
    path.write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="no field 'n_head'"):
        interp.load(directory)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        interp.load(directory)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"there is no config.json"):
        interp.load(directory)


def test_a_model_in_memory_with_nan_weights():
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=8, vocab_size=9)
    )
    theirs.transformer.h[0].attn.c_attn.bias.data[3] = torch.nan
    with pytest.raises(CheckpointError, match=r"h.0.attn.c_attn.bias holds NaN"):
        interp.load(theirs)


def test_nan_is_found_beyond_the_first_piece(tmp_path, monkeypatch):
    from interp.loading import finite

    monkeypatch.setattr(finite, "PIECE", 64)
    for place in (0, 15, 16, 100, 199):
        values = torch.zeros(200)
        values[place] = torch.inf
        save_file(
            {"a": torch.ones(3), "b": values, "c": torch.tensor([2**31 - 1], dtype=torch.int32)},
            tmp_path / "x.safetensors",
        )
        with pytest.raises(CheckpointError, match="b holds NaN"):
            finite.check_file(tmp_path / "x.safetensors")
    save_file({"b": torch.zeros(200), "empty": torch.zeros(0)}, tmp_path / "x.safetensors")
    finite.check_file(tmp_path / "x.safetensors")


def test_foreign_sources(directory, tmp_path):
    with pytest.raises(CheckpointError, match="'smaltown' is neither .* Did you mean 'smalltown'"):
        interp.load("smaltown")
    with pytest.raises(CheckpointError, match="is a file; give the directory"):
        interp.load(directory / WEIGHTS)
    with pytest.raises(CheckpointError, match="cannot load a builtins.int"):
        interp.load(3)
    bert = transformers.BertModel(
        transformers.BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
        )
    )
    with pytest.raises(CheckpointError, match="model_type 'bert'"):
        interp.load(bert)
    with pytest.raises(CheckpointError, match="dtype torch.int8 is not supported"):
        interp.load(directory, dtype=torch.int8)


def test_tokenizer_larger_than_the_vocabulary(directory, smalltown):
    smalltown.tokenizer.save(directory)
    with pytest.raises(InterpError, match="tokens but the model only 50"):
        interp.load(directory)


def test_a_pad_token_that_was_added_without_resizing(directory, smalltown, tmp_path):
    copied = tmp_path / "copied"
    save_directory(smalltown, copied)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (copied / file).unlink()
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(interp.loading.EMBEDDED / "smalltown")
    theirs.add_special_tokens({"pad_token": "[PAD]"})
    theirs.save_pretrained(copied)
    with pytest.warns(
        UserWarning, match=r"ids 0 to 1479 only, and its tokenizer 1 added tokens beyond: '\[PAD\]' \(1480\)"
    ):
        model = interp.load(copied)
    assert model.to_str_tokens("Mary went") == [["<|endoftext|>", "Mary", " went"]]
    with pytest.raises(
        TokenError, match=r"'\[PAD\]' is token 1480 of the tokenizer, but the model has ids 0 to 1479 only"
    ):
        model.to_tokens("Mary[PAD]")
    with pytest.raises(TokenError, match=r"'\[PAD\]' is token 1480"):
        model.to_single_token("[PAD]")
    twin = interp.processing.fold_value_biases(model)  # a copy does not warn again
    assert twin.to_string(torch.tensor([[1368, 1479]]))
    save_directory(model, tmp_path / "again")
    with pytest.warns(UserWarning, match="1 added tokens beyond"):
        assert interp.load(tmp_path / "again").tokenizer.hash() == model.tokenizer.hash()


def test_embedded_models_need_no_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert embedded_models() == ["smalltown"]
    assert interp.load().name == "smalltown"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result"
    path.write_text("old")

    def interrupted(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    def full(temporary):
        raise OSError(28, "No space left on device")

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, interrupted)
    with pytest.raises(InterpError, match="No space left on device. Nothing was changed"):
        write_whole(path, full)
    with pytest.raises(InterpError, match="exists already"):
        write_whole(path, lambda temporary: None, overwrite=False)
    with pytest.raises(InterpError, match="folder .* does not exist"):
        write_whole(tmp_path / "absent" / "x", lambda temporary: None)
    with pytest.raises(InterpError, match="is a folder"):
        write_whole(tmp_path, lambda temporary: None)
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert path.read_text() == "old"
