"""Fresh weights."""

import math

import torch
from torch import nn

from interp.config import ModelConfig


@torch.no_grad()
def initialise(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Allocate and draw all weights: N(0, init_std^2), projections into the stream divided by sqrt(2 n_layers), as in GPT-2."""
    tables = {name: table.clone() for name, table in model.named_buffers()}
    model.to_empty(device="cpu")
    for name, table in model.named_buffers():
        table.copy_(tables[name])
    generator = torch.Generator().manual_seed(seed)
    into_stream = 1 / math.sqrt(2 * config.n_layers)
    for name, weight in model.named_parameters():
        if name.endswith(("bias", "b_U")):
            weight.zero_()
        elif weight.ndim == 1:  # the gain of a norm
            weight.fill_(1.0)
        else:
            projection = name.endswith(("attn.o.weight", "mlp.output.weight"))
            weight.normal_(0.0, config.init_std * (into_stream if projection else 1.0), generator=generator)
