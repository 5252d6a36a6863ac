"""Metrics against literals and independent implementations."""

import math
from decimal import Decimal, getcontext

import pytest
import torch
from scipy import stats

from interp import metrics


def test_literals():
    logits = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)  # probabilities 1/4 and 3/4
    log_p = metrics.log_probabilities(logits)
    torch.testing.assert_close(log_p.exp(), torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    assert float(metrics.entropy(log_p)) == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))
    even = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    assert float(metrics.kl_divergence(log_p, even)) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert float(metrics.logit_difference(logits, torch.tensor([1]), torch.tensor([0]))) == pytest.approx(math.log(3))


def test_rank_counts_strictly_higher_scores():
    logits = torch.tensor([[3.0, 1.0, 2.0, 2.0]]).expand(4, 4)
    assert metrics.rank(logits, torch.arange(4)).tolist() == [0, 3, 1, 1]


def test_against_scipy():
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    log_p = metrics.log_probabilities(logits)
    log_q = metrics.log_probabilities(logits.flip(0))
    torch.testing.assert_close(metrics.entropy(log_p), torch.tensor(stats.entropy(log_p.exp().numpy(), axis=1)))
    expected = stats.entropy(log_p.exp().numpy(), log_q.exp().numpy(), axis=1)
    torch.testing.assert_close(metrics.kl_divergence(log_p, log_q), torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-8, 1e-5, 1e-3, 0.0099, 0.0101, 0.3, 1.0, 30.0])
def test_a_small_divergence_is_not_rounding(size, dtype):
    """Against exact arithmetic of 60 digits on the very numbers that go in; the plain sum gives -8e-8 for some of these."""
    getcontext().prec = 60
    generator = torch.Generator().manual_seed(0)
    log_p = torch.randn(300, generator=generator, dtype=dtype).log_softmax(-1)
    log_q = (log_p.double() + size * torch.randn(300, generator=generator).double()).log_softmax(-1)
    pairs = [(Decimal(a), Decimal(b)) for a, b in zip(log_p.tolist(), log_q.tolist(), strict=True)]
    terms = [a.exp() * ((b - a).exp() - 1 - (b - a)) for a, b in pairs]
    found = metrics.kl_divergence(log_p.double(), log_q)
    assert float(found) == pytest.approx(float(sum(terms)), rel=1e-10)
    narrow = float(metrics.kl_divergence(log_p, log_q.to(dtype)))
    assert narrow >= 0
    assert narrow == pytest.approx(float(sum(terms)), rel=1e-4, abs=1e-12)


def test_divergence_where_tokens_cannot_come_and_its_slope():
    certain = torch.tensor([0.0, -torch.inf], dtype=torch.float64)
    even = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    assert float(metrics.kl_divergence(certain, even)) == pytest.approx(math.log(2))
    assert float(metrics.kl_divergence(even, certain)) == math.inf
    unlikely = torch.tensor([-740.0, 0.0], dtype=torch.float64)
    assert float(metrics.kl_divergence(unlikely, even)) == pytest.approx(math.log(2))
    assert metrics.kl_divergence(torch.full((2,), torch.nan), even.float()).isnan()
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    log_p = logits.detach().flip(0).log_softmax(-1)
    metrics.kl_divergence(log_p, metrics.log_probabilities(logits)).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(-1) - log_p.exp())  # q - p


def test_cross_entropy_is_entropy_and_divergence_with_its_slope():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    log_p = torch.randn(4, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    log_p = log_p.index_fill(-1, torch.tensor(3), -torch.inf).log_softmax(-1)
    log_q = metrics.log_probabilities(logits)
    found, kl = metrics.cross_entropy(log_p, log_q), metrics.kl_divergence(log_p, log_q)
    torch.testing.assert_close(found, metrics.entropy(log_p) + kl)
    slopes = [torch.autograd.grad(one.sum(), logits, retain_graph=True)[0] for one in (found, kl)]
    torch.testing.assert_close(*slopes)
    never = log_q.detach().index_fill(-1, torch.tensor(3), -torch.inf)
    assert metrics.cross_entropy(log_p, never).isfinite().all()


def test_divergences_are_the_same_however_many_are_taken_at_once(monkeypatch):
    log_p, log_q = (torch.randn(3, 4, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found = []
    for at_once in (1, 15, 2**17):
        monkeypatch.setattr(metrics, "AT_ONCE", at_once)
        kl = metrics.kl_divergence(log_p.log_softmax(-1), log_q.log_softmax(-1))
        found.append((kl, *torch.autograd.grad(kl.sum(), (log_p, log_q))))
    for one in found[1:]:
        for a, b in zip(one, found[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-15)
    assert metrics.kl_divergence(torch.zeros(0, 7), torch.zeros(0, 7)).shape == (0,)


def test_certainty_has_no_nan_and_half_precision_is_raised():
    log_p = metrics.log_probabilities(torch.tensor([[0.0, -torch.inf]], dtype=torch.bfloat16))
    assert log_p.dtype == torch.float32
    assert float(metrics.entropy(log_p)) == 0.0
    assert float(metrics.kl_divergence(log_p, log_p)) == 0.0
