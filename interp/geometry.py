"""The stream's geometry is the norm's: what of the residual stream its readers see."""

import torch
from jaxtyping import Float
from scipy.linalg import helmert
from torch import Tensor

from interp.config import ModelConfig


def mean_is_seen(config: ModelConfig) -> bool:
    """Whether readers see the mean of the stream over its width. A layer norm before every reader takes it away; an RMS norm, norms that
    stand elsewhere, or none do not."""
    return not (config.norm == "layernorm" and "reads" in config.norms)


def seen(config: ModelConfig, stream: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """The stream, or a change of it, as far as it is seen: without its mean over the width where that is invisible."""
    return stream if mean_is_seen(config) else stream - stream.mean(-1, keepdim=True)


def seen_directions(config: ModelConfig) -> int:
    """How many directions of the stream are seen."""
    return config.d_model - (not mean_is_seen(config))


def basis(config: ModelConfig, like: Tensor) -> Float[Tensor, "seen d_model"]:
    """Orthonormal directions that span what is seen, one a row."""
    if mean_is_seen(config):
        return torch.eye(config.d_model).to(like)
    return torch.from_numpy(helmert(config.d_model)).to(like)
