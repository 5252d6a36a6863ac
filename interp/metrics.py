"""Numbers that say what logits predict. Computed in at least float32; distributions are natural-log, so units are nats.

Of logits that are no numbers nothing can be said: what is computed from NaN is NaN.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

AT_ONCE = 2**17
"""Numbers of each distribution that a divergence takes at once: its many steps then stay in a core's cache."""

FEW = 2**20
"""Numbers of distributions that a chain of steps is done on at once: what each step makes stays in the caches."""

NEAR = 1e-2
"""Difference of two logarithms below which e^d - 1 - d is summed as a series: subtracting loses its digits."""


def log_probabilities(logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
    """Log-softmax over the vocabulary."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype).log_softmax(-1)


def entropy(log_p: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Shannon entropy of each distribution, nats."""
    return -_weighted(log_p, log_p)


def cross_entropy(log_p: Float[Tensor, "*rows vocab"], log_q: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """H(P, Q) of each pair of distributions, nats: the entropy of P and KL(P || Q), whose gradient in Q it has at a third of the work."""
    return -_weighted(log_p, log_q)


def kl_divergence(log_p: Float[Tensor, "*rows vocab"], log_q: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """KL(P || Q) of each pair of distributions, nats.

    As sum p (e^d - 1 - d) with d = ln q - ln p, which is the same since both sum to 1, has no negative terms, and keeps a KL far below
    the precision of the numbers: errors of d count in second order only.
    """
    few = max(1, AT_ONCE // log_p.shape[-1])
    pairs = zip(*(torch.split(each.reshape(-1, each.shape[-1]), few) for each in (log_p, log_q)), strict=True)
    return torch.cat([_kl(p, q) for p, q in pairs]).reshape(log_p.shape[:-1])


def _kl(log_p: Float[Tensor, "row vocab"], log_q: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    p, q = log_p.exp(), log_q.exp()
    apart = (log_q - log_p).masked_fill(p == 0, 0.0)
    near = (apart.abs() < NEAR) & (p != 0)
    small = apart.where(near, 0.0)
    series = 1 + small / 3 * (1 + small / 4 * (1 + small / 5 * (1 + small / 6)))
    growth = torch.where((apart < 1) & (p != 0), p * apart.clamp(max=1.0).expm1(), q - p)
    return torch.where(near, p * small**2 / 2 * series, growth - p * apart).sum(-1)


def few_rows(rows: int, vocab: int) -> list[slice]:
    """Rows of distributions, few at once: a chain of steps on all of them would write and read back each step's numbers."""
    few = max(1, FEW // vocab)
    return [slice(start, min(start + few, rows)) for start in range(0, rows, few)]


def logit_difference(
    logits: Float[Tensor, "*rows vocab"], answer: Int[Tensor, "*rows"], wrong: Int[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """Logit of the answer minus logit of the wrong answer."""
    return pick(logits, answer) - pick(logits, wrong)


def pick(values: Float[Tensor, "*rows vocab"], token: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """Each row's value at its token."""
    return values.gather(-1, token[..., None])[..., 0]


def rank(logits: Float[Tensor, "*rows vocab"], token: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """How many tokens score strictly higher than the given one: 0 is the top prediction. NaN where a score is NaN or plus infinity."""
    higher = (logits > pick(logits, token)[..., None]).sum(-1)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return higher.to(dtype).masked_fill(~(logits < torch.inf).all(-1), torch.nan)


def scaled(logits: Float[Tensor, "*rows vocab"], temperature: float) -> Float[Tensor, "*rows vocab"]:
    """Logits less the largest, over a temperature, in double precision: their softmax is that of logits / temperature, which overflows
    where the temperature is small."""
    exact = logits.double()
    return (exact - exact.amax(-1, keepdim=True)) / temperature


def _weighted(log_p: Float[Tensor, "*rows vocab"], values: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Sum of p times value; a token that cannot come counts nothing, whatever its value."""
    p = log_p.exp()
    return (p * values.masked_fill(p == 0, 0.0)).sum(-1)
