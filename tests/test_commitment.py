"""Where the branch commits: the induction circuit's planted path, and patches made by hand."""

import json

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny

import analyses
import interp
from analyses.cascade import Nudge, Replace, Swap, Unrelated, commitment, random_twin
from analyses.cascade.agreement import disagreement
from analyses.cascade.commitment import ROLES
from analyses.cascade.coupled import couple
from interp.errors import InterpError, ResultError

A, B, C = 3, 7, 11


def test_the_induction_circuit_commits_where_the_token_was_swapped():
    """0 A B 5 9 A predicts B, with C for B it predicts C. Below both layers all of it stands where B does; no other place has any."""
    model = interp.load("circuit:induction", dtype=torch.float64)
    clean = torch.tensor([[0, A, B, 5, 9, A]])
    other = torch.tensor([[0, A, C, 5, 9, A]])
    result = commitment(model, clean, Replace(other), temperature=0.0, steps=1)
    places = result["places"].sel(measure="margin").to_numpy()
    expected = np.zeros((2, 4))
    expected[:, 0] = 1
    assert np.isnan(places[:, :2]).all()
    np.testing.assert_allclose(places[:, 2:], expected, atol=1e-9)
    np.testing.assert_allclose(result["places"].sel(measure="h")[:, 2:], expected, atol=1e-9)
    assert (result["branch"].item(), result["other_branch"].item()) == (f"#{B}", f"#{C}")
    np.testing.assert_allclose(result["restored"].sel(role="changed"), 1, atol=1e-9)
    np.testing.assert_allclose(result["restored"].sel(role="rest of the prompt"), 0, atol=1e-9)
    np.testing.assert_allclose(result["random"], 0.25, atol=1e-9)
    np.testing.assert_allclose(result["best"], 1, atol=1e-9)
    np.testing.assert_allclose(result["spread"], 1, atol=1e-9)


def test_shares_are_those_of_whole_runs():
    model, prompts = tiny(), random_tokens(3, 6)
    result = commitment(model, prompts, Unrelated(), seeds=3, steps=8)
    run = couple(model, prompts, Unrelated(), seeds=3, steps=8)
    at = json.loads(result.attrs["parameters"])["shown"]
    step = int(run.damage[at["prompt"], at["seed"]].argmax())
    tokens = run.tokens[:, at["prompt"], at["seed"]]
    clean, other = (
        torch.cat([rows[at["prompt"]], torch.from_numpy(tokens[0, :step])]) for rows in (run.clean, run.other)
    )
    assert (tokens[0, :step] == tokens[1, :step]).all()
    one, two = int(tokens[0, step]), int(tokens[1, step])
    _, cache = model.run_with_cache(clean[None], names=["blocks.*.hook_resid_pre"])
    logits, undone = model(clean[None])[0, -1], model(other[None])[0, -1]
    base = disagreement(logits.log_softmax(-1), undone.log_softmax(-1))
    for layer, position in ((0, 2), (1, 4), (2, len(clean) - 1)):

        def put(value, hook, layer=layer, position=position):
            value = value.clone()
            value[:, position] = cache[f"blocks.{layer}.hook_resid_pre"][:, position]
            return value

        with model.hooks({f"blocks.{layer}.hook_resid_pre": put}):
            patched = model(other[None])[0, -1]
        margins = [float(row[one] - row[two]) for row in (logits, undone, patched)]
        share = (margins[2] - margins[1]) / (margins[0] - margins[1])
        assert float(result["places"].sel(measure="margin")[layer, position]) == pytest.approx(share, abs=1e-6)
        left = float(disagreement(logits.log_softmax(-1), patched.log_softmax(-1)) / base)
        assert float(result["places"].sel(measure="h")[layer, position]) == pytest.approx(1 - left, abs=1e-6)


def test_roles_intervals_the_twin_and_the_figure():
    model, prompts = tiny(), random_tokens(6, 6)
    result = commitment(model, prompts, Unrelated(), seeds=4, steps=8)
    assert result["role"].to_numpy().tolist() == list(ROLES)
    np.testing.assert_allclose(
        result["restored"].sel(role="changed", layer=0, measure="margin").mean(),
        result["restored_mean"].sel(role="changed", layer=0, measure="margin"),
    )
    low, high = result["random_interval"].sel(measure="h").to_numpy()
    mean = result["random_mean"].sel(measure="h").to_numpy()
    assert ((low <= mean) & (mean <= high)).all()
    np.testing.assert_allclose(result["excess"], result["restored"] - result["random"])
    null = commitment(random_twin(model), prompts, Unrelated(), seeds=4, steps=8)
    for measure in ("margin", "h"):
        figure = analyses.plot(result, null=null, measure=measure)
        np.testing.assert_array_equal(figure.data[0].z, result["places"].sel(measure=measure))
        assert "a random place, random weights" in {trace.name for trace in figure.data}
    with pytest.raises(ResultError, match="there is no measure 'x'"):
        analyses.plot(result, measure="x")


@pytest.mark.parametrize(
    ("disturbance", "said"),
    [
        (Nudge(), "a nudge leaves all tokens as they are"),
        (Replace(torch.tensor([[1, 2, 3], [4, 5, 6]])), "prompt 0 has 4 tokens and the disturbed one 3"),
    ],
)
def test_requests_that_cannot_be(disturbance, said):
    with pytest.raises(InterpError, match=said):
        commitment(tiny(), random_tokens(2, 4), disturbance, steps=4)


def test_texts_that_do_not_part():
    model = interp.load("circuit:previous-token", dtype=torch.float64)
    with pytest.raises(ResultError, match="no two texts part"):
        commitment(model, torch.tensor([[1, 2, 3]]), Swap(0, 5), temperature=0.0, steps=1)
