"""Tokenizers of every kind: any text comes back, tokens show readably, words are found, and markers are what the files say."""

import unicodedata

import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_kinds import KINDS, MARK, byte_level, sentencepiece
from transformers import PreTrainedTokenizerFast

import interp
from interp import PAD, ModelConfig, Tokenizer, Transformer
from interp.errors import ConfigError, TokenError

BUILT = {name: Tokenizer.of(build()) for name, build in KINDS.items()}
every_kind = pytest.mark.parametrize("kind", KINDS)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def comes_back_as(kind: str, text: str) -> str:
    """The text that a kind can tell from others at all."""
    if "Qwen" in kind:
        text = unicodedata.normalize("NFC", text)
    if "byte-level" not in kind:
        text = text.replace(MARK, " ")
    one_space = text.startswith(" ") and not text.startswith("  ") and text != " "
    if one_space and ("metaspace" in kind or kind == "unigram" or "put before" in kind):
        text = text[1:]  # it is encoded as without that space
    return text


@every_kind
@settings(max_examples=150, deadline=None)
@given(
    text=texts
    | st.sampled_from(["  two", " one", "   ", " ", "\n", "a  b", "<s>", "café 😀 数学", f"{MARK}x", "<0x41>"])
)
def test_any_unicode_comes_back(kind, text):
    tokenizer = BUILT[kind]
    ids = tokenizer.encode(text)
    expected = comes_back_as(kind, text)
    if kind.startswith("unigram"):
        expected = expected.replace("<0x41>", "A")  # that text is the token of a byte
    assert tokenizer.decode(ids) == expected
    assert tokenizer.encode(tokenizer.decode(ids)) == ids


@every_kind
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(texts | st.sampled_from(["<|im_start|>", "<start_of_turn>", "<s>", " a", "b"]), max_size=5))
def test_texts_with_markers_encode_to_themselves(kind, parts):
    tokenizer = BUILT[kind]
    ids = tokenizer.encode("".join(parts))
    again = tokenizer.encode(tokenizer.decode(ids))
    assert tokenizer.decode(again) == tokenizer.decode(ids)
    if "put before" not in kind and kind not in ("metaspace always", "unigram"):
        assert again == ids


@every_kind
def test_tokens_show_readably_with_their_spaces_and_their_bytes(kind):
    tokenizer = BUILT[kind]
    marker = "<start_of_turn>" if "byte-level" not in kind else "<|im_start|>"
    text = f"{marker}The capital of 数 is 😀\n"
    ids = tokenizer.encode(text)
    pieces = tokenizer.pieces(ids)
    assert pieces[0] == marker
    assert MARK not in "".join(pieces)
    assert "Ġ" not in "".join(pieces)
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces).replace(" The", "The").startswith(f"{marker}The capital of ")
    assert {"<0xF0>", "<0x9F>", "<0x98>", "<0x80>"} <= set(pieces)
    assert pieces[-1] == "\n"
    assert tokenizer.decode(ids[:-2]).endswith("\ufffd")  # as transformers shows it: three bytes of four
    assert tokenizer.pieces([PAD, ids[0]]) == ["", marker]


@every_kind
def test_a_single_token_is_one_that_stands_inside_a_text(kind):
    tokenizer = BUILT[kind]
    inside, alone = tokenizer.single(" Mary"), tokenizer.encode("went to Mary")
    assert alone[-1] == inside
    assert tokenizer.pieces([inside]) == [" Mary"]
    assert tokenizer.pieces([tokenizer.single("e"), tokenizer.single(" ")]) == ["e", " "]
    with pytest.raises(TokenError, match="' Mary', .* ' Mary'"):
        tokenizer.single(" Mary and Mary")
    special = "<s>" if "byte-level" not in kind else "<|end|>"
    assert tokenizer.pieces([tokenizer.single(special)]) == [special]


@every_kind
@pytest.mark.parametrize("part", ["café", "😀", "Paris", " is a", "é 😀", "The", "ß!"])
def test_words_are_found_where_they_stand(kind, part):
    tokenizer = BUILT[kind]
    text = "The café 😀 is a k\u0301 of Paris ß!"
    model = Transformer(
        ModelConfig(**(TINY.to_dict() | {"d_vocab": len(tokenizer), "n_ctx": 120})), tokenizer=tokenizer
    )
    ids = model.to_tokens(text)[0]
    positions = model.positions_of(part, text)
    assert model.positions_of(part, ids) == positions
    assert positions == list(range(positions[0], positions[-1] + 1))
    held = tokenizer.decode(ids[positions].tolist())
    assert part.strip() in held
    for drop in (positions[1:], positions[:-1]):  # no token too many
        assert part not in tokenizer.decode(ids[drop].tolist())
    assert model.positions_of(part, text, bos=True if tokenizer.opening is not None else None)[0] >= positions[0]
    with pytest.raises(TokenError, match="'Madrid' stands 0 times in the prompt, not once.\n  tokens: "):
        model.positions_of("Madrid", text)
    with pytest.raises(TokenError, match="'a' stands 3 times"):
        model.positions_of("a", text)
    with pytest.raises(TokenError, match="is empty"):
        model.positions_of("", text)


