"""The streams of clean runs, which disturbances are measured against."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.finite import not_finite
from interp.model import Transformer
from interp.streams import streams
from interp.tokenizer import PAD


def clean_streams(
    model: Transformer, tokens: Int[Tensor, "batch position"]
) -> list[Float[Tensor, "batch position d_model"]]:
    """As `interp.streams.streams`. Raises ResultError where one holds NaN or an infinity at a token: comparisons with NaN are all false, so
    that a disturbance of such a stream would seem to vanish or to stay within every bound."""
    found, real = streams(model, tokens), tokens != PAD
    if not all(bool(torch.isfinite(stream[real]).all()) for stream in found):
        raise not_finite(model, tokens, "cascade: the stream of the clean run")
    return found
