"""Attention in one kernel, where nobody looks at scores or pattern."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

FEW = 8
"""Of fewer keys, the kernel of the CPU gives numbers where scores are NaN."""


def fused_attention(
    q: Float[Tensor, "batch query head d_head"],
    k: Float[Tensor, "batch key kv_head d_head"],
    v: Float[Tensor, "batch key kv_head d_head"],
    mask: Bool[Tensor, "#batch #head query key"] | Float[Tensor, "#batch #head query key"] | None,
    *,
    causal: bool,
    scale: float,
) -> Float[Tensor, "batch query head d_head"]:
    """What each head reads: the values weighted by softmax(scale q.k).

    Args:
        k, v: the last keys are the queries' own; each serves a group of heads.
        mask: which key each query may see, or what is added to the scores; None is all, or in a causal model all up to its own.
    """
    heads, kv_heads = q.shape[2], k.shape[2]
    alone = q.shape[1] == 1 and (mask is None or mask.shape[1] == 1)
    if alone:  # the queries of a group stand together before their key, which is not copied
        rows = q.reshape(len(q), kv_heads, -1, q.shape[3])
    else:
        rows, k, v = q.transpose(1, 2), each_head(k, heads), each_head(v, heads)
    z = F.scaled_dot_product_attention(
        rows, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale,
        is_causal=causal and mask is None and q.shape[1] > 1,
    )  # fmt: skip
    z = z.flatten(1, 2).unsqueeze(1) if alone else z.transpose(1, 2)
    return torch.add(z, _telling(q, k), alpha=0).to(q.dtype)  # 0 times what is not finite is NaN


def each_head(x: Float[Tensor, "batch key kv_head *value"], heads: int) -> Float[Tensor, "batch key head *value"]:
    """Keys or values of every head, from those that serve a group of heads each."""
    groups = heads // x.shape[2]
    return x if groups == 1 else x.unsqueeze(3).expand(-1, -1, -1, groups, *x.shape[3:]).flatten(2, 3)


def _telling(q: Tensor, k: Tensor) -> Tensor:
    """A number for each query that is finite unless the query is not or, among few keys, its own key."""
    wide = torch.promote_types(q.dtype, torch.float32)  # where a sum of finite values is finite
    told = q.sum(-1, keepdim=True, dtype=wide)
    if k.shape[1] >= FEW:
        return told
    return told + each_head(k[:, -q.shape[1] :].sum(-1, keepdim=True, dtype=wide), q.shape[2])
