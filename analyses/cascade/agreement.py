"""How often two next-token distributions draw the same token from the same noise."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.metrics import few_rows, kl_divergence


def disagreement(log_p: Float[Tensor, "*rows vocab"], log_q: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """h, the probability that argmax(log p + g) and argmax(log q + g) differ, exactly, for one draw g of Gumbel noise.

    h = 1 - sum_k 1 / sum_j max(p_j/p_k, q_j/q_k), at most 2 TV / (1 + TV) (Daliri, Musco and Suresh 2024, arXiv 2408.07978). With
    the tokens in order of r = q/p the inner sums are sums over those above and those below, so that sorting makes it O(V log V):
    h = sum_k p_k D_k / (1 + D_k) with D_k = sum_{j above k} (q_j / r_k - p_j), which subtracts nothing from 1 and keeps small h exact.

    Args:
        log_p, log_q: natural logarithms of probabilities that sum to 1; -inf is a token that cannot come. NaN gives NaN.
    """
    flat = [each.reshape(-1, each.shape[-1]) for each in (log_p, log_q)]
    slices = few_rows(*flat[0].shape)
    found = [_disagreement(*(each[rows].double() for each in flat)) for rows in slices]
    return torch.cat(found).reshape(log_p.shape[:-1]) if found else log_p.new_zeros(log_p.shape[:-1]).double()


def _disagreement(log_p: Float[Tensor, "row vocab"], log_q: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    log_r = (log_q - log_p).masked_fill(log_p.isneginf() & log_q.isneginf(), 0.0)  # in neither
    order = _descending(log_r)
    p, q, r = log_p.exp().gather(-1, order), log_q.exp().gather(-1, order), log_r.gather(-1, order).exp()
    above_p, above_q = (_above(values) for values in (p, q))
    d = (above_q / r - above_p).clamp(min=0)  # 0 / 0 where nothing is above a token that q lacks
    d = torch.where(r == 0, torch.where(above_q > 0, torch.inf, 0.0), d)
    share = torch.where(d.isinf(), 1.0, d / (1 + d))
    return (p * share).sum(-1)


def stays(
    log_p: Float[Tensor, "*rows vocab"], log_q: Float[Tensor, "*rows vocab"], token: Int[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """The probability that the second stream draws `token` where the first has drawn it: 1 / sum_j max(p_j, q_j p_k / q_k)."""
    log_p, log_q = log_p.double(), log_q.double()
    ratio = (log_p - log_q).gather(-1, token[..., None])
    matched = torch.where(
        log_q.isneginf(), log_q, log_q + ratio
    )  # not NaN where it cannot come and the ratio is infinite
    return 1 / torch.maximum(log_p, matched).exp().sum(-1)


def divergence(log_p: Float[Tensor, "*rows vocab"], log_q: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """KL(P || Q), nats."""
    return kl_divergence(log_p.double(), log_q.double())


def total_variation(log_p: Float[Tensor, "*rows vocab"], log_q: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Half the sum of the absolute differences of the probabilities."""
    return (log_p.double().exp() - log_q.double().exp()).abs().sum(-1) / 2


def _descending(values: Float[Tensor, "row vocab"]) -> Int[Tensor, "row vocab"]:
    """Indices in descending order. On a CPU by numpy, whose sort of numbers is twice as fast, some rows in each thread."""
    if values.device.type != "cpu":
        return values.argsort(-1, descending=True)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        parts = np.array_split(-values.numpy(), torch.get_num_threads())
        return torch.from_numpy(np.concatenate(list(threads.map(partial(np.argsort, axis=-1), parts))))


def _above(values: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
    """At each place, the sum over earlier places, those of a larger r."""
    return values.cumsum(-1) - values
