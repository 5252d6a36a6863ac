"""Attacks on what is loaded: configurations that ask for too much, weights that are no numbers or there twice, files that change, pipes."""

import gc
import json
import os
import random
import resource
import shutil
import signal
import time
from contextlib import contextmanager
from copy import deepcopy

import gguf_files
import pytest
import torch
from conftest import TINY, random_tokens, tiny
from families import theirs
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Backend
from tokenizers import models as backends
from tokenizers import pre_tokenizers

import analyses
import interp
from analyses.kept import Kept
from analyses.lenses import load_lens, published_lens
from analyses.lenses.tuning import text_of
from analyses.verification.reference import read_reference
from interp.errors import CheckpointError, InterpError, ResultError
from interp.loading.checkpoint import INDEX
from interp.loading.listing import _of_directory
from interp.strict_json import parse
from interp.tokenizer import Tokenizer

FAMILIES = ("gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "olmo2")
HOSTILE = (
    "NaN", "Infinity", "-Infinity", "1e400", "2.7", "10000000", "9223372036854775808", "1e300", "1" + "0" * 400, "-1", "0", "null", "true",
    '"x"', "[]", "{}", "[[[[1]]]]", '[[["global", "local"], 9223372036854775807]]', '[[["global"], "x"]]',
)  # fmt: skip
SECONDS, BYTES = 2.0, 300e6


@contextmanager
def at_once(seconds=5):
    """Ends what hangs."""

    def hangs(number, frame):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A small model of each family in its own format, and one in ours."""
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        theirs(family).save_pretrained(folder / family)
    interp.save_directory(tiny(dtype=torch.float32), folder / "criticalpile", format="criticalpile")
    interp.save_directory(
        tiny(config=interp.ModelConfig(**TINY.to_dict() | {"activation": "gelu", "d_mlp": 64, "init_std": 0.02}), dtype=torch.float32),
        folder / "nanogpt", format="nanogpt",
    )  # fmt: skip
    return folder


def fields(settings, before=()):
    """Where every value of a configuration stands."""
    for name, value in settings.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from fields(value, (*before, name))


def with_value(settings, place, text):
    """The configuration as JSON, with that text as the value at a place."""
    changed = json.loads(json.dumps(settings))
    at = changed
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = "HERE"
    return json.dumps(changed).replace('"HERE"', text)


def attacked(folder, cases):
    """Every configuration is refused by name or read, at once and without much memory."""
    config = folder / "config.json"
    original = config.read_text()
    settings = json.loads(original)
    places = list(fields(settings))
    try:
        for place, text in cases(places):
            config.write_text(with_value(settings, place, text))
            begun, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for read in (interp.load, _of_directory):
                try:
                    with at_once():
                        read(folder)
                except CheckpointError:
                    pass
                except InterpError as error:
                    raise AssertionError(f"{folder.name}: {place} = {text[:40]}: {error}") from error
            took = time.process_time() - begun  # whatever else the machine does
            grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
            assert took < SECONDS, (folder.name, place, text[:40])
            assert grown < BYTES, (folder.name, place, text[:40])
    finally:
        config.write_text(original)


@pytest.mark.parametrize("family", [*FAMILIES, "criticalpile", "nanogpt"])
def test_no_configuration_hangs_the_loader_or_fills_the_memory(family, checkpoints):
    drawn = random.Random(family)

    def some(places):
        sized = [place for place in places if "layers" in place[-1] or "layer_types" in place[-1]]
        yield from ((place, text) for place in sized for text in ("10000000", "9223372036854775808", "1e400"))
        yield from ((drawn.choice(places), drawn.choice(HOSTILE)) for _ in range(40))

    attacked(checkpoints / family, some)


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, "criticalpile", "nanogpt"])
def test_no_configuration_of_any_kind_hangs_the_loader(family, checkpoints):
    attacked(checkpoints / family, lambda places: ((place, text) for place in places for text in HOSTILE))


@pytest.mark.parametrize("name", ["n_layers", "d_model", "n_heads", "d_head", "d_mlp", "n_ctx", "d_vocab"])
@pytest.mark.parametrize("size", [10_000_000, 2**63])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_sizes_are_held_against_the_tensors(name, size, positions, tmp_path):
    config = interp.ModelConfig(**TINY.to_dict() | {"positions": positions})
    interp.save_directory(tiny(config=config, dtype=torch.float32), tmp_path, format="criticalpile")
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["config"][name] = size
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with at_once(), pytest.raises(CheckpointError, match=f"{name}"):
        interp.load(tmp_path)


def test_a_gguf_file_with_too_many_layers_is_refused_at_once(tmp_path):
    source = gguf_files.model("llama")
    for count in (10_000_000, 2**32 - 1):
        path = tmp_path / f"{count}.gguf"
        gguf_files.write(path, "llama", source, changes={"llama.block_count": count})
        with at_once(), pytest.raises(CheckpointError, match="there are only .* tensors"):
            interp.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": [-Infinity]}', "-Infinity is no JSON number"),
        ('{"a": 1e400}', "1e400 is too large"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
        ("[" * 200_000, "nested too deeply"),
        ("1" * 5000, "."),
        ("", "."),
    ],
)
def test_json_that_is_not_read_alike_everywhere(text, said):
    with pytest.raises(ValueError, match=said):
        parse(text)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_such_json_is_refused_in_every_file_of_a_checkpoint(name, small_checkpoint, tmp_path):
    for number, text in enumerate(('{"a": NaN}', "[" * 200_000, '{"a": 1, "a": 2}')):
        folder = tmp_path / str(number)
        shutil.copytree(small_checkpoint, folder)
        (folder / name).write_text(text)
        with pytest.raises(CheckpointError, match=name):
            interp.load(folder)


def changed(folder, change):
    """A small GPT-2 whose tensors were changed on disk."""
    theirs("gpt2").save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_quantised_weights_are_refused_with_and_without_nan(tmp_path):
    def quantised(tensors):
        tensors["transformer.h.0.ln_1.weight"] = torch.full((16,), torch.nan).to(torch.float8_e4m3fn)

    with pytest.raises(
        CheckpointError, match="ln_1.weight has dtype torch.float8_e4m3fn, expected floating point.*quantised"
    ):
        interp.load(changed(tmp_path, quantised))


def test_values_that_the_dtype_asked_for_cannot_hold(tmp_path):
    def large(tensors):
        tensors["transformer.h.1.ln_2.bias"][3] = 1e6

    folder = changed(tmp_path / "checkpoint", large)
    interp.load(folder)
    interp.load(folder, dtype=torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"h\.?.*1.*ln2.bias holds values that are infinite in torch.float16"):
        interp.load(folder, dtype=torch.float16)
    source = gguf_files.model("llama")
    with torch.no_grad():
        source.model.norm.weight[0] = 1e6
    gguf_files.write(tmp_path / "large.gguf", "llama", source)
    interp.load(tmp_path / "large.gguf")
    with pytest.raises(CheckpointError, match="infinite in torch.float16"):
        interp.load(tmp_path / "large.gguf", dtype=torch.float16)
    loaded = theirs("gpt2").double()
    loaded.transformer.ln_f.weight[0] = 1e300
    with pytest.raises(CheckpointError, match="infinite in torch.float32"):
        interp.load(loaded)


def test_one_tensor_under_two_names(tmp_path):
    def twice(tensors):
        tensors["wte.weight"] = tensors["transformer.wte.weight"] + 1

    with pytest.raises(CheckpointError, match="'wte.weight' and 'transformer.wte.weight'|'transformer.wte.weight' and"):
        interp.load(changed(tmp_path, twice))


def sharded(folder, shards, index=None):
    theirs("gpt2").save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, more in shards.items():
        parts[part] = [*parts[part], *more(names)]
    for part, held in parts.items():
        save_file({name: tensors[name].clone() for name in held}, folder / part)
    places = {name: part for part, held in parts.items() for name in held}
    (folder / INDEX).write_text(json.dumps({"weight_map": places | (index or {})}))
    return folder


def test_one_tensor_in_two_shards(tmp_path):
    interp.load(sharded(tmp_path / "whole", {}))
    with pytest.raises(CheckpointError, match="is in two shards, a.safetensors and b.safetensors"):
        interp.load(
            sharded(
                tmp_path / "twice",
                {"b.safetensors": lambda names: names[:1]},
                {"transformer.h.0.attn.c_attn.bias": "a.safetensors"},
            )
        )
    with pytest.raises(CheckpointError, match="is in b.safetensors, but it is in a.safetensors"):
        interp.load(sharded(tmp_path / "other", {}, {"transformer.h.0.attn.c_attn.bias": "b.safetensors"}))


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("change", ["other weights", "cut", "appended", "replaced", "deleted"])
def test_a_file_that_changes_under_a_model(change, copy, tmp_path):
    path, tokens = tmp_path / "model.safetensors", random_tokens(1, 6)
    for seed, folder in enumerate((tmp_path, tmp_path / "other")):
        interp.save_directory(tiny(seed=seed, dtype=torch.float32), folder)
    model = interp.load(tmp_path, copy=copy)
    before, logits = model.weight_hash(), model(tokens)
    deeper = deepcopy(model)
    if change == "other weights":
        shutil.copyfile(tmp_path / "other" / path.name, path)
        os.utime(path, ns=(1, 1))
    elif change == "cut":
        os.truncate(path, 100)
    elif change == "appended":
        with path.open("ab") as file:
            file.write(b"0")
    elif change == "replaced":
        os.replace(tmp_path / "other" / path.name, path)
    else:
        path.unlink()
    if copy or change in ("replaced", "deleted"):  # its bytes are still there, or its own
        assert model.weight_hash() == before
        assert torch.equal(model(tokens), logits)
    else:
        with pytest.raises(CheckpointError, match="was written to after a model was loaded from it.*copy=True"):
            model.weight_hash()
        with pytest.raises(CheckpointError, match="was written to"):
            analyses.residual_stream(model, tokens) if change != "cut" else model.weight_hash()
    assert deeper.weight_hash() == before  # in memory of its own


def test_a_model_that_was_cast_does_not_depend_on_its_file(tmp_path):
    interp.save_directory(tiny(dtype=torch.float32), tmp_path)
    model = interp.load(tmp_path, dtype=torch.float64)
    before = model.weight_hash()
    gc.collect()
    os.truncate(tmp_path / "model.safetensors", 0)
    assert model.weight_hash() == before


READERS = {
    "config.json": lambda folder: interp.load(folder),
    "model.safetensors": lambda folder: interp.load(folder),
    "tokenizer.json": lambda folder: interp.load(folder),
    "tokenizer_config.json": lambda folder: interp.load(folder),
    "generation_config.json": lambda folder: interp.load(folder),
    "added_tokens.json": lambda folder: Tokenizer.from_directory(folder),
    INDEX: lambda folder: interp.load(folder),
    "vocab.json": lambda folder: Tokenizer.from_directory(folder),
    "x.gguf": lambda folder: interp.load(folder / "x.gguf"),
    "lens": lambda folder: load_lens(folder / "lens", tiny()),
    "params.pt": lambda folder: published_lens(folder, tiny()),
    "reference": lambda folder: read_reference(folder / "reference"),
    "result.nc": lambda folder: analyses.load(folder / "result.nc"),
    "text": lambda folder: text_of(folder / "text"),
    "request.json": lambda folder: Kept(folder, {}),
    "lens.training": lambda folder: analyses.train_tuned_lens(tiny(), random_tokens(4, 8), out=folder / "lens", steps=1),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_in_the_place_of_a_file_is_an_error_at_once(name, small_checkpoint, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(small_checkpoint, folder)
    if name in ("vocab.json", "added_tokens.json"):
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
        (folder / "vocab.json").write_text("{}")
        (folder / "merges.txt").write_text("")
    if name == INDEX:
        (folder / "model.safetensors").unlink()
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with at_once(), pytest.raises(InterpError, match="regular file|no such file|there is no"):
        READERS[name](folder)


def words(folder, **settings):
    """A tokenizer of words, and its settings."""
    backend = Backend(backends.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], dropout=0.5))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer.from_directory(folder)


def test_dropout_of_merges_is_off(tmp_path):
    tokenizer = words(tmp_path)
    assert {tuple(tokenizer.encode("ab ab ab")) for _ in range(50)} == {(2, 2, 2)}
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    assert {tuple(Tokenizer.of(backend).encode("ab ab ab")) for _ in range(50)} == {(2, 2, 2)}
    assert backend.model.dropout == 0.5  # the user's own is left as it is


def test_a_bos_that_the_vocabulary_does_not_have(tmp_path):
    with pytest.raises(CheckpointError, match="add_bos_token is true, but bos_token '<s>' is no token"):
        words(tmp_path, add_bos_token=True, bos_token="<s>")
    assert words(tmp_path, add_bos_token=True, bos_token="a").bos == 0
    assert words(tmp_path, add_bos_token=False, bos_token="<s>").bos is None


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_learning_rate_that_is_none(rate, tmp_path):
    with pytest.raises(InterpError, match="must be positive"):
        analyses.train_tuned_lens(tiny(), random_tokens(4, 8), out=tmp_path / "lens", steps=2, learning_rate=rate)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_diverges_keeps_nothing_of_it(tmp_path):
    with pytest.raises(ResultError, match="no numbers any more.*smaller learning rate"):
        analyses.train_tuned_lens(
            tiny(dtype=torch.float32), random_tokens(4, 8), out=tmp_path / "lens", steps=4, validate_every=2, learning_rate=1e38
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_lens_that_holds_no_numbers(tmp_path):
    model = tiny(dtype=torch.float32)
    lens = analyses.lenses.translators.TunedLens.identity(model, {})
    analyses.lenses.translators.save_lens(lens, tmp_path / "lens")
    assert load_lens(tmp_path / "lens", model).weight.shape == lens.weight.shape
    lens.weight[0, 0, 0] = torch.nan
    analyses.lenses.translators.save_lens(lens, tmp_path / "nan")
    with pytest.raises(CheckpointError, match="holds NaN"):
        load_lens(tmp_path / "nan", model)
