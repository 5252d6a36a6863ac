"""Checkpoints as others write them: prefixes, precisions, nanoGPT's layout, adapters; read right, or refused with the way round."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from conftest import random_tokens, tiny
from safetensors.torch import load_file, save_file
from torch import nn

import analyses
import interp
from interp.errors import CheckpointError
from interp.loading import save_directory

WEIGHTS = "model.safetensors"


@pytest.fixture
def directory(tmp_path):
    save_directory(tiny(dtype=torch.float32), tmp_path / "tiny", format="gpt2")
    return tmp_path / "tiny"


def rewrite(directory, change):
    tensors = load_file(directory / WEIGHTS)
    save_file(change(tensors), directory / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.",
        "module.",
        "transformer.",
        "model.",
        "_orig_mod.module.transformer.",
        "module._orig_mod.transformer.",
        "model.transformer.",
        "_fsdp_wrapped_module.transformer.",
    ],
)
def test_prefixes_are_taken_off(directory, prefix):
    rewrite(directory, lambda tensors: {f"{prefix}{name}": value for name, value in tensors.items()})
    assert interp.load(directory).weight_hash() == tiny(dtype=torch.float32).weight_hash()


def test_wrappers_inside_a_name_and_only_some_names_prefixed(directory):
    def change(tensors):
        return {
            (f"transformer.h.{rest}" if name.startswith("h.") else f"module.{name}"): value
            for name, value in tensors.items()
            for rest in [name.removeprefix("h.").replace("1.", "1._orig_mod.", 1)]
        }

    rewrite(directory, change)
    assert interp.load(directory).weight_hash() == tiny(dtype=torch.float32).weight_hash()


def test_one_tensor_under_two_names(directory):
    rewrite(directory, lambda tensors: tensors | {"module.ln_f.bias": tensors["ln_f.bias"].clone()})
    assert interp.load(directory).weight_hash() == tiny(dtype=torch.float32).weight_hash()
    rewrite(directory, lambda tensors: tensors | {"module.ln_f.bias": tensors["ln_f.bias"] + 1})
    with pytest.raises(
        CheckpointError, match=r"'ln_f.bias' and 'module.ln_f.bias'|'module.ln_f.bias' and 'ln_f.bias'.*differ"
    ):
        interp.load(directory)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_norms_in_float32_beside_half_weights(directory, half):
    rewrite(directory, lambda tensors: {k: v if "ln_" in k else v.to(half) for k, v in tensors.items()})
    model, expected = interp.load(directory), tiny(dtype=torch.float32)
    assert model.dtype == torch.float32
    for name, value in expected.named_parameters():
        assert torch.equal(model.get_parameter(name), value if "ln" in name else value.to(half).float()), name
    assert interp.load(directory, dtype=half).dtype == half


def test_two_half_types_together_lose_nothing(directory):
    rewrite(directory, lambda t: {k: v.to(torch.float16 if "mlp" in k else torch.bfloat16) for k, v in t.items()})
    model = interp.load(directory)
    assert torch.equal(model.W_E, tiny(dtype=torch.float32).W_E.bfloat16().float())
    assert torch.equal(
        model.blocks[0].mlp.input.bias, tiny(dtype=torch.float32).blocks[0].mlp.input.bias.half().float()
    )


class NanoGPT(nn.Module):
    """Karpathy's nanoGPT, model.py, in what decides the logits: Linear layers, the exact GELU, biases or none, a tied head."""

    def __init__(self, vocab_size, block_size, n_layer, n_head, n_embd, bias):
        super().__init__()
        self.n_head, self.bias = n_head, bias
        linear = lambda a, b: nn.Linear(a, b, bias=bias)  # noqa: E731
        norm = lambda: nn.LayerNorm(n_embd, bias=bias)  # noqa: E731
        block = lambda: nn.ModuleDict(  # noqa: E731
            {
                "ln_1": norm(),
                "attn": nn.ModuleDict({"c_attn": linear(n_embd, 3 * n_embd), "c_proj": linear(n_embd, n_embd)}),
                "ln_2": norm(),
                "mlp": nn.ModuleDict({"c_fc": linear(n_embd, 4 * n_embd), "c_proj": linear(4 * n_embd, n_embd)}),
            }
        )
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab_size, n_embd),
                "wpe": nn.Embedding(block_size, n_embd),
                "h": nn.ModuleList(block() for _ in range(n_layer)),
                "ln_f": norm(),
            }
        )
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, ids):
        t = self.transformer
        x = t.wte(ids) + t.wpe(torch.arange(ids.shape[1]))
        for block in t.h:
            q, k, v = block.attn.c_attn(block.ln_1(x)).chunk(3, dim=-1)
            heads = (y.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for y in (q, k, v))
            y = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
            x = x + block.attn.c_proj(y)
            x = x + block.mlp.c_proj(F.gelu(block.mlp.c_fc(block.ln_2(x))))
        return self.lm_head(t.ln_f(x))


