"""Driven or self-sustained: R and the driven share of simulated processes, and of a chain whose answer is known."""

import numpy as np
import pytest
import torch
from conftest import random_tokens, tiny
from markov import TRANSITION, chain
from scipy import stats
from verdicts import Cell, kernel, spreading

import analyses
from analyses.cascade import Replace, Swap, driven, external_verdict, random_twin
from analyses.cascade.coupled import couple
from analyses.cascade.driven import describe_driven, driven_share, looping, survivors
from analyses.cascade.feedback import feedback, influenced
from analyses.cascade.survival import forced
from analyses.clusters import by_unit, units_of
from interp.errors import InterpError, ResultError

EXPERIMENTS = 100


@pytest.mark.parametrize("offspring", ["text", "poisson", "negative binomial"])
@pytest.mark.parametrize(("ratio", "source"), [(0.0, 0.08), (0.5, 0.02), (1.0, 0.08), (1.1, 0.0)])
def test_the_interval_covers_a_known_ratio(offspring, ratio, source):
    """95 % in the long run; fewer than 87 of 100 would come once in a thousand times."""
    rng, cell = np.random.default_rng(0), Cell(ratio, source, offspring, 12, clustered=False)
    covered, found = 0, []
    for _ in range(EXPERIMENTS):
        damage, hazard = spreading(cell, rng, seeds=4, steps=64)
        one = feedback(damage, hazard, kernel(), np.arange(12), counts=offspring != "text")
        low, high = one.interval()
        covered += low <= ratio <= high
        found.append(one.ratio)
    assert covered >= 87
    assert np.median(found) == pytest.approx(ratio, abs=0.1)


def test_numbers_of_units():
    assert units_of(None, 3).tolist() == [0, 1, 2]
    assert units_of(["b", None, "a", "b", None], 5).tolist() == [0, 1, 2, 0, 3]


@pytest.mark.parametrize("clustered", [False, True])
def test_clusters_are_the_units(clustered):
    """Prompts that are copies of one another say no more than one of them: intervals by cluster know, those by prompt do not."""
    rng, cell = np.random.default_rng(1), Cell(0.8, 0.02, "poisson", 12, clustered=False)
    covered = 0
    for _ in range(EXPERIMENTS):
        damage, hazard = (np.repeat(values, 4, axis=0) for values in spreading(cell, rng, seeds=2, steps=32))
        units = units_of(np.repeat(np.arange(12), 4).tolist() if clustered else None, 48)
        low, high = feedback(damage, hazard, kernel(), units, counts=True).interval()
        covered += low <= 0.8 <= high
    assert (covered >= 87) == clustered


def test_ratio_by_hand():
    """One token changed at once begets one in the next step with everything it has: of two runs in one, and all that is left is R."""
    damage = np.array([[[1.0, 1, 0, 0], [1, 0, 0, 0]]])
    source = np.array([[[1.0, 0, 0, 0], [1, 0, 0, 0]]])
    x = influenced(damage, np.array([1.0]))
    assert x.tolist() == [[[0, 1, 1, 0], [0, 1, 0, 0]]]
    assert feedback(damage, source, np.array([1.0]), np.arange(1), counts=True).ratio == pytest.approx(1 / 3)
    text = feedback(damage, source, np.array([1.0]), np.arange(1))
    assert 1 - np.exp(-text.ratio) == pytest.approx(1 / 3)  # 1 of 3 followers is changed
    late = feedback(damage, source, np.array([1.0]), np.arange(1), counts=True, since=2)
    assert late.ratio == 0
    nothing = feedback(np.zeros((6, 1, 4)), source[:, :1].repeat(6, 0), np.array([1.0]), np.arange(6))
    assert np.isnan(nothing.ratio)
    assert np.isnan(nothing.interval()).all()
    always = feedback(np.ones((6, 1, 4)), np.zeros((6, 1, 4)), np.array([1.0]), np.arange(6))
    assert always.ratio == np.inf
    assert np.isnan(always.interval()).all()


def test_the_driven_share_of_labelled_damage():
    """In a process whose immigrants are counted apart from what they beget, the share is theirs."""
    rng = np.random.default_rng(0)
    struck, begot = 0.0, 0.0
    damage = np.zeros((400, 8, 64))
    source = np.full(damage.shape, 0.05)
    w = kernel()
    for time in range(64):
        lags = np.arange(1, min(time, len(w)) + 1)
        own = rng.poisson(source[..., time])
        others = rng.poisson(0.7 * (damage[..., time - lags] * w[lags - 1]).sum(-1))
        damage[..., time] = own + others
        if time >= 32:
            struck, begot = struck + own.sum(), begot + others.sum()
    share, (low, high) = driven_share(damage, source, np.arange(400))
    assert share == pytest.approx(struck / (struck + begot), rel=0.05)
    assert low < struck / (struck + begot) < high
    assert np.isnan(driven_share(damage * 0, source, np.arange(400))[0])


