"""The embeddings: which tokens lie near each other, and the directions along which tokens and positions differ most."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.answers import Tokens
from analyses.lenses.reading import candidate_ids
from analyses.results import Variable, array, make, token_strings
from interp.errors import ResultError, TokenError
from interp.model import Transformer
from interp.spectra import symmetric
from interp.whole_numbers import takes_whole


@torch.no_grad()
@takes_whole("top_k", "n_axes")
def embedding_structure(
    model: Transformer, tokens: Tokens, *, top_k: int | None = None, n_axes: int | None = None
) -> xr.Dataset:
    """Look at the token embedding W_E and, where the model has one, the position embedding W_pos.

    Args:
        tokens: the ones to look at, each a text that is a single token, or an id.
        top_k: how many neighbours of each; None is 10, or all others of a smaller vocabulary.
        n_axes: principal axes whose coordinates are kept; None is 4, or all of a narrower stream.

    Returns:
        A Dataset. By (candidate, top): `near_id`, `near_token`, `near_cosine`, the tokens whose embeddings have the largest cosine with the
        candidate's, itself left out. `similarity` (candidate, other_candidate), cosine. Principal components of the centred rows of W_E:
        `token_variance` (pc), share of the variance; `token_coordinate` (vocab, axis) and `candidate_coordinate` (candidate, axis). With a
        position embedding also `position_variance` (pc), `position_coordinate` (position, axis) and `position_similarity`
        (position, other_position), cosine. The sign of an axis is chosen so that its largest coordinate is positive.

    Raises:
        TokenError: a text of several tokens, an id out of range, no tokens, or `top_k` or `n_axes` out of range.
        ResultError: embeddings that are not finite.
    """
    config = model.config
    chosen = candidate_ids(model, tokens)
    if len(chosen) == 0:
        raise TokenError("embedding_structure: give one token or several.")
    top_k = min(10, config.d_vocab - 1) if top_k is None else top_k
    n_axes = min(4, config.d_model) if n_axes is None else n_axes
    if not 1 <= top_k < config.d_vocab or not 1 <= n_axes <= config.d_model:
        raise TokenError(
            f"embedding_structure: top_k must be 1 to {config.d_vocab - 1} and n_axes 1 to {config.d_model}; got {top_k} and {n_axes}."
        )
    for name in ("W_E", *(["W_pos"] if config.has_position_embedding else [])):
        if not bool(torch.isfinite(getattr(model, name)).all()):
            raise ResultError(f"embedding_structure: {name} holds values that are not finite, which are near nothing.")
    embedding = model.W_E.detach().to(torch.promote_types(model.dtype, torch.float32))
    unit = torch.nn.functional.normalize(embedding, dim=-1)
    cosine = unit[chosen] @ unit.mT
    others = cosine.scatter(1, chosen[:, None], -torch.inf)
    near = others.topk(top_k, dim=-1)
    share, coordinates = principal(embedding, n_axes)
    near_ids, names = array(near.indices), token_strings(model, array(chosen))
    across = ("candidate", "top")
    variables: dict[str, Variable] = {
        "near_id": (across, near_ids, "nearest tokens", "1"),
        "near_token": (across, token_strings(model, near_ids), "nearest tokens", "1"),
        "near_cosine": (across, near.values, "cosine of the embeddings", "1"),
        "similarity": (("candidate", "other_candidate"), cosine[:, chosen], "cosine of the embeddings", "1"),
        "token_variance": (("pc",), share, "share of the variance of W_E", "1"),
        "token_coordinate": (("vocab", "axis"), coordinates, "coordinate of each token", "1"),
        "candidate_coordinate": (("candidate", "axis"), coordinates[chosen], "coordinate", "1"),
    }
    coords: dict[Any, Any] = {
        "candidate": names,
        "candidate_id": (("candidate",), array(chosen)),
        "other_candidate": names,
        "vocab": np.arange(config.d_vocab),
        "vocab_token": (("vocab",), token_strings(model, np.arange(config.d_vocab))),
        "axis": np.arange(n_axes),
    }
    if config.has_position_embedding:
        positions = model.W_pos.detach().to(embedding.dtype)
        share, coordinates = principal(positions, n_axes)
        at = torch.nn.functional.normalize(positions, dim=-1)
        variables |= {
            "position_variance": (("pc",), share, "share of the variance of W_pos", "1"),
            "position_coordinate": (("position", "axis"), coordinates, "coordinate of each position", "1"),
            "position_similarity": (("position", "other_position"), at @ at.mT, "cosine of the embeddings", "1"),
        }
        coords["position"] = np.arange(config.n_ctx)
    parameters = {"tokens": chosen.tolist(), "top_k": top_k, "n_axes": n_axes}
    return make("embedding_structure", variables, coords, model=model, prompts={}, parameters=parameters)


def principal(
    rows: Float[Tensor, "row d_model"], n_axes: int
) -> tuple[Float[Tensor, " d_model"], Float[Tensor, "row axis"]]:
    """Share of the variance of each principal component, the largest first, and the rows' coordinates along the first ones."""
    centred = rows.double() - rows.double().mean(0)
    variance, axes = symmetric(
        centred.mT @ centred, "embedding_structure: the covariance of the embeddings"
    )  # ascending
    variance, axes = variance.flip(0).clamp(min=0), axes.flip(1)[:, :n_axes]
    coordinates = centred @ axes
    largest = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    return variance / variance.sum(), coordinates * largest.sign()
