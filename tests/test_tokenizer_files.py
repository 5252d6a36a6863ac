"""Tokenizer files as `transformers` and its older releases write them, with `transformers` as the reference."""

import json
import shutil

import pytest
import transformers
from tokenizer_kinds import BYTES, KINDS, byte_level, sentencepiece
from transformers import (
    AutoTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

import interp
from interp import Tokenizer
from interp.errors import CheckpointError

TEXTS = [
    "When Mary and John went to the store",
    " leading and  two  spaces \t tabs\r\n\n",
    "na\u00efve cafe\u0301 \u6570\u5b66 \U0001f389\U0001f3fd don't stop, it's 1984!",
    "<|im_start|>user\nHi<|im_end|> and <pad> and <extra> at last",
]


def agree(ours: Tokenizer, theirs) -> None:
    """The same ids for every text, with what each puts before it of itself."""
    for text in TEXTS:
        assert ours.batch([text], bos=ours.bos is not None)[0].tolist() == theirs(text)["input_ids"], text
    assert ours.eos == theirs.eos_token_id


def learned(backend):
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


@pytest.mark.parametrize(
    ("kind", "draft", "options"),
    [
        (GPT2Tokenizer, byte_level, {}),
        (GPT2Tokenizer, byte_level, {"add_prefix_space": True, "pad_token": "<pad>"}),
        (GPT2Tokenizer, byte_level, {"add_bos_token": True, "extra_special_tokens": ["<extra>"]}),
        (GPTNeoXTokenizer, byte_level, {}),
        (Qwen2Tokenizer, byte_level, {"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]}),
        (LlamaTokenizer, lambda: sentencepiece("prepend"), {"add_bos_token": True}),
        (LlamaTokenizer, lambda: sentencepiece("prepend"), {"add_bos_token": True, "legacy": True}),
        (LlamaTokenizer, lambda: sentencepiece("prepend"), {"add_prefix_space": False}),
        (GemmaTokenizer, lambda: sentencepiece("never"), {"add_bos_token": True}),
    ],
)
def test_what_transformers_saves_of_each_class(tmp_path, kind, draft, options):
    vocab, merges = learned(draft())
    theirs = kind(vocab=vocab, merges=merges, **options)
    theirs.save_pretrained(tmp_path)
    ours = Tokenizer.from_directory(tmp_path)
    agree(ours, theirs)
    agree(ours, AutoTokenizer.from_pretrained(tmp_path))
    agree(Tokenizer.of(theirs), theirs)
    for text in TEXTS[:2]:
        ids = ours.encode(text)
        assert ours.encode(ours.decode(ids)) == ids


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_saved_by_us_is_read_by_both(tmp_path, kind):
    ours = Tokenizer.of(KINDS[kind]())
    ours.save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    assert (again.hash(), again.bos, again.eos, again.stops) == (ours.hash(), ours.bos, ours.eos, ours.stops)
    agree(again, PreTrainedTokenizerFast.from_pretrained(tmp_path))


@pytest.fixture
def pair(tmp_path):
    """vocab.json and merges.txt, as GPT-2's own."""
    byte_level().model.save(str(tmp_path))
    return tmp_path


def settle(directory, **files):
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))


ADDED = {"<|im_start|>": 380, "<pad>": 381, "<extra>": 382}
FLAGS = {"lstrip": False, "rstrip": True, "normalized": False, "single_word": False, "special": True}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer_config": {"add_prefix_space": True}},
        {"added_tokens": ADDED},
        {"added_tokens": ADDED, "special_tokens_map": {"pad_token": "<pad>", "additional_special_tokens": ["<extra>"]}},
        {"special_tokens_map": {"pad_token": {"content": "<pad>"} | FLAGS, "eos_token": "<|end|>"}},
        {"tokenizer_config": {"added_tokens_decoder": {"380": {"content": "<extra>"} | FLAGS}, "eos_token": "<extra>"}},
        {"tokenizer_config": {"pad_token": "<pad>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}},
        {"tokenizer_config": {"bos_token": "<|end|>", "eos_token": "<|end|>", "add_bos_token": True}},
    ],
)
def test_a_vocabulary_with_merges_and_what_stands_beside(pair, files):
    settle(pair, **files)
    named = files.get("tokenizer_config", {}) | files.get("special_tokens_map", {})
    named = {
        "bos_token": None,
        "eos_token": None,
        "unk_token": None,
    } | named  # those of GPT-2 are not in this vocabulary
    settle(pair, tokenizer_config=files.get("tokenizer_config", {}) | {k: v for k, v in named.items() if v is None})
    agree(Tokenizer.from_directory(pair), GPT2Tokenizer.from_pretrained(pair))


def test_gpt2s_own_files_with_added_tokens(gpt2_tokenizer_directory, tmp_path):
    for file in gpt2_tokenizer_directory.iterdir():
        shutil.copy(file, tmp_path)
    settle(
        tmp_path,
        added_tokens={"<|im_start|>": 50257, "<extra>": 50259, "<pad>": 50258},
        special_tokens_map={"pad_token": "<pad>", "eos_token": "<|endoftext|>"},
    )
    ours, theirs = Tokenizer.from_directory(tmp_path), GPT2Tokenizer.from_pretrained(tmp_path)
    agree(ours, theirs)
    assert ours.encode("Hello world<pad>") == [15496, 995, 50258]
    assert ours.pieces([50257, 0]) == ["<|im_start|>", "!"]


def test_a_gap_in_the_ids_is_refused_by_name(pair):
    settle(pair, added_tokens={"<pad>": 385})
    with pytest.raises(
        CheckpointError, match=r"'<pad>' is said to have id 385, but the vocabulary gives it 380.*tokenizer="
    ):
        Tokenizer.from_directory(pair)

    backend = byte_level()
    whole = json.loads(backend.to_str())
    whole["added_tokens"][-1]["id"] = 390
    settle(pair, tokenizer=whole)
    with pytest.raises(CheckpointError, match=r"'<|im_end|>' is said to have id 390, but the vocabulary gives it 381"):
        Tokenizer.from_directory(pair)


def test_a_class_whose_splitting_is_not_known(pair):
    settle(pair, tokenizer_config={"tokenizer_class": "WhisperTokenizer"})
    with pytest.raises(CheckpointError, match="how WhisperTokenizer splits text.*save_pretrained"):
        Tokenizer.from_directory(pair)


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.txt"])
def test_a_vocabulary_of_a_kind_that_is_not_read_is_warned_of(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match=f"only there as {name}, which is not read.*save_pretrained"):
        assert Tokenizer.from_directory(tmp_path) is None


def test_qwens_class_splits_as_qwen_does(pair):
    settle(
        pair,
        tokenizer_config={"tokenizer_class": "Qwen2Tokenizer", "eos_token": None, "pad_token": None, "unk_token": None},
    )
    theirs = Qwen2Tokenizer.from_pretrained(pair)
    agree(Tokenizer.from_directory(pair), theirs)


@pytest.mark.parametrize("broken", [{"added_tokens_decoder": [1]}, {"added_tokens_decoder": {"x": {}}}])
def test_settings_that_are_no_tokens(pair, broken):
    settle(pair, tokenizer_config=broken)
    with pytest.raises(CheckpointError, match="added_tokens_decoder"):
        Tokenizer.from_directory(pair)


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece, Llama 2's"])
def test_what_training_left_is_switched_off(tmp_path, kind):
    backend = KINDS[kind]()
    text = "When Mary and John went to the store"
    ids = Tokenizer.of(backend).encode(text)
    backend.enable_truncation(3)
    backend.enable_padding(length=40)
    backend.model.dropout = 0.9
    before = backend.to_str()
    backend.save(str(tmp_path / "tokenizer.json"))
    for ours in (Tokenizer.from_directory(tmp_path), Tokenizer(backend), Tokenizer.of(backend)):
        assert ours.encode(text) == ids
        assert ours.encode("Hi") == Tokenizer.of(KINDS[kind]()).encode("Hi")
        assert ours.decode(ids) == text
    assert backend.to_str() == before  # whose it is, keeps it as it was


def test_what_transformers_left_set_in_a_tokenizer_in_memory():
    theirs = PreTrainedTokenizerFast(tokenizer_object=byte_level(), pad_token="<|end|>", split_special_tokens=True)
    ids = theirs("Mary went to the store<|im_end|>", max_length=4, truncation=True, padding="max_length")["input_ids"]
    assert len(ids) == 4
    ours = Tokenizer.of(theirs)
    assert ours.decode(ours.encode("Mary went to the store<|im_end|>")) == "Mary went to the store<|im_end|>"
    assert ours.encode("<|im_end|>") == [ours.single("<|im_end|>")]


def test_no_end_of_text_is_none(pair, tmp_path_factory):
    for settings, eos, bos in (
        ({"eos_token": None, "bos_token": None}, None, None),
        ({"eos_token": None, "bos_token": "<|end|>", "add_bos_token": True}, None, 0),
        ({"bos_token": None, "add_bos_token": True, "eos_token": "<|end|>"}, 0, None),
        ({"eos_token": {"content": "<|end|>"}}, 0, None),
        ({}, None, None),  # GPT-2's is not in this vocabulary
    ):
        settle(pair, tokenizer_config=settings)
        tokenizer = Tokenizer.from_directory(pair)
        assert (tokenizer.eos, tokenizer.bos, tokenizer.stops) == (eos, bos, () if eos is None else (eos,))
    vocab = json.loads((pair / "vocab.json").read_text())
    (pair / "vocab.json").write_text(json.dumps(vocab | {"None": 380}))
    settle(pair, tokenizer_config={"eos_token": None, "bos_token": None, "add_bos_token": True})
    tokenizer = Tokenizer.from_directory(pair)
    assert (tokenizer.eos, tokenizer.bos, tokenizer.opening) == (None, None, None)


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({"generation_config": {"eos_token_id": [381, 0]}}, (0, 381)),
        ({"generation_config": {"eos_token_id": 381}}, (0, 381)),
        ({"config": {"eos_token_id": [381, 380]}}, (0, 381, 380)),
        ({"config": {"eos_token_id": 50256}}, (0,)),
        ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": 381}}, (0, 381)),
        ({"generation_config": {"eos_token_id": 380}, "config": {"eos_token_id": 381}}, (0, 380)),
    ],
)
def test_generation_ends_at_all_that_the_files_name(pair, tmp_path_factory, files, stops):
    added = {"added_tokens": {"<|im_start|>": 380, "<|im_end|>": 381}}
    settle(pair, tokenizer_config={"eos_token": "<|end|>"}, **added, **files)
    tokenizer = Tokenizer.from_directory(pair)
    assert (tokenizer.eos, tokenizer.stops) == (0, stops)
    other = tmp_path_factory.mktemp("again")
    tokenizer.save(other)
    assert Tokenizer.from_directory(other).stops == stops


