"""How many directions of each place carry what reaches the output: the exact counterpart of `jacobian_spectrum`, for all places."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

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
FEWEST, ERROR = 8, "_standard_error"
EXACT = {
    "participation": ("directions that share the growth", "1"),
    "log_rms_gain": ("ln of the root mean square gain to the output", "nats"),
}
SAMPLED = EXACT | {
    f"{name}{ERROR}": (f"standard error over probes of: {said}", units) for name, (said, units) in EXACT.items()
}


@takes_whole("position", "layer", "probes", "seed")
@torch.no_grad()
def participation(
    model: Transformer,
    prompts: Prompt,
    *,
    position: int = -1,
    layer: int = 0,
    probes: int | None = None,
    seed: int = 0,
    bos: bool | None = None,
) -> xr.Dataset:
    """Participation ratio and gain of the Jacobian from every place of the stream to the output at one position.

    All rows of J[(l,p) -> (n_layers, position)], one for each direction that readers see (`interp.geometry`), are pulled back through the
    blocks together, so nothing is sampled: one batched reverse pass gives every layer and position. With `probes` that many random
    directions are pulled back instead, of covariance 1, and the sums estimated: mean |y_i|^2 for sum s^2, and the mean of (y_i.y_j)^2
    over i != j for sum s^4; ratio, gain and standard errors by the jackknife over the probes.

    Args:
        position: the target, at the stream that leaves the last block; negative counts from each prompt's end.
        layer: the lowest layer whose entering stream is a source.
        probes: None pulls back every direction, exactly; else how many random ones, 8 at least.
        seed: of the random directions.

    Returns:
        A Dataset over prompt, layer (`layer` to n_layers - 1) and position: `participation`, (sum s^2)^2 / sum s^4 over the singular
        values, how many directions of that place share the growth: 1 where a single one is read; `log_rms_gain`, the logarithm of the
        root mean square factor by which a random direction there arrives, |J|_F over the square root of the directions' number, nats.
        With `probes` each also has its `_standard_error`. NaN where nothing arrives, at positions that are set apart
        (`analyses.set_apart`), and beyond a prompt's end.

    Raises:
        InterpError: a layer or position that is not there, a position that is set apart, or too few probes. TokenError: a prompt that
            the model cannot take.
    """
    config = model.config
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    shortest = int((tokens != PAD).sum(1).min())
    if not 0 <= layer < config.n_layers or not -shortest <= position < shortest:
        raise InterpError(
            f"{WHO}: layers are 0 to {config.n_layers - 1} and positions 0 to {shortest - 1} (or -1 to -{shortest}), "
            f"got layer {layer} and position {position}."
        )
    if probes is not None and probes < FEWEST:
        raise InterpError(f"{WHO}: probes must be at least {FEWEST}, or None for every direction, got {probes}.")
    clean = Clean.of(precise(model), tokens)
    shape = (len(tokens), config.n_layers - layer, tokens.shape[1])
    found = {name: np.full(shape, np.nan) for name in (EXACT if probes is None else SAMPLED)}
    rows = basis(config, clean.entering[0])
    if probes is not None:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(probes, len(rows), generator=generator, dtype=torch.float64).to(rows) @ rows
    for prompt, length in enumerate(clean.lengths):
        at = clean.position(prompt, position, WHO)
        first, count = (at, 1) if config.causal else (0, length)
        begun = rows.new_zeros(len(rows), count, config.d_model)
        begun[:, at - first] = rows
        pulled = clean.linearised(prompt).down(begun, first, layer, config.n_layers)
        kept = clean.kept[prompt, :length].cpu().numpy()
        for step, arriving in enumerate(pulled, start=1):
            arriving = seen(config, arriving)
            for place in kept[: arriving.shape[1]].nonzero()[0]:
                gram = (arriving[:, place] @ arriving[:, place].mT).double().cpu().numpy()
                for name, value in (_exactly(gram) if probes is None else _estimated(gram)).items():
                    found[name][prompt, config.n_layers - layer - step, place] = value
    found = {
        name: values - np.log(seen_directions(config)) / 2 if name == "log_rms_gain" else values
        for name, values in found.items()
    }
    return make(
        "cascade_participation",
        {name: (("prompt", "layer", "position"), values, *SAMPLED[name]) for name, values in found.items()},
        {
            "layer": np.arange(layer, config.n_layers),
            "position": np.arange(tokens.shape[1]),
            **token_coords(model, tokens),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={
            "position": position, "layer": layer, "probes": probes, "bos": bos, "set_apart": clean.apart.about(),
        },
        seed=None if probes is None else seed,
    )  # fmt: skip


def _exactly(gram: Float[np.ndarray, "row row"]) -> dict[str, Any]:
    """Of a matrix, from the inner products of its rows with each other."""
    return _of_sums(gram.trace(), np.square(gram).sum())


def _estimated(gram: Float[np.ndarray, "probe probe"]) -> dict[str, Any]:
    """The same from those of random mixtures of its rows, less the jackknifed bias, with standard errors (Efron and Stein 1981)."""
    count, own = len(gram), gram.diagonal()
    pairs = np.square(gram).sum(1) - own**2  # of each probe with every other
    whole = _of_sums(own.mean(), pairs.sum() / (count * (count - 1)))
    without = _of_sums(
        (own.sum() - own) / (count - 1),
        (pairs.sum() - 2 * pairs) / ((count - 1) * (count - 2)),
    )
    found = {name: count * value - (count - 1) * without[name].mean() for name, value in whole.items()}
    errors = {f"{name}{ERROR}": np.sqrt((count - 1) * without[name].var()) for name in whole}
    return found | errors


def _of_sums(squares: Any, fourths: Any) -> dict[str, Any]:
    """Of the sums of the squares and fourth powers of the singular values; NaN where nothing arrives."""
    squares = np.where(squares == 0, np.nan, squares)
    return {"participation": squares**2 / fourths, "log_rms_gain": np.log(squares) / 2}
