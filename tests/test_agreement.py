"""How often coupled draws agree: exactly, by the formula of V^2 terms, and counted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from markov import TRANSITION, both
from scipy.optimize import brentq

from analyses.cascade.agreement import disagreement, divergence, stays, total_variation
from analyses.cascade.alignment import align
from analyses.cascade.external import decide_outside


def slowly(p: torch.Tensor, q: torch.Tensor) -> float:
    return 1 - sum(float(1 / torch.maximum(p / p[k], q / q[k]).sum()) for k in range(len(p)))


@given(st.integers(0, 10_000), st.integers(2, 40), st.sampled_from([1e-3, 0.1, 1.0, 10.0]))
def test_sorting_equals_the_double_sum(seed, size, spread):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, size, generator=generator, dtype=torch.float64) * 2
    log_p, log_q = a.log_softmax(-1), (a + spread * b).log_softmax(-1)
    h, tv = float(disagreement(log_p, log_q)), float(total_variation(log_p, log_q))
    assert h == pytest.approx(slowly(log_p.exp(), log_q.exp()), abs=1e-12)
    assert tv - 1e-12 <= h <= 2 * tv / (1 + tv) + 1e-12
    kept = torch.stack([stays(log_p, log_q, torch.tensor(k)) for k in range(size)])
    assert float((log_p.exp() * kept).sum()) == pytest.approx(1 - h, abs=1e-12)


def test_equals_what_is_counted():
    p, q = (torch.tensor(row) for row in (TRANSITION[0], TRANSITION[2]))
    generator = torch.Generator().manual_seed(0)
    noise = -torch.empty(400_000, 4, dtype=torch.float64).exponential_(generator=generator).log()
    drawn_p, drawn_q = ((row.log() + noise).argmax(-1) for row in (p, q))
    h = float(disagreement(p.log(), q.log()))
    assert float((drawn_p != drawn_q).double().mean()) == pytest.approx(h, abs=4 * (h * (1 - h) / 400_000) ** 0.5)
    joint = both(TRANSITION[0], TRANSITION[2])
    counted = np.histogram2d(drawn_p, drawn_q, bins=4)[0] / 400_000
    np.testing.assert_allclose(joint, counted, atol=0.004)
    assert joint.sum() == pytest.approx(1)


def test_small_disagreement_keeps_its_digits():
    a = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    b = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, ten = (float(disagreement(a.log_softmax(-1), (a + size * b).log_softmax(-1))) for size in (1e-9, 1e-8))
    assert ten / one == pytest.approx(10, rel=1e-4)


def test_tokens_that_cannot_come():
    log = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]], dtype=torch.float64).log()
    # In both tokens 1 has the only shared chance: it is drawn by both where its clock is first of the three.
    assert float(disagreement(log[0], log[1])) == pytest.approx(2 / 3)
    assert float(disagreement(log[0], log[0])) == 0
    apart = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).log()
    assert float(disagreement(apart[0], apart[1])) == 1
    assert float(divergence(apart[0], apart[1])) == float("inf")


def test_inverse_transform_sampling_agrees_less():
    """Why the noise is Gumbel's: two orders of nearly equal probabilities, which one uniform number would tear apart."""
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(200, dtype=torch.float64, generator=generator)
    q = p * torch.exp(0.4 * torch.randn(200, dtype=torch.float64, generator=generator))
    p, q = p / p.sum(), q / q.sum()
    uniform = torch.rand(20_000, dtype=torch.float64, generator=generator)
    torn = (torch.searchsorted(p.cumsum(0), uniform) == torch.searchsorted(q.cumsum(0), uniform)).double().mean()
    gumbel, best = 1 - float(disagreement(p.log(), q.log())), 1 - float(total_variation(p.log(), q.log()))
    assert float(torn) < gumbel - 0.2
    assert gumbel < best


