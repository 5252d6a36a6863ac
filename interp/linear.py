"""Linear maps, with the operands in the order that a CPU's matrix product takes fastest."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 64
"""Up to so many rows, in float32 on a CPU, weights times rows is worth turning its result back (`benchmarks/products.py`)."""

TILE = 4
"""The product rounds rows beyond a multiple of this otherwise than the rest, so it gets whole tiles."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, any_layout: bool = False) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear` gives it, up to rounding; of equal rows the results are equal to the bit.

    Args:
        x: [..., in]
        weight: [out, in]
        bias: [out]
        any_layout: the result's reader does not mind strides, so that nothing need be turned back.
    """
    rows = x.numel() // weight.shape[1]
    if rows < 2 or not x.is_cpu or x.dtype != torch.float32 or (rows > FEW_ROWS and not any_layout):
        return F.linear(x, weight, bias)
    flat = x.reshape(rows, x.shape[-1])
    if rows % TILE:
        flat = F.pad(flat, (0, 0, 0, -rows % TILE))
    out = (weight @ flat.mT)[:, :rows].mT
    out = (out if any_layout else out.contiguous()).reshape(*x.shape[:-1], -1)
    return out if bias is None else out + bias


class Linear(nn.Linear):
    """A linear map whose weights the model initialises, or a loader fills."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, any_layout: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.any_layout = any_layout

    def reset_parameters(self) -> None:
        """Leave the weights alone."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.any_layout)