def test_the_interval_of_the_driven_share_stays_above_nothing():
    """One prompt of six has all that the beginning does: Student's interval alone begins at -0.26."""
    damage, source = np.ones((6, 1, 4)), np.zeros((6, 1, 4))
    source[0] = 1.0
    share, (low, high) = driven_share(damage, source, np.arange(6))
    assert share == pytest.approx(1 / 6)
    assert low == 0
    assert high == pytest.approx(1 / 6 + stats.t.ppf(0.975, 5) / 6)
    assert np.isnan(driven_share(damage[:5], source[:5], np.arange(5))[1]).all()


def test_survivors_and_loops_by_hand():
    damage = np.zeros((2, 2, 8))
    damage[0, 0, :6] = 1
    damage[0, 1, 7] = 1
    alive, left = survivors(damage)
    assert alive.tolist() == [0.5, 0]
    assert left == 0.5
    assert np.isnan(survivors(damage * 0)[1])
    rng = np.random.default_rng(0)
    free = rng.integers(0, 999, (2, 1, 1, 64))
    assert not looping(free).any()
    free[1, 0, 0, 32:] = np.tile([1, 2, 3], 11)[:32]
    assert looping(free).all()


def test_a_chain_of_order_one_begets_by_its_token_alone():
    """k(1) only; the beginning acts on the first token and on none after, since teacher forcing gives both the same last token."""
    model = chain(TRANSITION)
    prompts = torch.arange(4).repeat(6)[:, None]
    result = driven(model, prompts, Replace((prompts + 1) % 4), seeds=8, steps=24, horizon=4, seed=3)
    np.testing.assert_allclose(result["kernel"], [1, 0, 0, 0], atol=1e-9)
    assert (result["source"][..., 1:] < 1e-9).all()
    # Of what is not driven, a changed token changes the next with 1 - exp(-R) in the mean, which is how often changes are followed.
    run = couple(model, prompts, Replace((prompts + 1) % 4), seeds=8, steps=24, seed=3)
    damage = run.alignment[0]
    followed = damage[..., 1:][damage[..., :-1] > 0].mean()
    assert 1 - np.exp(-float(result["r"])) == pytest.approx(followed, abs=1e-9)
    low, high = result["r_interval"].to_numpy()
    assert low < float(result["r"]) < high


def test_the_result_its_clusters_and_its_figure():
    model, prompts = tiny(), random_tokens(6, 4)
    options = {"seeds": 2, "steps": 20, "horizon": 8, "sources": 4}
    result = driven(model, prompts, **options, clusters=list("aabbcc"))
    run = couple(model, prompts, Swap(), seeds=2, steps=20)
    h = forced(model, run, 2**28)[1]
    np.testing.assert_allclose(result["h_forced"], h, atol=1e-9)
    np.testing.assert_allclose(result["source"], -np.log1p(-h), atol=1e-9)
    np.testing.assert_array_equal(result["damage"], run.alignment[0])
    assert result["cluster"].to_numpy().tolist() == [0, 0, 1, 1, 2, 2]
    assert float(result["kernel"].sum()) == pytest.approx(1)
    assert np.isnan(result["r_interval"]).all()  # three clusters
    uneven = driven(model, prompts, **options, clusters=list("aaaabc"))
    shares = uneven["survival_share"].to_numpy()
    expected = np.mean([shares[:4].mean(), *shares[4:]])  # each cluster once, as its interval has them
    assert float(uneven["survival_share_mean"]) == pytest.approx(expected)
    late = external_verdict(uneven)
    each = late["late_damage"].to_numpy()
    np.testing.assert_allclose(late["late_damage_mean"], (each[:, :4].mean(1) + each[:, 4:].sum(1)) / 3)
    alone = driven(model, prompts, **options)
    assert np.isfinite(alone["r_interval"]).all()
    assert float(alone["r"]) == float(result["r"])
    np.testing.assert_allclose(by_unit(np.arange(6.0), np.array([0, 0, 1, 1, 2, 2])), [0.5, 2.5, 4.5])
    null = driven(random_twin(model), prompts, **options)
    figure = analyses.plot(alone, null=null)
    lines = {trace.name: trace for trace in figure.data if trace.mode == "lines" and trace.name != "band"}
    np.testing.assert_allclose(lines["both texts on their own"].y, alone["damage"].mean(("prompt", "seed")))
    np.testing.assert_allclose(lines["the beginning alone"].y, h.mean((0, 1)), atol=1e-9)
    np.testing.assert_allclose(lines["on their own, random weights"].y, null["damage"].mean(("prompt", "seed")))
    with pytest.raises(ResultError, match="of the same model"):
        describe_driven(model, run, null)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.0}, "must be positive"),
        ({"clusters": [1]}, "one for each of the 2 prompts, got 1"),
        ({"clusters": "ab"}, "one for each"),
    ],
)
def test_requests_that_cannot_be(options, said):
    with pytest.raises(InterpError, match=said):
        driven(tiny(), random_tokens(2, 4), seeds=1, steps=4, horizon=2, **options)