ARGUMENTS = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 12, "vocab_size": 30}


def nanogpt(folder, bias, settings, prefix="_orig_mod."):
    torch.manual_seed(0)
    theirs = NanoGPT(**ARGUMENTS, bias=bias)
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.4)
    folder.mkdir(exist_ok=True)
    state = {f"{prefix}{name}": value.detach().clone() for name, value in theirs.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(settings))
    return theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("named", [{}, {"model_type": "nanogpt"}])
def test_nanogpts_own_layout(tmp_path, bias, named):
    theirs = nanogpt(tmp_path, bias, ARGUMENTS | {"bias": bias, "dropout": 0.1} | named)
    model, tokens = interp.load(tmp_path), random_tokens(2, 8, vocab=30)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens), atol=1e-4, rtol=1e-5)
    assert model.format == "nanogpt"
    save_directory(model, tmp_path / "again")
    again = interp.load(tmp_path / "again")
    assert (again.format, again.config, again.weight_hash()) == ("nanogpt", model.config, model.weight_hash())


def test_nanogpts_weights_beside_a_gpt2_configuration(tmp_path):
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=8, n_positions=12, vocab_size=30, activation_function="gelu"
    )
    theirs = nanogpt(tmp_path, True, config.to_dict())
    tokens = random_tokens(2, 8, vocab=30)
    with torch.no_grad():
        torch.testing.assert_close(interp.load(tmp_path)(tokens), theirs(tokens), atol=1e-4, rtol=1e-5)


def test_nanogpt_of_an_older_release_has_biases(tmp_path):
    nanogpt(tmp_path, True, ARGUMENTS)
    assert interp.load(tmp_path).config.bias


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({k: v for k, v in ARGUMENTS.items() if k != "vocab_size"}, "no field 'vocab_size', one of nanoGPT's"),
        (ARGUMENTS | {"n_head": 3}, "n_embd = 8 is not a multiple of n_head = 3"),
        (ARGUMENTS | {"bias": "x"}, "bias must be true or false, found 'x'"),
        (ARGUMENTS | {"n_layer": 0}, "not usable"),
        (ARGUMENTS | {"n_layer": 3}, "'h.2.ln_1.weight' is missing"),
        (ARGUMENTS | {"bias": False}, "tensors are not part of GPT-2 with 2 layers"),
    ],
)
def test_nanogpts_settings_that_do_not_fit(tmp_path, settings, message):
    nanogpt(tmp_path, True, settings)
    with pytest.raises(CheckpointError, match=message):
        interp.load(tmp_path)


def test_nanogpts_pickle_is_refused_with_the_way_round(tmp_path):
    (tmp_path / "ckpt.pt").write_bytes(b"cposix\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        CheckpointError, match=r"no config.json, and the weights are only there as ckpt.pt, a pickle.*save_file"
    ):
        interp.load(tmp_path)


def test_the_way_round_for_nanogpts_pickle(tmp_path, monkeypatch):
    """The lines of the page on checkpoints, run on what nanoGPT's train.py writes."""
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "models.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```\n(import json, torch\n.*?)```", page, flags=re.DOTALL)
    theirs = nanogpt(tmp_path / "x", False, ARGUMENTS)
    (tmp_path / "out").mkdir()
    state = {f"_orig_mod.{name}": value for name, value in theirs.state_dict().items()}
    arguments = ARGUMENTS | {"bias": False, "dropout": 0.0}
    torch.save({"model": state, "model_args": arguments, "iter_num": 5}, tmp_path / "out" / "ckpt.pt")
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, "models.md", "exec"), {})
    tokens = random_tokens(2, 8, vocab=30)
    with torch.no_grad():
        torch.testing.assert_close(interp.load("out")(tokens), theirs(tokens), atol=1e-4, rtol=1e-5)


