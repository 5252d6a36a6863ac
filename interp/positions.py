"""How a model knows positions, other than by learned embeddings."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.config import ModelConfig


def sinusoidal(n_ctx: int, d_model: int) -> Float[Tensor, "n_ctx d_model"]:
    """Sines at even and cosines at odd dimensions, wavelengths from 2 pi to 10000 * 2 pi (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(-math.log(10000.0) * torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angles = torch.arange(n_ctx, dtype=torch.float64)[:, None] * rates
    table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # [n_ctx, d_model or one more]
    return table[:, :d_model].float()


@dataclass(frozen=True)
class Rotary:
    """How a layer's queries and keys are turned (Su et al. 2021): the options of `ModelConfig` that say so, by layer.

    Args:
        dims: how many of a head's dimensions are turned, in pairs (i, i + dims/2) as in Llama.
    """

    dims: int
    base: float
    scaling: str = "none"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original_ctx: int | None = None

    @classmethod
    def of(cls, config: ModelConfig, layer: int) -> "Rotary":
        """In that layer of a model."""
        dims = config.d_head if config.rotary_dims is None else config.rotary_dims
        if config.rotary_local_base is not None and config.window_of(layer) is not None:
            return cls(dims, config.rotary_local_base)
        scaling = (config.rotary_scaling, config.rotary_factor, config.rotary_low, config.rotary_high)
        return cls(dims, config.rotary_base, *scaling, config.rotary_original_ctx)

    def rates(self) -> Float[Tensor, " pair"]:
        """Radians that each pair turns by per position."""
        pairs = self.dims // 2
        rates = self.base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        if self.scaling == "linear":
            return rates / self.factor
        if self.scaling == "llama3" and self.original_ctx is not None:
            turns = self.original_ctx * rates / (2 * math.pi)
            kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)  # the share that is not slowed down
            return rates * (kept + (1 - kept) / self.factor)
        return rates


@lru_cache(maxsize=32)
def _turns(rotary: Rotary, count: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of the first `count` positions [position, dimension]: what a dimension is multiplied by, and what its partner in the pair is."""
    with torch.inference_mode(False):  # kept for runs that take gradients too
        angles = torch.arange(count, dtype=torch.float64)[:, None] * rotary.rates()
        cos, sin = angles.cos(), angles.sin()
        own, partners = torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)
        return own.to(device, dtype), partners.to(device, dtype)


Turns = tuple[Float[Tensor, "batch position 1 turned"], Float[Tensor, "batch position 1 turned"]]
"""Cosine and signed sine of how far each dimension is turned."""


def turns_at(positions: Int[Tensor, "batch position"], below: int, rotary: Rotary, dtype: torch.dtype) -> Turns:
    """Of values of that dtype at some positions, all of them below a number; in float32 at least."""
    wide = torch.promote_types(dtype, torch.float32)
    count = 1 << (below - 1).bit_length()  # a power of two, so that decoding makes few tables
    cos, sin = (table[positions][:, :, None] for table in _turns(rotary, count, wide, positions.device))
    return cos, sin


def turned(
    x: Float[Tensor, "batch position head d_head"],
    cos: Float[Tensor, "#batch position 1 turned"],
    sin: Float[Tensor, "#batch position 1 turned"],
) -> Float[Tensor, "batch position head d_head"]:
    """Each pair of dimensions (i, i + pairs) turned, further ones left alone; half precision is turned in float32.

    With `-sin` it is turned back.
    """
    dims = cos.shape[-1]
    pairs = x if dims == x.shape[-1] else x[..., :dims]
    whole = torch.addcmul(pairs * cos, pairs.roll(dims // 2, -1), sin)
    if dims < x.shape[-1]:
        whole = torch.cat([whole, x[..., dims:].to(whole.dtype)], dim=-1)
    return whole.to(x.dtype)


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
    """What is added to the scores, in float32 at least: minus slope times distance, to both sides where attention is bidirectional."""
    distance = (queries[:, None, :, None] - keys[:, None, None, :]).abs()
    return (-alibi_slopes(n_heads).to(queries.device)[:, None, None] * distance).to(
        torch.promote_types(dtype, torch.float32)
    )
