"""Tokenizers in GGUF files: the ids of `transformers`' reading and of SentencePiece itself; and what is refused."""

import io
import json
import random

import gguf_files
import pytest
import sentencepiece
import transformers
from conftest import PROMPTS
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

import interp
from interp.errors import CheckpointError
from interp.loading.gguf.container import Container
from interp.loading.gguf.tokenizer import SPLITTINGS, read_tokenizer
from interp.zoo.corpus import document

TEXT = "\n".join(document(random.Random(number), 0.6) for number in range(300)) + "\n".join(
    "def f(x):\n    return x ** 2  # 3141\n    y = 'naïve café', 27 % 1999" for _ in range(40)
)
SPECIAL = ["<|endoftext|>", "<|start|>", "<think>"]
TEXTS = [
    *PROMPTS, "", "I'll don't WE'VE he's", "1 12 123 1234 12345 x1y2 3.14", "  two  spaces   three\n\n\n  \t", "line\r\nline\n",
    "naïve café ½ ²", "日本語 🎉👩‍👩‍👧 Ünïcödé", "def f(x):\n    return x**2  # 2718", "<|start|>user Hi<|endoftext|><think>",
    "a" * 40, "!?... (\"quoted\")--'",
]  # fmt: skip
SPACES = 8


@pytest.fixture(scope="module")
def llama():
    return gguf_files.model("llama", vocab_size=1000, num_hidden_layers=1)


@pytest.fixture(scope="module")
def byte_level():
    """Entries of a byte-level vocabulary trained here, some tokens longer than their splitting lets merges make them."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    kinds = [3 if token in SPECIAL[:2] else 4 if token in SPECIAL else 1 for token in tokens]
    merges = [" ".join(pair) for pair in model["merges"]]
    return {"model": "gpt2", "tokens": tokens, "token_type": kinds, "merges": merges, "eos_token_id": 0}


def train_sentencepiece(**options):
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=file, vocab_size=700, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2, hard_vocab_limit=False, **options,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())


def pieces_of(model, **more):
    """Entries as llama.cpp's converter makes them of a SentencePiece model."""
    numbers = range(model.get_piece_size())
    tokens = [model.id_to_piece(i) for i in numbers]
    kinds = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in numbers]
    user = [i for i, text in enumerate(tokens) if len(text) > 1 and not text.strip("▁")]
    for i in user if more.pop("user_defined", False) else []:
        kinds[i], tokens[i] = 4, tokens[i].replace("▁", " ")
    scores = [float(model.get_score(i)) for i in numbers]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return {"model": "llama", "tokens": tokens, "scores": scores, "token_type": kinds} | ids | more


@pytest.fixture(scope="module")
def pieces():
    return train_sentencepiece()


def read(path, llama, entries, architecture="llama"):
    return read_tokenizer(Container(gguf_files.write(path, architecture, llama, tokenizer=entries)))


def theirs(path):
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.mark.parametrize(
    "pre", [None, "default", "gpt-2", "qwen2", "deepseek-r1-qwen", "llama-bpe", "llama3", "tekken", "dbrx"]
)
def test_byte_level_ids_are_those_of_transformers(tmp_path, llama, byte_level, pre):
    path = tmp_path / "x.gguf"
    ours, peer = read(path, llama, byte_level | {"pre": pre} if pre else byte_level), theirs(path)
    for text in TEXTS:
        assert ours.encode(text) == peer.encode(text, add_special_tokens=False), text
        assert ours.decode(ours.encode(text)) == text
    assert ours.eos == 0


@pytest.mark.parametrize(
    ("pre", "numbers"),
    [
        ("gpt-2", ["12345"]),
        ("smollm", [*"12345"]),
        ("qwen2", [*"12345"]),
        ("llama-bpe", ["123", "45"]),
        ("tekken", [*"12345"]),
    ],
)
def test_each_way_to_split_keeps_its_digits_together(pre, numbers):
    split = SPLITTINGS[pre].splits()
    assert [piece for piece, _ in split.pre_tokenize_str("12345")] == numbers


def test_a_word_ends_before_a_capital_only_in_mistrals():
    def words(pre):
        return [piece for piece, _ in SPLITTINGS[pre].splits().pre_tokenize_str("camelCase")]

    assert words("tekken") == ["camel", "Case"]
    assert words("llama-bpe") == ["camelCase"]


def test_a_word_that_is_a_token_needs_no_merges_in_llama_3(tmp_path, llama, byte_level):
    entries = byte_level | {"tokens": [*byte_level["tokens"], "qxzj"], "token_type": [*byte_level["token_type"], 1]}
    assert read(tmp_path / "x.gguf", llama, entries | {"pre": "llama-bpe"}).encode("qxzj") == [
        len(entries["tokens"]) - 1
    ]
    assert len(read(tmp_path / "x.gguf", llama, entries | {"pre": "gpt-2"}).encode("qxzj")) > 1


@pytest.mark.parametrize(
    ("entries", "bos"),
    [
        ({}, None),
        ({"bos_token_id": 1}, None),
        ({"bos_token_id": 1, "add_bos_token": True}, 1),
        ({"bos_token_id": 1, "pre": "llama-bpe"}, 1),
        ({"bos_token_id": 1, "pre": "llama-bpe", "add_bos_token": False}, None),
        ({"pre": "llama-bpe"}, None),
    ],
)
def test_bos_is_prepended_where_the_file_says_so(tmp_path, llama, byte_level, entries, bos):
    path = gguf_files.write(tmp_path / "x.gguf", "llama", llama, tokenizer=byte_level | entries)
    model = interp.load(path)
    assert model.tokenizer.bos == bos
    assert model.tokenizer.opening == entries.get("bos_token_id", 0)
    assert model.to_tokens("Mary")[0, 0].item() == (model.tokenizer.encode("Mary")[0] if bos is None else bos)


