"""Ids, answers, positions and seeds in every form in which users hold them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
import interp
from interp import Intervention, Row, Set
from interp.errors import CheckpointError, HookError, TokenError
from interp.sweep.readouts import Logits
from interp.whole_numbers import whole_number, whole_numbers

IDS = [3, 7, 1]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32])
def test_narrow_ids_are_the_same_ids(dtype):
    model, tokens = tiny(), torch.tensor([IDS])
    expected = model(tokens)
    assert torch.equal(model(tokens.to(dtype)), expected)
    assert torch.equal(model.run_with_cache(tokens.to(dtype))[0], expected)
    assert model.to_tokens(tokens.to(dtype)).dtype == torch.long
    rows = [Row([Intervention("blocks.1.hook_mlp_out", Set(0.0))])]
    assert torch.equal(
        interp.sweep(model, tokens.to(dtype), rows, Logits()).values, interp.sweep(model, tokens, rows, Logits()).values
    )
    with pytest.raises(TokenError, match="token id 100 is out of range"):
        model(torch.tensor([[100]]).to(dtype))


@pytest.mark.parametrize(
    "given",
    [
        IDS,
        tuple(IDS),
        [np.int64(i) for i in IDS],
        [torch.tensor(i) for i in IDS],
        [IDS],
        np.array(IDS),
        np.array([IDS], dtype=np.uint16),
        np.array(IDS, dtype=">i4"),
        np.frombuffer(np.array(IDS, dtype=np.int64).tobytes(), dtype=np.int64),  # read-only
        torch.tensor(IDS, dtype=torch.uint8),
        [torch.tensor(IDS)],
        [np.array(IDS)],
    ],
)
def test_prompts_of_ids(given):
    assert tiny().to_tokens(given).tolist() == [IDS]


def test_rows_of_unequal_length_equal_their_single_runs():
    model = tiny()
    tokens = model.to_tokens([IDS, range(2)])
    assert tokens.tolist() == [IDS, [0, 1, interp.PAD]]
    torch.testing.assert_close(model(tokens)[1, :2], model(torch.tensor([[0, 1]]))[0])


REFUSED = """
import numpy as np, torch, interp
from interp.errors import TokenError
from interp.sweep.readouts import Logits
model = interp.load()
for prompt, said in (
    ([1.0, 2.0], "must be a whole number, got 1.0, float"),
    ([True, False], "got the truth value True"),
    (np.array([1.5]), "must be a whole number, got np.float64(1.5), float64"),
    (torch.tensor([1.0]), "must be integer ids"),
    (torch.tensor([[1j]]), "must be integer ids"),
    ([10**30], "64 bits"),
    ([-5], "token id -5 is out of range"),
    ([[]], "the prompt is empty"),
    ([[1], []], "only padding"),
    ([], "the list is empty"),
    ([[[1]]], "got shape (1,), list"),
    (None, "got NoneType"),
    (5, "got int"),
    (b"Mary", "got bytes"),
    ({1: 2}, "got dict"),
    ({5, 3}, "got set"),
    (["Mary", 3], "texts, or token ids, not both"),
):
    try:
        model.to_tokens(prompt)
    except TokenError as error:
        assert said in str(error), (prompt, str(error))
    else:
        raise AssertionError(prompt)
for given in ([1, 2, 3], [[1, 2]], np.array([[1, 2]]), "Mary", None, torch.tensor([[1.5]]), torch.tensor([[True]])):
    for call in (
        model,
        model.embed,
        model.run_with_cache,
        lambda tokens: interp.gradients(model, tokens, lambda logits: logits.sum()),
        lambda tokens: interp.sweep(model, tokens, [interp.Row()], Logits()),
    ):
        try:
            call(given)
        except TokenError as error:
            assert "tokens must be" in str(error), (given, str(error))
        else:
            raise AssertionError(given)
