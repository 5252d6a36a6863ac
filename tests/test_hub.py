"""Hub models from a cache on disk, sharded and half-precision checkpoints, and memory."""

import json
import subprocess
import sys

import pytest
import torch
import transformers
from conftest import random_tokens, tiny
from safetensors.torch import load_file, save_file

import interp
from interp.errors import CheckpointError
from interp.loading import save_directory
from interp.loading.hub import is_hub_id

COMMIT, OTHER = "a" * 40, "b" * 40


def lay_out(cache, repository, models):
    """A hub cache as huggingface-hub lays it out: commits under snapshots, branches under refs."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    for commit, model in models.items():
        (folder / "snapshots" / commit).mkdir(parents=True)
        save_directory(model, folder / "snapshots" / commit)
    (folder / "refs" / "main").write_text(COMMIT)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("repository", ["openai-community/gpt2", "gpt2"])
def test_a_cached_model_loads_by_its_short_name_and_revision(cache, repository):
    first, second = tiny(0, torch.float32), tiny(5, torch.float32)
    lay_out(cache, repository, {COMMIT: first, OTHER: second})
    model = interp.load("gpt2")
    assert model.name == "gpt2"
    assert model.weight_hash() == first.weight_hash()
    assert interp.load("gpt2", revision=OTHER).weight_hash() == second.weight_hash()


def test_owner_and_name(cache):
    lay_out(cache, "somebody/tiny-gpt2", {COMMIT: tiny(dtype=torch.float32)})
    assert interp.load("somebody/tiny-gpt2").weight_hash() == tiny(dtype=torch.float32).weight_hash()


def test_not_cached_and_no_network_says_how_to_fetch(cache):
    with pytest.raises(CheckpointError, match=r"hf download openai-community/gpt2-xl`.*HF_HOME"):
        interp.load("gpt2-xl")
    with pytest.raises(CheckpointError, match=r"hf download nobody/nothing --revision v1`"):
        interp.load("nobody/nothing", revision="v1")


def test_a_cache_without_weights_is_not_taken(cache):
    folder = lay_out(cache, "openai-community/gpt2", {COMMIT: tiny(dtype=torch.float32)})
    (folder / "snapshots" / COMMIT / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="hf download"):
        interp.load("gpt2")


def test_what_counts_as_a_hub_id():
    assert all(map(is_hub_id, ("gpt2", "distilgpt2", "a/b")))
    assert not any(map(is_hub_id, ("smaltown", "./x", "/x", "a/b/c", "~/x", "x/")))


@pytest.fixture
def sharded(tmp_path):
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=3, n_head=2, n_embd=16, n_positions=24, vocab_size=50)
    ).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="12KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    return tmp_path, theirs


def test_shards_that_transformers_writes(sharded):
    directory, theirs = sharded
    tokens = random_tokens()
    with torch.no_grad():
        torch.testing.assert_close(interp.load(directory)(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)


def test_damaged_shards(sharded):
    directory, _ = sharded
    index = directory / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    shard = sorted(directory.glob("model-*.safetensors"))[0]
    places = dict(good["weight_map"])
    key = next(iter(places))
    for change, message in (
        ({"weight_map": places | {key: "../x.safetensors"}}, "outside its folder"),
        ({"weight_map": places | {"h.9.x": shard.name}}, "lack 1 tensors of the index, such as 'h.9.x'"),
        ({"weight_map": {}}, "no weight_map"),
    ):
        index.write_text(json.dumps(good | change))
        with pytest.raises(CheckpointError, match=message):
            interp.load(directory)
    index.write_text(json.dumps(good))
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"the shard {shard.name} .* is not there"):
        interp.load(directory)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints(tmp_path, dtype):
    model = tiny(dtype=torch.float32)
    save_directory(model, tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({k: v.to(dtype) for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    loaded = interp.load(tmp_path)
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded(random_tokens()), model.to(dtype).float()(random_tokens()), atol=1e-5, rtol=0)
    assert interp.load(tmp_path, dtype=dtype).dtype == dtype


def test_loading_takes_little_more_memory_than_the_weights(tmp_path):
    """Peak resident memory of a fresh process, above that after the imports."""
    config = interp.ModelConfig(n_layers=6, d_model=512, n_heads=8, d_head=64, d_mlp=2048, n_ctx=256, d_vocab=30000)
    save_directory(interp.Transformer(config), tmp_path)
    code = f"""
import interp
from pathlib import Path
peak = lambda: next(int(x.split()[1]) for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
before = peak()
model = interp.load({str(tmp_path)!r})
loaded = peak()
model(model.W_E.new_zeros(1, 4).long())
print((loaded - before) * 1024 / sum(p.numel() * p.element_size() for p in model.parameters()))
after = peak()
print((after - before) * 1024 / sum(p.numel() * p.element_size() for p in model.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loading, running = map(float, done.stdout.split())
    assert loading <= 1.25
    assert running > 0.8  # the measure sees the weights once they are read


def test_what_a_tokenizer_reads_is_downloaded():
    from fnmatch import fnmatch

    from interp.loading.hub import FILES

    read = [
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "added_tokens.json",
        "special_tokens_map.json",
    ]
    for name in (
        *read,
        "generation_config.json",
        "config.json",
        "model-00001-of-00002.safetensors",
        "adapter_config.json",
    ):
        assert any(fnmatch(name, pattern) for pattern in FILES), name


def test_an_adapter_in_the_cache_is_refused_by_name(cache):
    folder = lay_out(cache, "somebody/lora", {COMMIT: tiny(dtype=torch.float32)})
    (folder / "snapshots" / COMMIT / "adapter_config.json").write_text('{"base_model_name_or_path": "gpt2"}')
    with pytest.raises(CheckpointError, match=r"holds an adapter \(adapter for gpt2\)"):
        interp.load("somebody/lora")


@pytest.mark.parametrize("name", ["my model/v1", "owner/na me", "-owner/name", "owner/..", "own\udcffer/name"])
def test_what_cannot_be_a_name_of_the_hub_is_named(name):
    with pytest.raises(CheckpointError, match="no file or directory here, nor can the hub have it"):
        interp.load(name)
