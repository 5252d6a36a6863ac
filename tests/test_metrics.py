"""Metrics against literals and independent implementations."""

import math

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


def test_certainty_has_no_nan_and_half_precision_is_raised():
    log_p = metrics.log_probabilities(torch.tensor([[0.0, -torch.inf]], dtype=torch.bfloat16))
    assert log_p.dtype == torch.float32
    assert float(metrics.entropy(log_p)) == 0.0
    assert float(metrics.kl_divergence(log_p, log_p)) == 0.0
