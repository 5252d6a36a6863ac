"""Heads taken out together: exact against hooks, and what smalltown's task needs."""

import numpy as np
import pytest
from conftest import random_tokens, tiny
from scipy import stats

import analyses
from interp import PAD
from interp.errors import InterpError
from interp.zoo import task

HEADS = [(2, 0), (0, 1)]


@pytest.mark.parametrize("replacement", ["zero", "mean"])
def test_equals_whole_hooked_runs(replacement):
    model, tokens = tiny(), random_tokens(3, 6, seed=1)
    tokens[1, 4:] = PAD
    result = analyses.ablate_heads(model, tokens, answer=3, wrong=4, heads=HEADS, replacement=replacement, controls=2)
    assert result["heads"].to_numpy()[:2].tolist() == ["", "0.1 2.0"]
    _, cache = model.run_with_cache(tokens)
    real = tokens != PAD

    def take_out(heads):
        def hook(value, point):
            for layer, head in heads:
                if point.name.startswith(f"blocks.{layer}."):
                    mean = cache["z", layer][real][:, head].mean(0)
                    value[:, :, head] = 0 if replacement == "zero" else mean

        return hook

    for number, listed in enumerate(result["heads"].to_numpy().tolist()):
        heads = [tuple(map(int, name.split("."))) for name in listed.split()]
        for prompt in range(3):
            row = tokens[prompt][real[prompt]][None]
            with model.hooks({"blocks.*.attn.hook_z": take_out(heads)}):
                logits = model(row)[0, -1]
            found = result.isel(condition=number, prompt=prompt)
            assert found["logit_difference"].item() == pytest.approx(float(logits[3] - logits[4]), abs=1e-10)
            assert found["correct"].item() == float(logits.argmax() == 3)
    assert np.ptp(result["logit_difference"].to_numpy(), axis=0).min() > 0.01


def test_controls_are_other_heads_and_follow_the_seed(smalltown):
    prompts = {"answer": " Mary", "wrong": " John", "heads": [(4, 0), (4, 1)]}
    text = "When Mary and John went to the store, John gave a drink to"
    first, again, other = (analyses.ablate_heads(smalltown, text, **prompts, seed=seed) for seed in (0, 0, 1))
    assert first.sizes["condition"] == 12
    for listed in first["heads"].to_numpy()[2:].tolist():
        assert len(set(listed.split())) == 2
        assert not set(listed.split()) & {"4.0", "4.1"}
    assert first["heads"].to_numpy().tolist() == again["heads"].to_numpy().tolist()
    assert first["heads"].to_numpy().tolist() != other["heads"].to_numpy().tolist()
    assert "correct_mean" not in first  # one prompt has no spread


def test_the_mean_and_its_interval(smalltown):
    pairs = task("ioi").sample(12, seed=1)
    result = analyses.ablate_heads(
        smalltown, [p.clean for p in pairs], answer=[p.answer for p in pairs], wrong=[p.wrong for p in pairs], heads=[(4, 1)], controls=0
    )  # fmt: skip
    one = result["logit_difference"].sel(condition="ablated").to_numpy()
    assert result["logit_difference_mean"].sel(condition="ablated").item() == pytest.approx(one.mean())
    error = result["logit_difference_standard_error"].sel(condition="ablated").item()
    assert error == pytest.approx(stats.sem(one))
    low, high = result["logit_difference_interval"].sel(condition="ablated").to_numpy()
    assert one.mean() - 3 * error < low < one.mean() - error
    assert one.mean() + error < high < one.mean() + 3 * error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": []}, "name at least one"),
        ({"heads": [(0, 0), (0, 0)]}, "each once"),
        ({"heads": [(0, 2)]}, r"\(0, 0\) to \(2, 1\)"),
        ({"heads": [(0, 0)], "replacement": "noise"}, "unknown replacement 'noise'"),
        ({"heads": [(0, 0), (0, 1), (1, 0), (1, 1)]}, "10 controls of 4 heads from the 2 others"),
        ({"heads": [(0, 0)], "controls": -1}, "-1 controls"),
    ],
)
def test_requests_that_cannot_be(options, message):
    with pytest.raises(InterpError, match=message):
        analyses.ablate_heads(tiny(), random_tokens(1), answer=3, wrong=4, **options)
