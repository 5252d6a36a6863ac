"""GGUF files of every architecture and quantisation against `transformers`; and files that are refused, by name."""

import os
import struct
import subprocess
import sys

import gguf
import gguf_files
import numpy as np
import pytest
import torch
import transformers
from conftest import random_tokens
from gguf import GGMLQuantizationType as Kind

import analyses
import interp
from interp.errors import CheckpointError
from interp.loading.gguf.container import Container
from interp.processing import fold_layer_norm

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

WRITTEN = [Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0]
"""Those that the library also makes; `transformers` cannot read them all."""

READ = [
    *WRITTEN, Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.TQ1_0, Kind.TQ2_0, Kind.MXFP4, Kind.NVFP4, Kind.IQ2_XXS,
    Kind.IQ2_XS, Kind.IQ2_S, Kind.IQ3_XXS, Kind.IQ3_S, Kind.IQ1_S, Kind.IQ1_M, Kind.IQ4_NL, Kind.IQ4_XS,
]  # fmt: skip

WORDS = {"model": "gpt2", "tokens": ["a", "b", "ab", *(f"w{i}" for i in range(297))], "merges": ["a b"]}
"""A vocabulary, by whose length `transformers` knows how many ids GPT-2 has."""


@pytest.fixture(scope="module")
def llama():
    return gguf_files.model("llama")


@pytest.fixture
def file(tmp_path, llama):
    return gguf_files.write(tmp_path / "llama.gguf", "llama", llama)


def logits(model, tokens):
    with torch.no_grad():
        found = model(tokens)
    return found if isinstance(found, torch.Tensor) else found.logits


def theirs(path):
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).eval()


@pytest.mark.parametrize("architecture", gguf_files.CONFIGS)
def test_each_architecture_gives_the_logits_of_the_model_that_was_written(tmp_path, architecture):
    source = gguf_files.model(architecture)
    path = gguf_files.write(
        tmp_path / "x.gguf", architecture, source, tokenizer=WORDS if architecture == "gpt2" else None
    )
    ours, tokens = interp.load(path), random_tokens(2, 24, vocab=300)
    torch.testing.assert_close(ours(tokens), logits(source, tokens), atol=1e-4, rtol=0)
    if architecture != "gptneox":  # which transformers does not read
        torch.testing.assert_close(ours(tokens), logits(theirs(path), tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "head_dim": 24}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
        ("qwen3", {"head_dim": 20, "tie_word_embeddings": True}),
        ("gemma2", {"head_dim": 24, "query_pre_attn_scalar": 24, "num_hidden_layers": 4}),
        ("gemma2", {"head_dim": 24, "query_pre_attn_scalar": 16, "num_hidden_layers": 46}),  # as the largest scales
        ("gemma3", {"head_dim": 24, "query_pre_attn_scalar": 24}),
        ("gptneox", {"use_parallel_residual": False}),
        ("gptneox", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}}),
    ],
)
def test_what_an_architecture_leaves_open(tmp_path, architecture, more):
    source = gguf_files.model(architecture, **more)
    scaling = source.config.rope_parameters if architecture == "llama" else {}
    said = {
        f"llama.rope.scaling.{key}": scaling[name]
        for key, name in (("type", "rope_type"), ("factor", "factor"))
        if name in scaling
    }
    said = {} if said.get("llama.rope.scaling.type") == "default" else said
    if "head_dim" in more and architecture == "llama":
        said |= {"llama.attention.key_length": 24, "llama.attention.value_length": 24}
    path, tokens = tmp_path / "x.gguf", random_tokens(2, 24, vocab=300)
    ours = interp.load(gguf_files.write(path, architecture, source, changes=said))
    torch.testing.assert_close(ours(tokens), logits(source, tokens), atol=2e-4, rtol=0)


