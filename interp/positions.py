"""How a model knows positions, other than by learned embeddings."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sinusoidal(n_ctx: int, d_model: int) -> Float[Tensor, "n_ctx d_model"]:
    """Sines at even and cosines at odd dimensions, wavelengths from 2 pi to 10000 * 2 pi (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(-math.log(10000.0) * torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angles = torch.arange(n_ctx, dtype=torch.float64)[:, None] * rates
    table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # [n_ctx, d_model or one more]
    return table[:, :d_model].float()


def rotate(
    x: Float[Tensor, "batch position head d_head"], positions: Int[Tensor, "batch position"], base: float
) -> Float[Tensor, "batch position head d_head"]:
    """Turn each pair of dimensions (i, i + d_head/2) by position * base^(-2i/d_head) (Su et al. 2021), paired as in Llama."""
    half = x.shape[-1] // 2
    rates = base ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angles = (positions[..., None] * rates)[:, :, None]  # [batch, position, 1, half]
    cos, sin = (f(angles).to(x.dtype) for f in (torch.cos, torch.sin))
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def alibi_slopes(n_heads: int) -> Float[Tensor, " head"]:
    """The penalty of each head per position of distance: a geometric sequence (Press et al. 2021, section 3 and appendix A)."""

    def powers(n: int) -> list[float]:
        return [2 ** (-8 * (i + 1) / n) for i in range(n)]

    whole = 2 ** math.floor(math.log2(n_heads))
    slopes = powers(whole) + powers(2 * whole)[0::2][: n_heads - whole]
    return torch.tensor(slopes, dtype=torch.float64)


def alibi_bias(
    n_heads: int, queries: Int[Tensor, "#batch query"], keys: Int[Tensor, "#batch key"], dtype: torch.dtype
) -> Float[Tensor, "#batch head query key"]:
    """What is added to the scores: minus slope times distance, to both sides where attention is bidirectional."""
    distance = (queries[:, None, :, None] - keys[:, None, None, :]).abs()
    return (-alibi_slopes(n_heads).to(queries.device)[:, None, None] * distance).to(dtype)