def test_three_couplings_of_one_pair():
    """Inverse transform 0.58, Gumbel 0.81, maximal 0.855 at TV = 0.145: normal logits of 32 tokens, shaken until they are so far apart."""
    generator = torch.Generator().manual_seed(1)
    logits, shaken = torch.randn(2, 32, dtype=torch.float64, generator=generator)

    def pair(size: float) -> tuple[torch.Tensor, torch.Tensor]:
        return logits.log_softmax(-1), (logits + size * shaken).log_softmax(-1)

    size = brentq(lambda size: float(total_variation(*pair(size))) - 0.145, 1e-3, 3)
    log_p, log_q = pair(size)
    ends = torch.stack([log_p.exp().cumsum(0), log_q.exp().cumsum(0)])
    starts = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    inverse = float((ends.min(0).values - starts.max(0).values).clamp(min=0).sum())
    gumbel, maximal = 1 - float(disagreement(log_p, log_q)), 1 - float(total_variation(log_p, log_q))
    assert (round(inverse, 2), round(gumbel, 2), round(maximal, 3)) == (0.58, 0.81, 0.855)
    noise = -torch.empty(200_000, 32, dtype=torch.float64).exponential_(generator=generator).log()
    met = ((log_p + noise).argmax(-1) == (log_q + noise).argmax(-1)).double().mean()
    assert float(met) == pytest.approx(gumbel, abs=4 * (gumbel * (1 - gumbel) / 200_000) ** 0.5)


def test_divergence_and_total_variation_by_hand():
    p, q = torch.tensor([0.5, 0.5]).double().log(), torch.tensor([0.25, 0.75]).double().log()
    assert float(total_variation(p, q)) == pytest.approx(0.25)
    assert float(divergence(p, q)) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))


def test_alignments_by_hand():
    clean = np.array([[1, 2, 3, 4, 5, 6]])
    for other, steps, edits in (
        ([1, 2, 3, 4, 5, 6], [], 0),
        ([1, 2, 9, 4, 5, 6], [2], 1),
        ([1, 9, 2, 3, 4, 5, 6], [1], 1),  # put in, and seen to go on as before
        ([1, 9, 2, 3, 4, 5], [1], 1),  # put in; where the last token has gone is not known
        ([1, 9, 8, 2, 3, 4, 5, 6, 7], [1, 2], 2),
        ([9, 1, 2, 3, 4, 5], [0], 1),
        ([1, 4, 5, 6, 7, 7], [1, 2], 2),  # left out
        ([1, 4, 9, 9, 5, 6, 7, 7], [1, 2, 3], 3),  # three others are cheaper than two left out and two put in
        ([7, 8, 7, 8, 7, 8, 7, 8], [0, 1, 2, 3, 4, 5], 6),
    ):
        damage, distance = align(clean, np.array([other]))
        assert np.flatnonzero(damage[0]).tolist() == steps, other
        assert distance.tolist() == [edits]


@given(
    st.integers(0, 3).flatmap(
        lambda more: st.lists(
            st.tuples(
                st.lists(st.integers(0, 3), min_size=7, max_size=7),
                st.lists(st.integers(0, 3), min_size=7 + more, max_size=7 + more),
            ),
            min_size=1,
            max_size=70,
        )
    )
)
def test_alignment_is_a_cheapest_one(pairs):
    clean, other = (np.array(side) for side in zip(*pairs, strict=True))
    damage, distance = align(clean, other)
    for row in range(len(clean)):
        a, b = clean[row].tolist(), other[row].tolist()
        ends = [levenshtein(a, b[:to]) for to in range(len(b) + 1)] + [
            levenshtein(a[:at], b) for at in range(len(a) + 1)
        ]
        assert distance[row] == min(ends)
        assert damage[row].sum() <= distance[row]
        if distance[row] == 0:
            assert not damage[row].any()


@pytest.mark.parametrize("more", [0, 16])
def test_one_insertion_is_no_pile(more):
    """Four tokens are put in at the beginning and nothing else happens: it has died away, however long the text."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 50, (800, 128))
    at = rng.integers(0, 8, 800)
    rest = rng.integers(0, 50, (800, more))
    other = np.stack([
        np.concatenate([text[:place], rng.integers(50, 99, 4), text[place:], after])[: 128 + more]
        for text, after, place in zip(clean, rest, at, strict=True)
    ])  # fmt: skip
    damage, distance = align(clean, other)
    assert (distance == 4).all()
    for row in range(800):
        assert np.flatnonzero(damage[row]).tolist() == list(range(at[row], at[row] + 4))
    struck = np.zeros((200, 4, 128))
    struck[..., :8] = 1 / 8
    found = decide_outside(damage.reshape(200, 4, 128).astype(float), struck, np.full(8, 1 / 8))
    assert found.damage.tolist() == [0, 0, 0]
    assert found.verdict == "piano string"


def levenshtein(a, b) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, before = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]
