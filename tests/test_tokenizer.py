"""Text to ids and back."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interp
from interp import PAD, Tokenizer
from interp.errors import CheckpointError, TokenError

# Ids that OpenAI's GPT-2 encoder gives; each can be read off vocab.json and the order of merges.txt.
GPT2_IDS = {
    "Hello world": [15496, 995],
    "When Mary and John went to the store, John gave a drink to": [
        2215,
        5335,
        290,
        1757,
        1816,
        284,
        262,
        3650,
        11,
        1757,
        2921,
        257,
        4144,
        284,
    ],
    " Mary": [5335],
    "\n\n": [628],
    "<|endoftext|>": [50256],
    "1732": [1558, 2624],
    "é": [2634],
}


@pytest.fixture(scope="module")
def gpt2(gpt2_tokenizer_directory):
    return Tokenizer.from_directory(gpt2_tokenizer_directory)


@pytest.mark.parametrize("text", GPT2_IDS)
def test_gpt2_ids(gpt2, text):
    assert gpt2.encode(text) == GPT2_IDS[text]


def test_gpt2_equals_transformers(gpt2, gpt2_tokenizer_directory):
    from transformers import GPT2TokenizerFast

    theirs = GPT2TokenizerFast.from_pretrained(str(gpt2_tokenizer_directory))
    texts = [
        "don't stop, it's 1984!",
        "  two  spaces \t tabs\r\n",
        "naïve café 数学 🎉🏽 मानक",
        "x = [1, 2];\n\tif x: pass",
        "\u00a0nbsp",
    ]
    for text in texts:
        assert gpt2.encode(text) == theirs(text)["input_ids"]


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_unicode_comes_back(smalltown, text):
    assert smalltown.tokenizer.decode(smalltown.tokenizer.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_unicode_comes_back_from_gpt2(gpt2, text):
    assert gpt2.decode(gpt2.encode(text)) == text


def test_gpt2_prepends_nothing_unless_asked(gpt2):
    assert gpt2.bos is None
    assert gpt2.batch(["Hello world"], bos=False).tolist() == [[15496, 995]]
    assert gpt2.batch(["Hello world"], bos=True).tolist() == [[50256, 15496, 995]]


def test_smalltown_prepends_where_it_was_trained_so_and_shows_it(smalltown):
    assert smalltown.tokenizer.bos == smalltown.to_single_token("<|endoftext|>")
    assert smalltown.to_str_tokens("Mary went") == [["<|endoftext|>", "Mary", " went"]]
    assert smalltown.to_str_tokens("Mary went", bos=False) == [["Mary", " went"]]
    assert smalltown.to_str_tokens("<|endoftext|>Mary") == [["<|endoftext|>", "Mary"]]  # not twice
    assert smalltown.to_string(smalltown.to_tokens(["Mary went", "John"])) == [
        "<|endoftext|>Mary went",
        "<|endoftext|>John",
    ]


def test_unequal_prompts_are_padded_at_the_end(smalltown):
    tokens = smalltown.to_tokens(["Mary went to the store", "John"])
    assert tokens.shape == (2, 6)
    assert tokens[1, 2:].tolist() == [PAD] * 4
    assert smalltown.to_str_tokens(["Mary went", "John"])[1] == ["<|endoftext|>", "John"]


def test_years_split_into_century_and_year(smalltown):
    assert smalltown.to_str_tokens(" from 1732 to 17", bos=False) == [[" from", " 17", "32", " to", " 17"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" Maryland", r"is 2: ' Mary', 'land'|is \d+: ' Mary'"),
        ("", "is 0: nothing"),
        ("Johnny", "leading space"),
        (" Mary John", "' Mary', ' John'"),
    ],
)
def test_several_tokens_list_their_pieces(smalltown, text, message):
    with pytest.raises(TokenError, match=message):
        smalltown.to_single_token(text)


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "prompt 0 is empty"), ([], "list is empty"), (["Mary", ""], "prompt 1 is empty")]
)
def test_empty_prompts(smalltown, prompt, message):
    with pytest.raises(TokenError, match=message):
        smalltown.to_tokens(prompt)


def test_prompt_beyond_the_context(smalltown):
    with pytest.raises(TokenError, match="301 tokens; smalltown takes at most 256"):
        smalltown.to_tokens(" Mary" * 300)


def test_ids_out_of_range(smalltown):
    with pytest.raises(TokenError, match="id 9999 is out of range"):
        smalltown.to_string(torch.tensor([[1, 9999]]))


def test_tokenizer_json_and_pair_agree_and_survive_saving(gpt2, tmp_path):
    gpt2.save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    for text, ids in GPT2_IDS.items():
        assert again.encode(text) == ids
    assert (again.bos, again.eos) == (None, 50256)


def test_damaged_tokenizer_files(tmp_path):
    assert Tokenizer.from_directory(tmp_path) is None
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(CheckpointError, match="belong together"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(CheckpointError, match="cannot be read"):
        Tokenizer.from_directory(tmp_path)


def test_damaged_tokenizer_settings(tmp_path, smalltown):
    smalltown.tokenizer.save(tmp_path)
    for content in ("{", json.dumps([1])):
        (tmp_path / "tokenizer_config.json").write_text(content)
        with pytest.raises(CheckpointError, match="JSON"):
            Tokenizer.from_directory(tmp_path)


def test_hash_tells_tokenizers_apart(smalltown, gpt2):
    assert smalltown.tokenizer.hash() == interp.load().tokenizer.hash() != gpt2.hash()
