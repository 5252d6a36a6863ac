"""Heads taken out together: exact against hooks, and what smalltown's task needs."""

import json

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from scipy import stats

import analyses
import interp
from interp import PAD
from interp.errors import InterpError
from interp.zoo import task

HEADS = [(2, 0), (0, 1)]


@pytest.mark.parametrize("replacement", ["zero", "mean", "mean_by_position"])
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
                    z = cache["z", layer][:, :, head]
                    by_position = [z[real[:, at], at].mean(0) for at in range(value.shape[1])]
                    means = {
                        "zero": torch.zeros(8),
                        "mean": z[real].mean(0),
                        "mean_by_position": torch.stack(by_position),
                    }
                    value[:, :, head] = means[replacement]

        return hook

    for number, listed in enumerate(result["heads"].to_numpy().tolist()):
        heads = [tuple(map(int, name.split("."))) for name in listed.split()]
        for prompt in range(3):
            row = tokens[prompt][real[prompt]][None]
            with model.hooks({"blocks.*.attn.hook_z": take_out(heads)}):
                logits = model(row)[0, -1]
            found = result.isel(condition=number, prompt=prompt)
            assert found["logit_difference"].item() == pytest.approx(float(logits[3] - logits[4]), abs=1e-10)
            assert found["preferred"].item() == float(logits[3] > logits[4])
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
        ({"heads": []}, "at least one"),
        ({"heads": [(0, 0), (0, 0)]}, "each head once"),
        ({"heads": [(0, 2)]}, r"\(0, 0\) to \(2, 1\)"),
        ({"heads": [(0, 0)], "replacement": "noise"}, "unknown replacement 'noise'"),
        (
            {"heads": [(0, 0)], "replacement": "mean_by_position", "reference": torch.tensor([[1, 2]])},
            "longest reference prompt has 2 tokens, so there is no mean at position 2; use 'mean'",
        ),
        ({"heads": [(0, 0), (0, 1), (1, 0), (1, 1)]}, "10 controls of 4 heads from the 2 others"),
        ({"heads": [(0, 0)], "controls": -1}, "-1 controls"),
    ],
)
def test_requests_that_cannot_be(options, message):
    with pytest.raises(InterpError, match=message):
        analyses.ablate_heads(tiny(), random_tokens(1), answer=3, wrong=4, **options)


def by_place() -> tuple[interp.Transformer, torch.Tensor]:
    """One head that attends evenly to what it sees, and writes it into the logit of token 3, without norms; the stream holds the token's
    number (1, 2 or 4) and 10 for every position."""
    config = interp.ModelConfig(
        n_layers=1,
        d_model=2,
        n_heads=1,
        d_head=2,
        d_mlp=1,
        n_ctx=3,
        d_vocab=4,
        norm="none",
        mlp="none",
        bias=False,
        tied=False,
    )
    model = interp.Transformer(config).requires_grad_(False).double()
    for weight in model.parameters():
        weight.zero_()
    model.W_E.copy_(torch.tensor([[0.0, 0], [1, 0], [2, 0], [4, 0]]))
    model.W_pos.copy_(torch.tensor([[0.0, 0], [10, 0], [20, 0]]))
    attention = model.blocks[0].attn
    attention.qkv.weight[4] = torch.tensor([1.0, 0])
    attention.o.weight[1, 0] = 1.0
    model.unembedding[3] = torch.tensor([0.0, 1.0])
    return model, torch.tensor([[1, 1, 1], [2, 2, 2], [3, 3, 3]])


