"""How many directions of each place carry what reaches the output: the exact counterpart of `jacobian_spectrum`, for all places."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.cascade.linear import blocks, centred, precise
from analyses.results import make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.model import Transformer
from interp.prompts import Prompt
from interp.tokenizer import PAD


def participation(
    model: Transformer, prompts: Prompt, *, position: int = -1, layer: int = 0, bos: bool | None = None
) -> xr.Dataset:
    """Participation ratio and gain of the Jacobian from every place of the stream to the output at one position.

    All d_model rows of J[(l,p) -> (n_layers, position)] are pulled back through the blocks together, so nothing is sampled: one batched
    reverse pass of d_model vectors gives every layer and position.

    Args:
        position: the target, at the stream that leaves the last block; negative counts from each prompt's end.
        layer: the lowest layer whose entering stream is a source.

    Returns:
        A Dataset over prompt, layer (`layer` to n_layers - 1) and position: `participation`, (sum s^2)^2 / sum s^4 over the singular
        values, how many directions of that place share the growth: 1 where a single one is read; `log_rms_gain`, the logarithm of the
        root mean square factor by which a random direction there arrives, |J|_F / sqrt(d_model - 1), nats. NaN where nothing arrives,
        and beyond a prompt's end.

    Raises:
        InterpError: a layer or position that is not there. TokenError: a prompt that the model cannot take.
    """
    config = model.config
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    shortest = int((tokens != PAD).sum(1).min())
    if not 0 <= layer < config.n_layers or not -shortest <= position < shortest:
        raise InterpError(
            f"cascade.participation: layers are 0 to {config.n_layers - 1} and positions 0 to {shortest - 1} (or -1 to -{shortest}), "
            f"got layer {layer} and position {position}."
        )
    exact = precise(model)
    squares, fourths = np.full((2, len(tokens), config.n_layers - layer, tokens.shape[1]), np.nan)
    for number, row in enumerate(tokens):
        prompt = row[row != PAD]
        at = position % len(prompt)
        pulled = exact.W_E.new_zeros(config.d_model, len(prompt), config.d_model)
        pulled[:, at] = centred(torch.eye(config.d_model).to(pulled))
        for linear in reversed(blocks(exact, prompt, layer)):
            pulled = linear.vjp(pulled)
            sums = _sums(pulled)
            for kept, values in zip((squares, fourths), sums, strict=True):
                kept[number, linear.start - layer, : len(prompt)] = values.cpu().double().numpy()
    squares[squares == 0] = np.nan
    return make(
        "cascade_participation",
        {
            "participation": (
                ("prompt", "layer", "position"),
                squares**2 / fourths,
                "directions that share the growth",
                "1",
            ),
            "log_rms_gain": (
                ("prompt", "layer", "position"),
                np.log(squares / (config.d_model - 1)) / 2,
                "ln of the root mean square gain to the output",
                "nats",
            ),
        },
        {
            "layer": np.arange(layer, config.n_layers),
            "position": np.arange(tokens.shape[1]),
            **token_coords(model, tokens),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={"position": position, "layer": layer, "bos": bos},
    )


def _sums(rows: Float[Tensor, "row position d_model"]) -> tuple[Float[Tensor, " position"], Float[Tensor, " position"]]:
    """At each position, of the matrix with these rows: the sums of the squares and of the fourth powers of its singular values."""
    squares = rows.pow(2).sum((0, 2))
    fourths = torch.stack([(one @ one.mT).pow(2).sum() for one in rows.unbind(1)])
    return squares, fourths