@pytest.mark.parametrize("kind", ["byte-level, Llama 3's", "sentencepiece, Llama 2's", "metaspace first"])
@pytest.mark.parametrize("said", [None, True, False])
def test_bos_of_a_post_processor(tmp_path, kind, said):
    backend = KINDS[kind]()
    first = "<|end|>" if "Llama 3" in kind else "<s>"
    backend.save(str(tmp_path / "tokenizer.json"))
    settle(tmp_path, tokenizer_config={"bos_token": first} | ({} if said is None else {"add_bos_token": said}))
    tokenizer = Tokenizer.from_directory(tmp_path)
    expected = backend.token_to_id(first)
    assert (tokenizer.bos, tokenizer.opening) == (None if said is False else expected, expected)
    tokenizer.save(tmp_path)
    assert Tokenizer.from_directory(tmp_path).bos == tokenizer.bos
    assert (
        PreTrainedTokenizerFast.from_pretrained(tmp_path)("a b")["input_ids"]
        == tokenizer.batch(["a b"], bos=said is not False)[0].tolist()
    )


def test_several_tokens_before_a_text_are_refused(tmp_path):
    from tokenizers import processors

    backend = byte_level()
    special = [(token, backend.token_to_id(token)) for token in ("<|im_start|>", "<|end|>")]
    backend.post_processor = processors.TemplateProcessing("<|end|> <|im_start|> $A", special_tokens=special)
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"several tokens before every text \('<|end|>', '<|im_start|>'\)"):
        Tokenizer.from_directory(tmp_path)


def test_smalltown_saved_by_transformers_keeps_its_bos(smalltown, tmp_path):
    source = interp.loading.EMBEDDED / "smalltown"
    theirs = PreTrainedTokenizerFast.from_pretrained(source)
    assert theirs("Mary went")["input_ids"] == smalltown.to_tokens("Mary went")[0].tolist()
    theirs.save_pretrained(tmp_path)
    transformers.GPT2LMHeadModel.from_pretrained(source).save_pretrained(tmp_path)
    again = interp.load(tmp_path)
    assert again.to_str_tokens("Mary went") == [["<|endoftext|>", "Mary", " went"]]
    assert again.tokenizer.hash() == smalltown.tokenizer.hash()
    assert again.tokenizer.stops == smalltown.tokenizer.stops == (0,)
    assert len(BYTES) == 256