def test_what_the_two_means_are_over():
    """Of a prompt of one token, z at position p is the token's number and 5 p."""
    model, tokens = by_place()
    options = {"answer": 3, "wrong": 0, "heads": [(0, 0)], "controls": 0}
    found = {
        name: analyses.ablate_heads(model, tokens, replacement=name, **options)["logit_difference"].sel(
            condition="ablated"
        )
        for name in ("zero", "mean", "mean_by_position")
    }
    np.testing.assert_allclose(found["zero"], 0)
    # By position z is 0, 5 and 10 and the token's number, whose mean over prompts is 7/3; together 5 + 7/3.
    np.testing.assert_allclose(found["mean"], 5 + 7 / 3)
    np.testing.assert_allclose(found["mean_by_position"], 10 + 7 / 3)
    for name, mean in (("mean", 5 + 7 / 3), ("mean_by_position", 10 + 7 / 3), ("zero", 0.0)):
        direct = analyses.direct_logit_attribution(model, tokens, answer=3, wrong=0, ablation=name)
        np.testing.assert_allclose(direct["replaced_effect"][:, 0, 0], np.array([11, 12, 14]) - mean)
        np.testing.assert_allclose(direct["total_effect"], direct["replaced_effect"])
        assert json.loads(direct.attrs["parameters"])["ablation"] == name
        assert f"{name.replace('_', ' ')} ablation" in analyses.plot(direct).layout.title.text
        first = analyses.direct_logit_attribution(model, tokens, answer=3, wrong=0, ablation=name, position=0)
        at_first = {"mean": mean, "mean_by_position": 7 / 3, "zero": 0.0}[name]
        np.testing.assert_allclose(first["replaced_effect"][:, 0, 0], np.array([1, 2, 4]) - at_first)
        np.testing.assert_allclose(first["total_effect"], first["replaced_effect"])
    with pytest.raises(InterpError, match="unknown ablation 'means'. Did you mean 'mean'"):
        analyses.direct_logit_attribution(model, tokens, answer=3, wrong=0, ablation="means")
    importance = analyses.head_importance(model, tokens[:2], tokens[1:], answer=3, wrong=0)
    # The clean runs are 11 and 12, the corrupt ones 12 and 14, of means 8 (together, 5 + 3) and 13 (at the last position).
    lost = {
        "zero": [11 / -1, 12 / -2],
        "mean": [3 / -1, 4 / -2],
        "mean_by_position": [-2 / -1, -1 / -2],
        "resample": [1, 1],
    }
    assert importance["replacement"].to_numpy().tolist() == list(lost)
    for name, shares in lost.items():
        np.testing.assert_allclose(importance["importance"].sel(replacement=name)[:, 0, 0], shares)


@pytest.fixture(scope="module", params=[30, pytest.param(100, marks=pytest.mark.slow)])
def names(request):
    pairs = task("ioi").sample(request.param, seed=3)
    return {name: [getattr(pair, name) for pair in pairs] for name in ("clean", "corrupt", "answer", "wrong")}


def test_patching_finds_the_positions_and_the_heads(smalltown, names):
    """The answer moves from the giver's second mention to the last token, carried there by heads of the later layers."""
    stream = analyses.activation_patching(smalltown, **names)
    tokens, effect = stream["clean_token"].to_numpy(), stream["effect"].to_numpy()
    count = len(names["clean"])
    at_second, at_end = np.empty((2, count, 6))
    for pair in range(count):
        row = [token for token in tokens[pair].tolist() if token]
        second = len(row) - 1 - row[::-1].index(names["wrong"][pair])
        assert effect[pair, 0, second] == pytest.approx(1, abs=1e-4)
        at_second[pair], at_end[pair] = effect[pair, :, second], effect[pair, :, len(row) - 1]
        assert set(np.argsort(-np.nan_to_num(effect[pair, -1]))[:2]) == {second, len(row) - 1}
    assert (np.diff(at_second.mean(0)[3:]) < 0).all()
    assert (np.diff(at_end.mean(0)[3:]) > 0).all()
    assert at_end.mean(0)[-1] > 0.4
    heads = analyses.activation_patching(smalltown, **names, site="z", by_position=True)
    at_last = [heads["effect"][pair, ..., (tokens[pair] != "").sum() - 1].to_numpy() for pair in range(count)]
    together = analyses.activation_patching(smalltown, **names, site="z")["effect_mean"].to_numpy()
    best = np.unravel_index(together.argmax(), together.shape)
    assert together[best] > 0.2
    assert np.mean(at_last, axis=0)[best] > 0.9 * together[best]  # what the best head does, it does at the last token


@pytest.mark.parametrize("replacement", ["mean", "zero"])
def test_the_task_needs_the_heads_that_patching_finds_and_not_as_many_others(smalltown, names, replacement):
    moved = (
        1 - analyses.activation_patching(smalltown, **names, site="z", direction="noising")["effect_mean"].to_numpy()
    )
    order = np.argsort(-moved, axis=None)[:4]
    heads = list(zip(*(axis.tolist() for axis in np.unravel_index(order, moved.shape)), strict=True))
    answers = {"answer": names["answer"], "wrong": names["wrong"]}
    result = analyses.ablate_heads(
        smalltown, names["clean"], **answers, heads=heads, replacement=replacement, controls=20
    )
    intact, ablated, *controls = result["preferred_mean"].to_numpy()
    assert intact >= 0.98
    assert abs(ablated - 0.5) < 0.06  # a coin would do as well
    assert np.mean(controls) >= 0.9
    assert np.quantile(controls, 0.1) > ablated + 0.15
    assert min(controls) > ablated + 0.05
    intact, ablated, *controls = result["logit_difference_mean"].to_numpy()
    assert ablated < 0.1 * intact
    assert np.mean(controls) > 0.7 * intact
    upper = result["logit_difference_interval"].sel(bound="upper").to_numpy()
    lower = result["logit_difference_interval"].sel(bound="lower").to_numpy()
    assert (lower[2:] > upper[1]).all()
