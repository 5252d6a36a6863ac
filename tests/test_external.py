"""The external verdict on branching processes of known ratio, and both verdicts together."""

from collections import Counter

import numpy as np
import pytest
from verdicts import branching, truth

import analyses
from analyses.cascade import Nudge, coupled, external_verdict, gain, internal_verdict, joined_verdict
from analyses.cascade.external import EPSILON, decide_outside
from interp.errors import ResultError

EXPERIMENTS = 40


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("ratio", [0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.5])
def test_false_verdicts_are_rare(ratio, bounded):
    """At most one in twenty is allowed; 40 experiments of a verdict that is false so often show 7 or more in one of two hundred."""
    for prompts in (20, 200):
        rng = np.random.default_rng(prompts)
        said = Counter(
            decide_outside(branching(ratio, prompts, rng, bounded=bounded)).verdict for _ in range(EXPERIMENTS)
        )
        false = EXPERIMENTS - said[truth(ratio)] - said["undetermined"]
        assert false <= 6, said
        if prompts == 200 and ratio not in (0.95, 1.0, 1.05):
            assert said[truth(ratio)] >= 0.9 * EXPERIMENTS, said


def test_a_critical_process_is_not_guessed_at():
    """200 prompts cannot tell a ratio of 1; very many can."""
    rng = np.random.default_rng(0)
    assert decide_outside(branching(1.0, 200, rng, bounded=False)).verdict == "undetermined"
    assert decide_outside(branching(1.0, 60_000, rng, bounded=False, seeds=8, steps=32)).verdict == "near-critical"


def test_verdicts_by_hand():
    gone = np.zeros((200, 4, 64))
    gone[:, :, :4] = 1
    assert decide_outside(gone).verdict == "piano string"
    stays = np.zeros((200, 4, 64))
    stays[:, :2] = 1  # half of the runs go on for ever
    found = decide_outside(stays)
    assert found.verdict == "pile"
    assert found.late.tolist() == [0.5, 0.5, 0.5]
    assert found.lengths == [16, 32, 64]
    assert found.slope == pytest.approx(0, abs=0.01)
    fades = np.random.default_rng(0).random((200, 4, 64)) < 1 / (1 + np.arange(64))  # no faster than a critical process
    assert decide_outside(fades.astype(float)).verdict == "undetermined"
    few = decide_outside(stays[:5])
    assert few.verdict == "undetermined"
    assert np.isnan(few.late_interval).all()


def test_no_damage_in_few_prompts_is_no_proof():
    """None of 10 prompts shows any late damage: up to 31 % of prompts might."""
    gone = np.zeros((10, 4, 64))
    gone[:, :, :6] = 1
    found = decide_outside(gone)
    assert found.late_interval[1, 2] > EPSILON
    assert found.verdict == "undetermined"


@pytest.fixture(scope="module")
def results(smalltown):
    prompts = [
        "Once upon a time",
        "Mary and John went to",
        "The dogs near the",
        "Then she gave a",
        "He was",
        "They saw a duck",
        "Rose",
    ]
    inside = gain(smalltown, prompts, n_directions=2)
    return inside, coupled(smalltown, prompts, Nudge(dose=0.5), seeds=2, steps=20)


def test_the_result_says_what_was_decided(results):
    _, texts = results
    verdict = external_verdict(texts)
    damage = texts["aligned_damage"].to_numpy()
    assert verdict["horizon"].to_numpy().tolist() == [5, 10, 20]
    np.testing.assert_allclose(verdict["late_damage"][2], damage[..., 10:].mean((1, 2)))
    np.testing.assert_allclose(verdict["late_damage_mean"], verdict["late_damage"].mean("prompt"))
    assert verdict["verdict"].item() == decide_outside(damage.astype(float)).verdict
    figure = analyses.plot(verdict)
    np.testing.assert_allclose(figure.data[0].y, verdict["late_damage_mean"])
    np.testing.assert_allclose(
        np.array(figure.data[0].y) + figure.data[0].error_y.array, verdict["late_damage_interval"][1]
    )
    assert verdict["verdict"].item() in figure.layout.title.text
    with pytest.raises(ResultError, match="16 steps at least"):
        external_verdict(texts.isel(time=slice(0, 10)))


def test_both_verdicts_together(results):
    inside, texts = results
    internal, external = internal_verdict(inside), external_verdict(texts)
    joined = joined_verdict(internal, external, gain=inside, coupled=texts)
    assert joined["inside"].item() == internal["verdict"].item()
    assert joined["outside"].item() == external["verdict"].item()
    for one, other, agree in (
        ("pile", "pile", True),
        ("pile", "undetermined", False),
        ("undetermined", "undetermined", False),
    ):
        both = joined_verdict(internal.assign(verdict=((), one)), external.assign(verdict=((), other)))
        assert bool(both["agree"]) == agree
    x, y = inside["log_relative_gain"][:, -1].to_numpy(), texts["h"].mean(("seed", "time")).to_numpy()
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    assert float(joined["rank_correlation"]) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    figure = analyses.plot(joined)
    np.testing.assert_allclose(figure.data[0].x, x)
    np.testing.assert_allclose(figure.data[0].y, y)
    bare = joined_verdict(internal, external)
    assert "mean_h" not in bare
    assert len(analyses.plot(bare).data) == 0
    with pytest.raises(ResultError, match="different prompts"):
        joined_verdict(internal, external, gain=inside, coupled=texts.assign_attrs(prompts='{"clean": ["x"]}'))
    with pytest.raises(ResultError, match="different weights"):
        joined_verdict(internal.assign_attrs(weight_hash="x"), external)
    with pytest.raises(ResultError, match="expected a result of kind external_verdict"):
        joined_verdict(internal, internal)
