"""How many directions of each place carry what reaches the output: the exact counterpart of `jacobian_spectrum`, for all places."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.cascade.entering import Clean, precise
from analyses.results import make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.geometry import basis, seen, seen_directions
from interp.model import Transformer
from interp.prompts import Prompt
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "cascade.participation"


@takes_whole("position", "layer")
def participation(
    model: Transformer, prompts: Prompt, *, position: int = -1, layer: int = 0, bos: bool | None = None
) -> xr.Dataset:
    """Participation ratio and gain of the Jacobian from every place of the stream to the output at one position.

    All rows of J[(l,p) -> (n_layers, position)], one for each direction that readers see (`interp.geometry`), are pulled back through the
    blocks together, so nothing is sampled: one batched reverse pass gives every layer and position.

    Args:
        position: the target, at the stream that leaves the last block; negative counts from each prompt's end.
        layer: the lowest layer whose entering stream is a source.

    Returns:
        A Dataset over prompt, layer (`layer` to n_layers - 1) and position: `participation`, (sum s^2)^2 / sum s^4 over the singular
        values, how many directions of that place share the growth: 1 where a single one is read; `log_rms_gain`, the logarithm of the
        root mean square factor by which a random direction there arrives, |J|_F over the square root of the directions' number, nats. NaN
        where nothing arrives, at positions that are set apart (`analyses.set_apart`), and beyond a prompt's end.

    Raises:
        InterpError: a layer or position that is not there, or a position that is set apart. TokenError: a prompt that the model
            cannot take.
    """
    config = model.config
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    shortest = int((tokens != PAD).sum(1).min())
    if not 0 <= layer < config.n_layers or not -shortest <= position < shortest:
        raise InterpError(
            f"{WHO}: layers are 0 to {config.n_layers - 1} and positions 0 to {shortest - 1} (or -1 to -{shortest}), "
            f"got layer {layer} and position {position}."
        )
    clean = Clean.of(precise(model), tokens)
    squares, fourths = np.full((2, len(tokens), config.n_layers - layer, tokens.shape[1]), np.nan)
    rows = basis(config, clean.entering[0])
    for prompt, length in enumerate(clean.lengths):
        at = clean.position(prompt, position, WHO)
        first, count = (at, 1) if config.causal else (0, length)
        begun = rows.new_zeros(len(rows), count, config.d_model)
        begun[:, at - first] = rows
        pulled = clean.linearised(prompt).down(begun, first, layer, config.n_layers)
        kept = clean.kept[prompt, :length].cpu().numpy()
        for step, arriving in enumerate(pulled, start=1):
            there = kept[: arriving.shape[1]]
            for whole, values in zip((squares, fourths), _sums(seen(config, arriving)), strict=True):
                own = whole[prompt, config.n_layers - layer - step, : len(there)]
                own[there] = values.cpu().double().numpy()[there]
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
                np.log(squares / seen_directions(config)) / 2,
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
        parameters={"position": position, "layer": layer, "bos": bos, "set_apart": clean.apart.about()},
    )


def _sums(rows: Float[Tensor, "row position d_model"]) -> tuple[Float[Tensor, " position"], Float[Tensor, " position"]]:
    """At each position, of the matrix with these rows: the sums of the squares and of the fourth powers of its singular values."""
    squares = rows.pow(2).sum((0, 2))
    fourths = torch.stack([(one @ one.mT).pow(2).sum() for one in rows.unbind(1)])
    return squares, fourths
