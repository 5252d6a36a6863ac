"""The weights of an attention layer, head by head."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from interp.config import ModelConfig


class HeadWeights(nn.Module):
    """Views of the fused weights of an attention layer: `qkv`, three projections in one, of these `widths`, and the output `o`."""

    config: ModelConfig
    widths: list[int]
    qkv: nn.Linear
    o: nn.Linear

    def _head_weights(self, part: int) -> Tensor:
        return rearrange(torch.split(self.qkv.weight, self.widths)[part], "(h e) d -> h d e", e=self.config.d_head)

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """The query weights of each head: `x @ W` maps the stream into the head."""
        return self._head_weights(0)

    @property
    def W_K(self) -> Float[Tensor, "kv_head d_model d_head"]:
        """The key weights, as `W_Q`."""
        return self._head_weights(1)

    @property
    def W_V(self) -> Float[Tensor, "kv_head d_model d_head"]:
        """The value weights, as `W_Q`."""
        return self._head_weights(2)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """The output weights of each head: `z @ W` maps the head back into the stream."""
        return rearrange(self.o.weight, "d (h e) -> h e d", e=self.config.d_head)
