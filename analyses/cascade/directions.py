"""Directions in which a stream is disturbed."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.cascade.entering import Clean
from analyses.cascade.linear import Linear, top_singular
from interp.errors import InterpError, is_known, nearest
from interp.geometry import mean_is_seen, seen
from interp.model import Transformer

Directions = str | Float[Tensor, "given width"]
"""A name of `KINDS`, or vectors of one's own (a steering vector, a feature of a sparse autoencoder)."""

KINDS = {
    "isotropic": "any direction alike",
    "covariance": "as the stream itself varies over prompts and positions",
    "token": "one token's embedding less another's",
    "activation": "the stream at one place less that at another",
    "unembedding": "towards the logit of one token, away from another's",
    "singular": "the one that grows most by the output at its own position",
}


def same_as(model: Transformer, kind: str) -> str:
    """The kind that this one is in a model whose unembedding is its embedding: towards one token and away from another is then the
    difference of their embeddings."""
    tied = model.W_U.shape == model.W_E.mT.shape and torch.equal(model.W_U, model.W_E.mT)
    return "token" if kind == "unembedding" and tied else kind


def draw(
    clean: Clean,
    layer: int,
    places: Int[Tensor, "place 2"],
    directions: Directions,
    count: int,
    seed: int,
    who: str,
) -> Float[Tensor, "place direction d_model"]:
    """Unit vectors of what readers see of the stream that enters a layer (`interp.geometry`; without a mean over the width where layer
    norms would remove it); random numbers are drawn in float64 whatever the model's dtype.

    Raises:
        InterpError: an unknown name, vectors of another width or without any direction, or too few tokens or places to tell apart.
    """
    model, stream = clean.model, clean.entering[layer]
    generator = torch.Generator().manual_seed(seed)
    if isinstance(directions, Tensor):
        vectors = directions.to(stream)
        if vectors.ndim != 2 or vectors.shape[1] != model.config.d_model:
            raise InterpError(
                f"{who}: directions have shape {tuple(vectors.shape)}; expected [direction, {model.config.d_model}]."
            )
        drawn = vectors.expand(len(places), -1, -1)
    elif is_known(directions, ["singular"]):
        drawn = torch.stack([_singular(clean, layer, place, count, seed) for place in places.tolist()])
    elif is_known(directions, KINDS):
        there = seen(model.config, stream)[clean.kept]  # [place, d_model]
        makers: dict[str, Callable[[tuple[int, int]], Tensor]] = {
            "isotropic": lambda size: torch.randn(
                *size, model.config.d_model, generator=generator, dtype=torch.float64
            ),
            "covariance": lambda size: _mixed(there, size, generator),
            "token": lambda size: _differences(model.W_E, size, generator),
            "activation": lambda size: _differences(
                torch.unique(there, dim=0), size, generator
            ),  # prompts may begin alike
            "unembedding": lambda size: _differences(model.W_U.mT, size, generator),
        }
        drawn = makers[directions]((len(places), count))
    else:
        raise InterpError(f"{who}: unknown directions {directions!r}. {nearest(directions, KINDS)}")
    drawn = seen(model.config, drawn.double())
    length = drawn.norm(dim=-1, keepdim=True)
    if bool((length == 0).any()):
        without = "" if mean_is_seen(model.config) else " once its mean is taken away, as layer norms do"
        raise InterpError(f"{who}: a direction is zero{without}, so it disturbs nothing.")
    unit: Tensor = (drawn / length).to(stream)
    return unit


def _mixed(rows: Float[Tensor, "row d_model"], size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Normal with the rows' covariance: random mixtures of the rows less their mean."""
    if len(rows) < 2:
        raise InterpError("cascade: directions that vary as the stream does need two places at least.")
    weights = torch.randn(*size, len(rows), generator=generator, dtype=torch.float64).to(rows.device)
    mixed: Tensor = weights @ (rows - rows.mean(0)).double()
    return mixed


def _differences(rows: Float[Tensor, "row d_model"], size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Of two different rows each."""
    if len(rows) < 2:
        raise InterpError("cascade: directions that are differences need two tokens or places at least.")
    first = torch.randint(len(rows), size, generator=generator)
    second = (first + torch.randint(1, len(rows), size, generator=generator)) % len(rows)
    difference: Tensor = rows[first.to(rows.device)].double() - rows[second.to(rows.device)].double()
    return difference


def _singular(clean: Clean, layer: int, place: list[int], count: int, seed: int) -> Float[Tensor, "direction d_model"]:
    prompt, position = place
    config = clean.model.config
    run = clean.linearised(prompt, position + 1 if config.causal else None)  # later positions do not reach this one
    linear = Linear(run, layer, config.n_layers)
    return top_singular(*linear.on_site(position, position), linear.stream[0], count, seed=seed, tolerance=1e-2).right