def test_a_head_that_the_configuration_does_not_say(directory):
    head = torch.randn(50, 16, generator=torch.Generator().manual_seed(3))
    rewrite(directory, lambda tensors: tensors | {"lm_head.weight": head})
    with pytest.raises(CheckpointError, match='lm_head.weight differs.*"tie_word_embeddings": false'):
        interp.load(directory)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    assert torch.equal(interp.load(directory).W_U, head.T)
    rewrite(directory, lambda tensors: {k: v for k, v in tensors.items() if k != "lm_head.weight"})
    with pytest.raises(CheckpointError, match="tie_word_embeddings is false, but there is no lm_head.weight"):
        interp.load(directory)


@pytest.mark.parametrize("beside", [True, False])
def test_an_adapters_folder_is_refused_by_name(directory, beside):
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "gpt2"}')
    if not beside:
        for name in ("config.json", WEIGHTS):
            (directory / name).unlink()
    with pytest.raises(CheckpointError, match=r"holds an adapter \(LORA for gpt2\).*merge_and_unload"):
        interp.load(directory)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.h.0.attn.c_attn.lora_A.weight",
        "h.0.attn.c_attn.base_layer.weight",
        "h.0.lora_B.default.weight",
    ],
)
def test_an_adapters_tensors_are_refused_by_name(directory, name):
    rewrite(directory, lambda tensors: tensors | {name: torch.ones(2, 2)})
    with pytest.raises(CheckpointError, match=f"'{name}' belongs to an adapter. Merge it"):
        interp.load(directory)


def test_quantised_weights_are_refused_by_name(directory):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(CheckpointError, match=r"quantised \(gptq\).*dequantize"):
        interp.load(directory)


def test_views_of_one_memory_in_a_model_in_memory():
    """Two tensors that begin at one place are not therefore one."""
    shape = transformers.GPT2Config(
        n_layer=1, n_head=1, n_embd=8, n_positions=8, vocab_size=8, tie_word_embeddings=False
    )
    theirs = transformers.GPT2LMHeadModel(shape).eval()
    square = torch.randn(8, 8)
    theirs.transformer.wte.weight.data, theirs.transformer.wpe.weight.data = square, square.T
    ours, tokens = interp.load(theirs), random_tokens(1, 8, vocab=8)
    assert torch.equal(ours.W_pos, square.T)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)


def test_a_compiled_model_and_one_without_values_in_memory():
    shape = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=8, vocab_size=9)
    theirs = transformers.GPT2LMHeadModel(shape)
    assert interp.load(torch.compile(theirs, backend="eager")).weight_hash() == interp.load(theirs).weight_hash()
    with torch.device("meta"):
        nothing = transformers.GPT2LMHeadModel(shape)
    with pytest.raises(CheckpointError, match="is on the meta device, without values"):
        interp.load(nothing)


@pytest.mark.parametrize(
    "change", [lambda w: w.data.mul_(0), lambda w: w.numpy().fill(1), lambda w: w.data.__setitem__(0, w.data[1])]
)
def test_the_hash_never_lies(change):
    model = tiny(dtype=torch.float32)
    before, half = model.weight_hash(), model.weight_hash(torch.float16)
    assert (model.weight_hash(), model.weight_hash(torch.float16)) == (before, half)
    kept = model.W_E.clone()
    change(model.W_E)
    fresh = interp.Transformer(model.config, seed=None)
    fresh.load_state_dict(model.state_dict(), assign=True)
    assert model.weight_hash() == fresh.weight_hash() != before
    model.W_E.data.copy_(kept)
    assert model.weight_hash() == before
    swapped = model.blocks[0].ln1.weight.data, model.blocks[1].ln1.weight.data
    model.blocks[0].ln1.weight.data, model.blocks[1].ln1.weight.data = swapped[1] + 1, swapped[0]
    assert model.weight_hash() != before


def test_a_lens_of_other_weights_is_refused_after_any_change():
    model = interp.load()
    before = analyses.tuned_lens(model, "Mary went").attrs["weight_hash"]
    model.blocks[2].mlp.output.weight.data.mul_(0)
    with pytest.raises(CheckpointError, match="smalltown"):
        analyses.tuned_lens(model, "Mary went")
    assert analyses.logit_lens(model, "Mary went").attrs["weight_hash"] == model.weight_hash() != before
