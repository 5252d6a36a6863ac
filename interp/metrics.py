"""Numbers that say what logits predict. Computed in at least float32; distributions are natural-log, so units are nats."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def log_probabilities(logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
    """Log-softmax over the vocabulary."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype).log_softmax(-1)


def entropy(log_p: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Shannon entropy of each distribution, nats."""
    return -(log_p.exp() * log_p).nan_to_num(0.0).sum(-1)


def kl_divergence(log_p: Float[Tensor, "*rows vocab"], log_q: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """KL(P || Q) of each pair of distributions, nats."""
    return (log_p.exp() * (log_p - log_q)).nan_to_num(0.0).sum(-1)


def logit_difference(
    logits: Float[Tensor, "*rows vocab"], answer: Int[Tensor, "*rows"], wrong: Int[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """Logit of the answer minus logit of the wrong answer."""
    return pick(logits, answer) - pick(logits, wrong)


def pick(values: Float[Tensor, "*rows vocab"], token: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """Each row's value at its token."""
    return values.gather(-1, token[..., None])[..., 0]


def rank(logits: Float[Tensor, "*rows vocab"], token: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
    """How many tokens score strictly higher than the given one: 0 is the top prediction."""
    return (logits > pick(logits, token)[..., None]).sum(-1)
