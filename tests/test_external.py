"""The external verdict on processes of known ratio and source, and both verdicts together."""

from collections import Counter

import numpy as np
import pytest
from conftest import random_tokens, tiny
from verdicts import Cell, allowed, decided, kernel, outcome, quick, read, table, write

import analyses
from analyses.cascade import Nudge, coupled, driven, external_verdict, gain, internal_verdict, joined_verdict
from analyses.cascade.external import decide_outside
from interp.errors import ResultError

EXPERIMENTS = 30


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("source", [0.0, 0.08])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9, 1.0, 1.5])
def test_false_verdicts_are_rare(ratio, source, clustered):
    """At most one in twenty is allowed; 30 experiments of a verdict that is false so often show 6 or more in one of three hundred."""
    cell = Cell(ratio, source, "text", 32, clustered)
    found = outcome(cell, EXPERIMENTS, seeds=4, steps=64)
    assert found.false() <= 5 / EXPERIMENTS
    if ratio == 0:
        assert found.pile == 0
    if ratio in (0.5, 1.5) and source and not clustered:
        assert found.undetermined <= 0.25 * EXPERIMENTS
    assert found.covered >= 23


@pytest.mark.parametrize(
    "cell",
    [
        *(Cell(1.0, 0.02, law, 32, clustered=False) for law in ("poisson", "negative binomial", "pareto")),
        Cell(1.1, 0.08, "poisson", 32, clustered=False, course="turns"),
        Cell(float("nan"), 0.0, "text", 32, clustered=False, course="absorbed"),
        Cell(float("nan"), 0.0, "text", 12, clustered=False, course="loops"),
    ],
    ids=lambda cell: f"{cell.offspring}-{cell.course}",
)
def test_false_verdicts_are_rare_where_it_is_not_so_simple(cell):
    said = Counter(decided(cell, np.random.default_rng(number)).verdict for number in range(15))
    assert sum(count for verdict, count in said.items() if verdict not in allowed(cell)) <= 4, said


def test_the_beginning_that_goes_on_striking_is_no_pile():
    """Late damage is steady at 0.08, as of a pile; nothing of it comes of damage."""
    rng = np.random.default_rng(0)
    damage = (rng.random((100, 8, 128)) < 0.08).astype(float)
    found = decide_outside(damage, np.full(damage.shape, -np.log(0.92)), kernel())
    assert found.verdict == "piano string"
    assert found.r.ratio == pytest.approx(0, abs=0.05)
    assert found.damage_interval[0, 2] > 0.05


def test_verdicts_by_hand():
    few = decide_outside(np.ones((5, 4, 64)), np.zeros((5, 4, 64)), kernel())
    assert few.verdict == "undetermined"
    assert few.reason == "5 of the 6 prompts or clusters that a verdict needs at least"
    assert np.isnan(few.damage_interval).all()
    none = decide_outside(np.zeros((12, 4, 64)), np.zeros((12, 4, 64)), kernel())
    assert none.reason.startswith("no changed token is followed by others")
    looped = decide_outside(np.zeros((12, 4, 64)), np.zeros((12, 4, 64)), kernel(), looping=0.6)
    assert looped.reason == "60% of the texts repeat themselves"
    units = np.arange(12) // 4
    assert decide_outside(np.ones((12, 4, 64)), np.zeros((12, 4, 64)), kernel(), units).reason.startswith("3 of the 6")


def test_what_is_kept_of_the_grid(tmp_path):
    found = [outcome(Cell(0.5, 0.02, "text", 12, clustered=False), 3), outcome(next(iter(quick())), 2)]
    write(found, tmp_path / "v.csv")
    assert read(tmp_path / "v.csv") == found
    page = table(found).splitlines()
    assert page[0] == "| process | offspring | R | 12 prompts | 32 prompts |"
    assert len(page) == 4


@pytest.fixture(scope="module")
def results():
    model, prompts, options = tiny(), random_tokens(7, 4), {"seeds": 2, "steps": 20}
    inside = gain(model, prompts, n_directions=2)
    texts = coupled(model, prompts, Nudge(dose=0.5), **options)
    return inside, texts, driven(model, prompts, Nudge(dose=0.5), horizon=8, **options)


def test_the_result_says_what_was_decided(results):
    _, texts, measured = results
    verdict = external_verdict(measured)
    damage = texts["aligned_damage"].to_numpy()
    assert verdict["horizon"].to_numpy().tolist() == [5, 10, 20]
    np.testing.assert_allclose(verdict["late_damage"][2], damage[..., 10:].mean((1, 2)))
    np.testing.assert_allclose(verdict["late_damage_mean"], verdict["late_damage"].mean("prompt"))
    found = decide_outside(damage.astype(float), measured["source"].to_numpy(), measured["kernel"].to_numpy())
    assert (verdict["verdict"].item(), verdict["reason"].item()) == (found.verdict, found.reason)
    assert float(verdict["r"]) == pytest.approx(found.r.ratio)
    np.testing.assert_allclose(verdict["r_interval"], found.r.interval())
    assert int(verdict["clusters"]) == int(verdict["prompts"]) == 7
    figure = analyses.plot(verdict)
    np.testing.assert_allclose(figure.data[0].y, verdict["late_damage_mean"])
    np.testing.assert_allclose(
        np.array(figure.data[0].y) + figure.data[0].error_y.array, verdict["late_damage_interval"][1]
    )
    assert figure.data[-1].x[0] == float(verdict["r"])
    assert verdict["verdict"].item() in figure.layout.title.text
    with pytest.raises(ResultError, match="16 steps at least"):
        external_verdict(measured.isel(time=slice(0, 10)))
    with pytest.raises(ResultError, match="a result of analyses.cascade.driven"):
        external_verdict(texts)


def test_both_verdicts_together(results):
    inside, texts, measured = results
    internal, external = internal_verdict(inside), external_verdict(measured)
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