assert model.to_string([5, 6]) == model.to_string(torch.tensor([5, 6])) == model.to_string([[5, 6]][0])
"""


def test_what_is_no_prompt_is_named_without_the_tests_type_checks():
    subprocess.run([sys.executable, "-c", REFUSED], check=True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "truth value True"),
        (np.bool_(False), "truth value False"),
        (torch.tensor(True), "truth value True"),
        (3.0, "got 3.0, float"),
        (np.float32(3), "float32"),
        (torch.tensor(3.0), "torch.float32"),
        ("3", "got '3', str"),
        (None, "NoneType"),
        (torch.tensor([1, 2]), r"got shape \(2,\), torch.int64"),
        (2**63, "64 bits"),
    ],
)
def test_what_is_no_whole_number(value, said):
    with pytest.raises(HookError, match=f"a position must be a whole number.*{said}"):
        whole_number(value, "a position", HookError)


def test_whole_numbers():
    for given in (
        3,
        np.int8(3),
        np.array(3),
        torch.tensor(3),
        [3],
        (3,),
        range(3, 4),
        np.array([3]),
        torch.tensor([3]),
    ):
        (found,) = whole_numbers(given, "it")
        assert type(found) is int
        assert found == 3


@pytest.mark.parametrize(
    "form", [int, np.int64, torch.tensor, lambda i: [i], lambda i: np.array([i]), lambda i: torch.tensor([i])]
)
def test_answers_and_candidates(form):
    model, tokens = tiny(), random_tokens()
    found = analyses.activation_patching(
        model, tokens[:1], tokens[1:], answer=form(3), wrong=form(4), layers=[1], smallest_gap=1e-6
    )
    assert found["answer_id"].to_numpy().tolist() == [3]
    assert found["wrong_id"].to_numpy().tolist() == [4]
    lens = analyses.logit_lens(model, tokens, candidates=form(3), positions=form(-1))
    assert lens["candidate"].to_numpy().tolist() == ["#3"]
    assert json.loads(lens.attrs["parameters"])["positions"] == [-1]


def test_one_text_is_one_candidate(smalltown):
    lens = analyses.logit_lens(smalltown, "Mary went", candidates=" Mary")
    assert lens["candidate"].to_numpy().tolist() == [" Mary"]


@pytest.mark.parametrize(
    "subject", [range(1, 3), (1, 2), np.array([1, 2]), torch.tensor([1, 2]), [range(1, 3)], [[np.int64(1), 2]]]
)
def test_subjects_by_position(subject):
    model, tokens = tiny(), random_tokens(1, 6)
    found = analyses.causal_tracing(model, tokens, subject=subject, draws=2, layers=[1], smallest_gap=1e-6)
    assert found["blurred"].to_numpy().tolist() == [[False, True, True, False, False, False]]
    flat = json.loads(found.attrs["parameters"])["subject"]
    assert flat in ([1, 2], [[1, 2]])


def test_places_in_interventions_and_caches():
    model, tokens = tiny(), random_tokens(1, 6)
    expected = interp.sweep(model, tokens, [Row([Intervention("blocks.1.attn.hook_z", Set(0.0), [2, 3], 1)])], Logits())
    for positions, heads in (
        (np.array([2, 3]), np.int64(1)),
        (torch.tensor([2, 3]), torch.tensor(1)),
        (range(2, 4), [1]),
    ):
        rows = [Row([Intervention("blocks.1.attn.hook_z", Set(0.0), positions, heads)])]
        assert torch.equal(interp.sweep(model, tokens, rows, Logits()).values, expected.values)
    with pytest.raises(HookError, match="heads at blocks.1.attn.hook_z must be a whole number, got the truth value"):
        interp.sweep(model, tokens, [Row([Intervention("blocks.1.attn.hook_z", Set(0.0), heads=True)])], Logits())
    _, cache = model.run_with_cache(tokens, "blocks.1.hook_resid_pre")
    for place in (-1, np.int64(-1), torch.tensor(5), [5], np.array([5])):
        assert torch.equal(cache.at(place)["resid_pre", 1], cache["resid_pre", 1][:, 5:])


def test_generation(smalltown):
    expected = smalltown.generate("Once upon a time", max_new_tokens=12, seed=3)
    for seed in (np.int64(3), torch.tensor(3), [3], np.array([3])):
        assert torch.equal(smalltown.generate("Once upon a time", max_new_tokens=np.int32(12), seed=seed), expected)
    begun = len(smalltown.to_tokens("Once upon a time")[0])
    third = expected[0, begun + 2]
    cut = int((expected[0, begun:] == third).nonzero()[0]) + begun + 1
    piece = smalltown.to_str_tokens(third[None])[0][0]
    for stop in (piece, [piece], int(third), [int(third)], third, np.array([int(third)]), [" Paris", piece]):
        assert torch.equal(
            smalltown.generate("Once upon a time", max_new_tokens=12, seed=3, stop=stop), expected[:, :cut]
        )
    for stop, said in (
        (["Mary John"], "'Mary', ' John'"),
        ([10**5], "100000 is out of range"),
        ([True], "truth value"),
    ):
        with pytest.raises(TokenError, match=f"a row can stop only at a single token: .*{said}"):
            smalltown.generate("Once", stop=stop)
    with pytest.raises(TokenError, match="top_k must be a whole number, got the truth value True"):
        smalltown.generate("Once", top_k=True)


def test_half_a_surrogate_pair_is_named(smalltown):
    for use in (
        lambda text: smalltown.to_tokens(text),
        lambda text: smalltown.to_tokens(["Mary", text]),
        lambda text: smalltown.to_single_token(text),
        lambda text: analyses.logit_lens(smalltown, "Mary went", candidates=[text]),
        lambda text: smalltown.generate(text),
    ):
        with pytest.raises(TokenError, match="lone surrogate at character 1"):
            use("a\udc80")


@pytest.mark.parametrize(
    ("device", "said"),
    [("cuda:99", "'cuda:99' is not there"), ("gpu", "'gpu' is not there"), ("meta", "holds no weights")],
)
def test_devices_that_are_not_there(device, said, tmp_path):
    with pytest.raises(CheckpointError, match=f"{said}.*This machine has cpu"):
        interp.load(device=device)