def test_words_are_found_in_a_text_that_the_tokenizer_changes():
    """NFC joins a letter and its accent; lower case and left-out characters change more."""
    tokenizer = BUILT["byte-level, Qwen 2's"]
    model = Transformer(ModelConfig(**(TINY.to_dict() | {"d_vocab": len(tokenizer)})), tokenizer=tokenizer)
    decomposed = "a cafe\u0301 e in a"
    found = model.positions_of("cafe\u0301", decomposed)
    assert model.positions_of("caf\u00e9", "a caf\u00e9 e in a") == found
    assert tokenizer.decode(model.to_tokens(decomposed)[0, found].tolist()) == " caf\u00e9"

    from tokenizers import Tokenizer as Backend
    from tokenizers import models, normalizers, pre_tokenizers

    words = Backend(models.WordLevel({"the": 0, "cafe": 1, "of": 2, "paris": 3, "?": 4}, unk_token="?"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = Tokenizer(words)
    small = Transformer(ModelConfig(**(TINY.to_dict() | {"d_vocab": 5})), tokenizer=words)
    assert small.positions_of("Caf\u00e9", "The Caf\u00e9 of Paris") == [1]
    assert small.positions_of("f\u00e9 of P", "The Caf\u00e9 of Paris") == [1, 2, 3]
    assert small.positions_of("of", torch.tensor([0, 1, 2, 3])) == [2]
    assert small.to_str_tokens("The Louvre") == [["the", "?"]]


def test_two_overlapping_places_are_two():
    tokenizer = BUILT["byte-level"]
    with pytest.raises(TokenError, match="'aa' stands 2 times"):
        tokenizer.find(tokenizer.encode("xaaa"), "aa")


@every_kind
def test_ids_without_a_token_show_as_numbers(kind):
    """The vocabulary of a model is often padded to a round number."""
    tokenizer = BUILT[kind]
    size = len(tokenizer)
    model = Transformer(ModelConfig(**(TINY.to_dict() | {"d_vocab": size + 30})), tokenizer=tokenizer)
    a = tokenizer.single(" Mary")
    assert model.to_str_tokens(torch.tensor([a, size + 7])) == [[" Mary", f"#{size + 7}"]]
    assert model.to_string(torch.tensor([a, size + 7, PAD]))[0].strip() == f"Mary#{size + 7}"
    assert size not in model.ordinary_ids()
    assert a in model.ordinary_ids()
    with pytest.raises(TokenError, match=rf"id {size + 30} is out of range: there are ids 0 to {size + 29}"):
        model.to_string(torch.tensor([size + 30]))
    assert len(model.tokenizer) == size
    assert tokenizer is not model.tokenizer  # which is for this model


@every_kind
def test_tokens_that_the_model_has_no_row_for(kind):
    backend = KINDS[kind]()
    known = backend.get_vocab_size()
    backend.add_special_tokens(["[PAD]"])
    fitted = Tokenizer(backend, bos=known).fitted(known)
    assert fitted.beyond == {known: "[PAD]"}
    assert len(fitted) == known
    assert fitted.decode(fitted.encode("Mary went")) == "Mary went"
    for act in (
        lambda: fitted.encode("Mary[PAD]"),
        lambda: fitted.single("[PAD]"),
        lambda: fitted.batch(["a", "[PAD]"], bos=False),
    ):
        with pytest.raises(
            TokenError, match=rf"'\[PAD\]' is token {known} of the tokenizer, but the model has ids 0 to {known - 1}"
        ):
            act()
    with pytest.raises(TokenError, match=r"beginning-of-text token '\[PAD\]' has no row"):
        fitted.batch(["a"], bos=True)
    with pytest.raises(ConfigError, match=f"has {known + 1} tokens but the model only 200"):
        Tokenizer(backend).fitted(200)


def test_what_cannot_be_encoded():
    with pytest.raises(TokenError, match="lone surrogate at character 1"):
        BUILT["byte-level"].encode("a\ud800")
    with pytest.raises(TokenError, match="cannot take a builtins.int as a tokenizer"):
        Tokenizer.of(3)


def test_a_tokenizer_beside_a_model_in_memory(tmp_path):
    import transformers

    backend = KINDS["sentencepiece, Llama 2's"]()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=len(fast)))
    theirs.generation_config.eos_token_id = [2, 5]
    ours = interp.load(theirs, tokenizer=fast)
    assert ours.to_tokens("Mary went")[0].tolist() == fast("Mary went")["input_ids"]
    assert ours.tokenizer.stops == (2, 5)
    assert (ours.tokenizer.eos, ours.tokenizer.bos) == (2, 1)
    fast.save_pretrained(tmp_path)
    assert interp.load(theirs, tokenizer=tmp_path).to_str_tokens("Mary") == [["<s>", " Mary"]]
    assert interp.load(theirs, tokenizer=backend).tokenizer.bos == 1
    assert interp.load(theirs).tokenizer is None


def test_generation_ends_at_each_of_them():
    tokenizer = byte_level()
    model = Transformer(
        ModelConfig(**(TINY.to_dict() | {"d_vocab": 382, "n_ctx": 60})),
        tokenizer=Tokenizer(tokenizer, eos=0, stops=[381]),
    )
    free = model.generate("Mary went", max_new_tokens=20, temperature=5.0, stop=[])
    turn = int(free[0, 8])
    ending = Tokenizer(tokenizer, eos=0, stops=[turn])
    model.tokenizer = ending
    cut = model.generate("Mary went", max_new_tokens=20, temperature=5.0)
    assert int(cut[0, -1]) == turn
    assert cut.shape[1] < free.shape[1]


def test_a_prefix_is_taken_from_the_first_stretch_only():
    tokenizer = Tokenizer.of(sentencepiece("first"))
    ids = tokenizer.encode("Mary")
    assert tokenizer.decode(ids) == "Mary"
    assert tokenizer.decode([1, *ids]) == "<s> Mary"
    assert tokenizer.encode("<s> Mary") == [1, *ids]