def test_generation_ends_at_the_end_of_a_turn_too(tmp_path, llama, byte_level):
    assert read(tmp_path / "x.gguf", llama, byte_level | {"eot_token_id": 1, "eom_token_id": 2}).stops == (0, 1, 2)


def test_sentencepiece_ids_are_those_of_transformers_and_of_sentencepiece(tmp_path, llama, pieces):
    path = tmp_path / "x.gguf"
    ours, peer = read(path, llama, pieces_of(pieces)), theirs(path)
    assert (ours.bos, ours.eos) == (1, 2)
    for text in [*TEXTS, " a space before", "</s> after"]:
        assert ours.encode(text) == peer.encode(text, add_special_tokens=False), text
        if not text.startswith((" ", "<")):
            assert ours.encode(text) == pieces.encode(text), text
            assert ours.decode(ours.encode(text)) == text
    assert read(path, llama, pieces_of(pieces, add_bos_token=False)).bos is None


def test_sentencepiece_without_a_space_before(tmp_path, llama):
    plain = train_sentencepiece(add_dummy_prefix=False)
    ours = read(tmp_path / "x.gguf", llama, pieces_of(plain, add_space_prefix=False))
    for text in [*TEXTS, " a space before"]:
        assert ours.encode(text) == plain.encode(text), text
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3"])
def test_gemmas_pieces_are_merged_in_order_and_runs_of_spaces_are_tokens(tmp_path, architecture):
    source = gguf_files.model(architecture, vocab_size=1000, num_hidden_layers=1)
    runs = ["▁" * length for length in range(2, SPACES + 1)]
    model = train_sentencepiece(add_dummy_prefix=False, user_defined_symbols=runs)
    entries = pieces_of(model, user_defined=True, add_space_prefix=False)
    path = tmp_path / "x.gguf"
    ours, peer = read(path, source, entries, architecture), theirs(path)
    for text in [*TEXTS, "  two", "a" + " " * SPACES + "b", "a   b    c"]:
        assert ours.encode(text) == model.encode(text), text
        assert ours.encode(text) == peer.encode(text, add_special_tokens=False), text
        assert ours.decode(ours.encode(text)) == text
    del entries["add_space_prefix"]  # older files say nothing
    assert read(path, source, entries, architecture).encode("Mary went") == model.encode("Mary went")


@pytest.fixture(scope="module")
def both_kinds(tmp_path_factory, llama, byte_level, pieces):
    folder = tmp_path_factory.mktemp("kinds")
    plain = pieces_of(pieces, add_space_prefix=False)
    return read(folder / "a.gguf", llama, byte_level | {"pre": "smollm"}), read(folder / "b.gguf", llama, plain)


@settings(deadline=None)
@given(text=st.text().filter(lambda text: "▁" not in text))  # which SentencePiece writes for a space
def test_any_text_comes_back(both_kinds, text):
    for tokenizer in both_kinds:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model 'bert' is not supported; only gpt2 .* and llama"),
        ({"pre": "deepseek-coder"}, "tokenizer.ggml.pre 'deepseek-coder' is not supported. Supported: default, gpt-2"),
        ({"merges": None}, "tokenizer.ggml.merges is missing"),
        ({"merges": ["ab"]}, "merge 'ab' is no pair"),
        ({"merges": ["qqq zzz"]}, "the tokenizer cannot be built"),
        ({"token_type": [1, 1]}, r"tokenizer.ggml.token_type must have \d+ values, found 2"),
        ({"bos_token_id": 5000}, "bos_token_id is 5000, and the tokenizer has the ids 0 to"),
        ({"add_bos_token": True}, "add_bos_token is true, and there is no bos_token_id"),
        ({"model": "llama"}, "tokenizer.ggml.scores"),
    ],
)
def test_entries_that_do_not_fit(tmp_path, llama, byte_level, change, message):
    entries = {key: value for key, value in (byte_level | change).items() if value is not None}
    if change == {"model": "llama"}:
        del entries["merges"]
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "x.gguf", llama, entries)


def test_tokens_that_stand_twice_or_are_empty(tmp_path, llama, byte_level):
    tokens, kinds = byte_level["tokens"], byte_level["token_type"]
    with pytest.raises(CheckpointError, match="has the token '<think>' twice"):
        read(tmp_path / "x.gguf", llama, byte_level | {"tokens": [*tokens, "<think>"], "token_type": [*kinds, 1]})
    empty = read(tmp_path / "x.gguf", llama, byte_level | {"tokens": [*tokens, ""], "token_type": [*kinds, 5]})
    assert empty.decode([len(tokens)]) == f"[EMPTY_{len(tokens)}]"


def test_files_without_a_tokenizer_and_with_too_large_a_one(tmp_path, llama, byte_level):
    path = tmp_path / "x.gguf"
    assert interp.load(gguf_files.write(path, "llama", llama)).tokenizer is None
    assert interp.load(gguf_files.write(path, "llama", llama, tokenizer={"model": "none"})).tokenizer is None
    small = gguf_files.model("llama", vocab_size=300, num_hidden_layers=1)
    gguf_files.write(path, "llama", small, tokenizer=byte_level)
    with pytest.raises(CheckpointError, match=r"the tokenizer has \d+ tokens but the model only 300"):
        interp.load(path)