def test_llama3_scaling_is_read_from_its_factors(tmp_path):
    """Against the model that has the scaling; `transformers`' reading of the file leaves it out."""
    rope = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    }  # fmt: skip
    sizes = {"hidden_size": 256, "num_hidden_layers": 1, "max_position_embeddings": 131072, "initializer_range": 0.05}
    source = gguf_files.model("llama", rope_parameters=rope, **sizes)
    unscaled = 500000.0 ** (-torch.arange(0, 64, 2) / 64)
    factors = (unscaled / source.model.rotary_emb.inv_freq).numpy()
    assert factors.min() == pytest.approx(1)
    assert factors.max() == pytest.approx(8)
    assert sum(1.01 < factor < 7.99 for factor in factors) > 2  # some are scaled in part
    path = gguf_files.write(tmp_path / "x.gguf", "llama", source, extra={"rope_freqs.weight": factors})
    tokens = random_tokens(1, 600, vocab=300)
    ours = interp.load(path)
    assert ours.config.rotary_scaling == "llama3"
    torch.testing.assert_close(ours(tokens), logits(source, tokens), atol=1e-4, rtol=0)
    plain = gguf_files.write(tmp_path / "y.gguf", "llama", source)
    assert not torch.allclose(interp.load(plain)(tokens), logits(source, tokens), atol=1e-2)
    gguf_files.write(path, "llama", source, extra={"rope_freqs.weight": factors * 1.5})
    with pytest.raises(CheckpointError, match=r"rope_freqs.weight holds other factors than Llama 3's"):
        interp.load(path)
    gguf_files.write(path, "llama", source, extra={"rope_freqs.weight": np.ones_like(factors)})
    assert interp.load(path).config.rotary_scaling == "none"


