"""Distributions over a large vocabulary, a block of it at a time: what a block needs stays in the processor's cache.

Of logits of which one is NaN or plus infinity every log-probability is NaN, so that one of them tells; what is computed from them is NaN.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model import Transformer

BLOCK = 4096
"""Tokens of a block."""


@dataclass(frozen=True)
class Predicted:
    """The distributions that some places predict.

    Args:
        log_p: [place, vocab].
        entropy: [place], nats.
        normaliser: [place], ln of the sum of exp(logit): a logit is its log-probability plus this.
        mean_logit: [place], over the vocabulary.
    """

    log_p: Float[Tensor, "place vocab"]
    entropy: Float[Tensor, " place"]
    normaliser: Float[Tensor, " place"]
    mean_logit: Float[Tensor, " place"]


def predict(model: Transformer, normed: Float[Tensor, "place d_model"]) -> Predicted:
    """What a normed stream predicts, in at least single precision."""
    dtype = torch.promote_types(normed.dtype, torch.float32)
    scores = torch.empty((len(normed), model.config.d_vocab), dtype=dtype, device=normed.device)
    largest, total = scores.new_full((len(scores), 1), -torch.inf), scores.new_zeros(len(scores), 1)
    for block in _blocks(model.config.d_vocab):
        logits = model.to_logits(normed[None], block)[0]
        scores[:, block] = logits
        largest = torch.maximum(largest, logits.amax(-1, keepdim=True).to(dtype))
        total += logits.to(dtype).sum(-1, keepdim=True)
    size, weighted = torch.zeros_like(largest), torch.zeros_like(largest)
    for block in _blocks(model.config.d_vocab):
        shifted = scores[:, block].sub_(largest)
        weights = shifted.exp()
        size += weights.sum(-1, keepdim=True)
        weighted += weights.mul_(shifted).nan_to_num_(0.0).sum(-1, keepdim=True)  # 0 ln 0 is 0
    log_size = size.log()
    entropy, normaliser = log_size - weighted / size, log_size + largest
    return Predicted(scores.sub_(log_size), entropy[:, 0], normaliser[:, 0], total[:, 0] / model.config.d_vocab)


def divergence(
    log_p: Float[Tensor, "place vocab"], log_q: Float[Tensor, "step place vocab"]
) -> Float[Tensor, "step place"]:
    """KL(P || Q) of each place, for several Q, nats."""
    found = log_q.new_zeros(log_q.shape[:-1])
    for block in _blocks(log_p.shape[-1]):
        before = log_p[:, block]
        terms = (before - log_q[..., block]).mul_(before.exp())
        found += terms.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf).sum(-1)  # 0 times infinity is 0
    return found.masked_fill_(log_p[:, 0].isnan() | log_q[..., 0].isnan(), torch.nan)


def ranks(log_p: Float[Tensor, "place vocab"], token: Int[Tensor, " place"]) -> Float[Tensor, " place"]:
    """How many tokens are strictly more probable than the given one: 0 is the top prediction; NaN where nothing is predicted."""
    own, above = log_p.gather(-1, token[:, None]), log_p.new_zeros(len(log_p), dtype=torch.float32)
    for block in _blocks(log_p.shape[-1]):
        values = log_p[:, block]
        above += torch.gt(values, own, out=torch.empty_like(values, dtype=torch.float32)).sum(-1)  # bools sum slowly
    return above.masked_fill_(own[:, 0].isnan(), torch.nan).to(log_p.dtype)


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))