def test_a_sliding_window_makes_it_mistral(tmp_path):
    settings = {"rope_parameters": dict(gguf_files.ROPE), "sliding_window": 6, "head_dim": 16}
    config = transformers.MistralConfig(**gguf_files.SIZES | gguf_files.HEADS | settings)
    torch.manual_seed(0)
    source = transformers.AutoModelForCausalLM.from_config(config).eval()
    path = gguf_files.write(tmp_path / "x.gguf", "llama", source, changes={"llama.attention.sliding_window": 6})
    tokens = random_tokens(2, 24, vocab=300)
    torch.testing.assert_close(interp.load(path)(tokens), logits(source, tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.name)
def test_a_quantised_file_gives_what_transformers_makes_of_it(tmp_path, llama, kind):
    path, tokens = tmp_path / "x.gguf", random_tokens(2, 24, vocab=300)
    ours = interp.load(gguf_files.write(path, "llama", llama, kind=kind))
    torch.testing.assert_close(ours(tokens), logits(theirs(path), tokens), atol=1e-4, rtol=0)
    assert ours.source == f"GGUF file x.gguf; tensors: 23 {kind.name}, 7 F32"
    lens = analyses.logit_lens(ours, tokens)
    assert lens.attrs["source"] == ours.source


def random_blocks(kind, rows=64, row=256):
    """Rows of blocks at random. Bytes stay so small that no half-precision scale among them is infinite."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return np.random.default_rng(0).integers(0, 0x78, (rows, row // block * size), dtype=np.uint8)


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.name)
def test_every_quantisation_is_the_librarys_bit_for_bit(tmp_path, kind, monkeypatch):
    source, blocks = gguf_files.model("llama", intermediate_size=256), random_blocks(kind)
    path = tmp_path / "x.gguf"
    gguf_files.write(path, "llama", source, raw={"blk.1.ffn_down.weight": (blocks, kind)})
    expected = torch.from_numpy(gguf.quants.dequantize(blocks.view(np.float16) if kind == Kind.F16 else blocks, kind))
    assert expected.shape == (64, 256)
    for piece in (2**17, 1000):
        monkeypatch.setattr("interp.loading.gguf.container.PIECE", piece)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            model = interp.load(path, dtype=dtype)
            assert model.dtype == dtype
            assert torch.equal(model.blocks[1].mlp.output.weight, expected.to(dtype))
    assert Container(path).tensors["blk.1.ffn_down.weight"].type == kind


def test_no_quantisation_of_the_library_is_forgotten():
    def readable(kind):
        try:
            gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            return False
        return True

    assert {kind for kind in Kind if readable(kind)} == {*READ, Kind.F32}


def test_double_precision(tmp_path, llama):
    values = np.random.default_rng(0).normal(size=(64, 96))
    path = gguf_files.write(tmp_path / "x.gguf", "llama", llama, raw={"blk.1.ffn_down.weight": (values, Kind.F64)})
    assert torch.equal(interp.load(path, dtype=torch.float64).blocks[1].mlp.output.weight, torch.from_numpy(values))


def test_version_2_and_another_alignment(tmp_path, llama, file):
    weights = interp.load(file).weight_hash()
    content = bytearray(file.read_bytes())
    content[4:8] = struct.pack("<I", 2)
    file.write_bytes(content)
    assert interp.load(file).weight_hash() == weights
    other = gguf_files.write(tmp_path / "y.gguf", "llama", llama, changes={"general.alignment": 256})
    assert interp.load(other).weight_hash() == weights
    assert interp.load(other).name == "y"


def test_processing_keeps_the_source(file):
    model = interp.load(file)
    assert fold_layer_norm(model).source == model.source
    assert interp.load().source == ""


def patched(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def of_type(number):
    def change(content):
        name = b"blk.1.ffn_down.weight"
        place = content.index(name) + len(name) + 4 + 16
        content[place : place + 4] = struct.pack("<I", number)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.__setitem__(slice(0, 4), b"GGML"), "is no GGUF file: it does not begin with GGUF"),
        (lambda c: c.__setitem__(slice(4, 8), struct.pack("<I", 1)), "is GGUF version 1; versions 2 and 3 are read"),
        (lambda c: c.__setitem__(slice(4, 8), struct.pack("<I", 4)), "is GGUF version 4; versions 2 and 3 are read"),
        (lambda c: c.__setitem__(slice(4, 8), struct.pack(">I", 3)), "is a big-endian GGUF file"),
        (lambda c: c.__setitem__(slice(8, 16), struct.pack("<Q", 2**60)), "truncated|dimensions"),
        (lambda c: c.__setitem__(slice(16, 24), struct.pack("<Q", 2**60)), "truncated|unknown type|damaged"),
        (lambda c: c.__setitem__(slice(24, 32), struct.pack("<Q", 2**63)), "truncated: its header goes on"),
        (of_type(77), r"blk.1.ffn_down.weight has weights of type 77, which is unknown to the gguf library"),
        (of_type(4), r"of type 4, which is unknown"),
        (of_type(int(Kind.Q8_K)), r"rows of 96 weights|of type Q8_K, which the gguf library cannot dequantise"),
        (of_type(int(Kind.I32)), r"of type I32, which the gguf library cannot dequantise"),
        (of_type(int(Kind.Q6_K)), r"rows of 96 weights, which blocks of 256 \(Q6_K\) do not fill"),
        (lambda c: c.__setitem__(slice(-4, None), struct.pack("<f", float("nan"))), "holds NaN or infinite values"),
        (lambda c: c.__delitem__(slice(None)), "cannot be read"),
    ],
)
def test_damaged_files(file, change, message):
    with pytest.raises(CheckpointError, match=message):
        interp.load(patched(file, change))


def test_a_file_cut_off_anywhere_is_truncated(file):
    content = file.read_bytes()
    for keep in [*range(0, 2000, 37), *range(2000, len(content), 20011), len(content) - 1]:
        file.write_bytes(content[:keep])
        with pytest.raises(CheckpointError, match="truncated" if keep > 4 else "truncated|cannot be read"):
            interp.load(file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changes": {"llama.block_count": None}}, "the metadata has no llama.block_count"),
        ({"changes": {"llama.block_count": "three"}}, "llama.block_count must be one positive whole number, got 'three'"),
        ({"changes": {"llama.expert_count": 8}}, "llama.expert_count = 8 is not supported"),
        ({"changes": {"llama.expert_count": 0}}, None),
        ({"changes": {"llama.attention.causal": True}}, None),
        ({"changes": {"llama.attention.causal": False}}, "llama.attention.causal = False is not supported"),
        ({"changes": {"llama.logit_scale": 0.5}}, "llama.logit_scale = 0.5 is not supported"),
        ({"changes": {"llama.rope.dimension_count": 8}}, "llama.rope.dimension_count = 8 is not supported; only 16 is"),
        ({"changes": {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}}, "rope.scaling.type = 'yarn' is not supported"),
        ({"changes": {"llama.rope.scaling.type": "none"}}, None),
        ({"changes": {"llama.tensor_data_layout": "Meta AI original pth"}}, None),
        ({"changes": {"llama.attention.head_count_kv": [2, 2, 2]}}, None),
        ({"changes": {"llama.attention.head_count_kv": [2, 2, 4]}}, "head_count_kv must be one positive whole number"),
        ({"changes": {"llama.attention.head_count": 8, "llama.rope.dimension_count": 8}}, "shape"),
        ({"changes": {"split.count": 3}}, "is one of 3 parts of a model. Put them together"),
        ({"drop": ("blk.1.attn_k.weight",)}, "self_attn.k_proj.weight' is missing"),
        ({"drop": ("token_embd.weight",)}, "token_embd.weight is missing"),
        ({"extra": {"blk.0.ffn_gate_inp.weight": np.ones((2, 64), np.float32)}}, "'blk.0.ffn_gate_inp.weight' is not part of"),
        ({"extra": {"blk.9.attn_norm.weight": np.ones(64, np.float32)}}, "layers.9.input_layernorm"),
    ],
)  # fmt: skip
def test_files_that_say_something_else(tmp_path, llama, options, message):
    path = tmp_path / "x.gguf"
    gguf_files.write(path, "llama", llama, **options)
    if message is None:
        torch.testing.assert_close(
            interp.load(path)(random_tokens(vocab=300)), logits(llama, random_tokens(vocab=300)), atol=1e-4, rtol=0
        )
        return
    with pytest.raises(CheckpointError, match=message):
        interp.load(path)


def after(key, old, new):
    """A change of a value of the metadata, in place."""

    def change(content):
        place = content.index(old, content.index(key) + len(key))
        content[place : place + len(old)] = new

    return change


def test_another_architecture_is_named(file):
    patched(file, after(b"general.architecture", b"llama", b"mamba"))
    supported = "llama, qwen2, qwen3, gemma2, gemma3, gpt2, gptneox"
    with pytest.raises(CheckpointError, match=f"the architecture 'mamba' is not supported. Supported: {supported}"):
        interp.load(file)


def test_an_alignment_that_is_no_power_of_two(tmp_path, llama):
    path = gguf_files.write(tmp_path / "x.gguf", "llama", llama, changes={"general.alignment": 64})
    patched(path, after(b"general.alignment", struct.pack("<I", 64), struct.pack("<I", 24)))
    with pytest.raises(CheckpointError, match="general.alignment = 24 must be a power of two"):
        interp.load(path)


def test_a_file_is_told_by_its_content_too(file):
    weights = interp.load(file).weight_hash()
    for name in ("x.GGUF", "sha256-0123"):
        assert interp.load(file.rename(file.with_name(name))).weight_hash() == weights
        file.with_name(name).rename(file)


@pytest.mark.parametrize("architecture", gguf_files.CONFIGS)
def test_it_is_written_back_as_transformers_has_it(tmp_path, architecture):
    """From a quantised file to a checkpoint directory of the family, the same to the bit."""
    source = gguf_files.model(architecture)
    vocabulary = gguf_files.bytes_alone()
    path = gguf_files.write(tmp_path / "x.gguf", architecture, source, kind=Kind.Q8_0, tokenizer=vocabulary)
    model = interp.load(path)
    assert model.format == source.config.model_type
    interp.save_directory(model, tmp_path / "saved")
    again = interp.load(tmp_path / "saved")
    assert again.weight_hash() == model.weight_hash()
    assert again.config == model.config
    assert again.tokenizer.encode("Mary, 12") == model.tokenizer.encode("Mary, 12")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    tokens = random_tokens(2, 24, vocab=300)
    torch.testing.assert_close(model(tokens), logits(theirs, tokens), atol=1e-4, rtol=0)


def test_what_is_no_regular_file(tmp_path):
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    with pytest.raises(CheckpointError, match=r"pipe.gguf is no regular file"):
        interp.load(pipe)
    with pytest.raises(CheckpointError, match=r"absent.gguf cannot be read: .*No such file"):
        interp.load(tmp_path / "absent.gguf")
    with pytest.raises(CheckpointError, match=r"absent.gguf cannot be read"):
        interp.load("owner/absent.gguf")
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(CheckpointError, match="no config.json"):
        interp.load(tmp_path / "folder.gguf")


def test_loading_takes_little_more_memory_than_the_weights(tmp_path):
    """Peak resident memory of a fresh process, above that after the imports, against the weights in float32."""
    settings = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 8}
    source = gguf_files.model("llama", **settings, num_hidden_layers=5, vocab_size=16000)
    path = gguf_files.write(tmp_path / "x.gguf", "llama", source, kind=Kind.Q8_0)
    code = f"""
import interp, interp.loading.gguf
from pathlib import Path
peak = lambda: next(int(x.split()[1]) for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
before = peak()
model = interp.load({str(path)!r})
print((peak() - before) * 1024 / sum(p.numel() * 4 for p in model.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) <= 1.25
