"""Finite-time Lyapunov exponents over depth, by QR (Benettin et al. 1980)."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.cascade.linear import Map, blocks, centred, precise, top_singular
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.model import Transformer
from interp.prompts import Prompt
from interp.tokenizer import PAD


def lyapunov(
    model: Transformer,
    prompts: Prompt,
    *,
    k: int | None = None,
    position: int | None = -1,
    seed: int = 0,
    bos: bool | None = None,
) -> xr.Dataset:
    """Growth rates of a set of k independent infinitely small disturbances from layer to layer.

    Q[l+1] R[l] = J[l] Q[l], from a random orthonormal Q; an exponent is the mean of ln |R_ii| over layers. Depth is finite, so these
    depend a little on where Q begins, and differ from the singular exponents ln s_i / L of the whole map, which stand beside them.

    Args:
        k: how many exponents; at most d_model - 1 on one site (the mean over the stream's directions is no disturbance). None is 32, or as
            many as there are.
        position: the site that the disturbance is held to, leaving out what goes to other positions; negative counts from the end. None
            is the whole state of all positions but the first.

    Returns:
        A Dataset: `growth` (prompt, layer, mode), ln |R_ii|; `exponent` and `singular_exponent` (prompt, mode), nats per layer,
        largest first. With several prompts also means, standard errors and intervals.

    Raises:
        InterpError: `k` or a position out of range.
        ResultError: the singular values do not converge.
    """
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    sites = 1 if position is not None else max(1, int((tokens != PAD).sum(1).min()) - 1)
    k = min(32, sites * (model.config.d_model - 1)) if k is None else k
    exact, growth, singular = precise(model), [], []
    for row in tokens:
        prompt = row[row != PAD]
        chain, size = _chain(exact, prompt, position)
        most = size - size // model.config.d_model
        if not 1 <= k <= most:
            raise InterpError(f"lyapunov: k must be 1 to {most}, the directions of the state; got {k}.")
        like = exact.W_E.new_zeros(size)
        growth.append(_growth(chain, like, k, model.config.d_model, seed))

        def forward(v: Tensor, chain: list[tuple[Map, Map]] = chain) -> Tensor:
            for up, _ in chain:
                v = up(v)
            return v

        def backward(u: Tensor, chain: list[tuple[Map, Map]] = chain) -> Tensor:
            for _, down in reversed(chain):
                u = down(u)
            return u

        singular.append(top_singular(forward, backward, like, k, seed=seed).values.log() / len(chain))
    by_layer = torch.stack(growth).cpu().double()  # [prompt, layer, exponent]
    exponent = by_layer.mean(1).sort(-1, descending=True).values.numpy()
    finite = torch.stack(singular).cpu().double().numpy()
    variables: dict[str, Variable] = {
        "growth": (("prompt", "layer", "mode"), by_layer, "ln |R_ii|", "nats"),
        "exponent": (("prompt", "mode"), exponent, "finite-time Lyapunov exponent", "nats per layer"),
        "singular_exponent": (("prompt", "mode"), finite, "ln of the singular value over depth", "nats per layer"),
    }
    if len(tokens) > 1:
        variables |= over_prompts(
            "exponent", exponent, ("exponent",), "finite-time Lyapunov exponent", "nats per layer"
        )
    return make(
        "lyapunov",
        variables,
        {
            "layer": np.arange(model.config.n_layers),
            "mode": np.arange(k),
            **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
            **token_coords(model, tokens),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={"k": k, "position": position, "bos": bos},
        seed=seed,
    )


def _chain(model: Transformer, prompt: Tensor, position: int | None) -> tuple[list[tuple[Map, Map]], int]:
    """The maps of all blocks and their transposes, and the size of the state."""
    linears, width = blocks(model, prompt), model.config.d_model
    if position is not None:
        if not -len(prompt) <= position < len(prompt):
            raise InterpError(f"lyapunov: position {position} is out of range; the prompt has {len(prompt)} tokens.")
        return [linear.on_site(position % len(prompt), position % len(prompt)) for linear in linears], width
    if len(prompt) < 2:
        raise InterpError("lyapunov: a prompt has one token; position 0 is left out, so at least two are needed.")
    return [_without_first(*linear.whole(), width) for linear in linears], (len(prompt) - 1) * width


def _without_first(forward: Map, backward: Map, width: int) -> tuple[Map, Map]:
    def padded(v: Tensor) -> Tensor:
        return torch.cat([v.new_zeros(len(v), width), v], dim=1)

    return lambda v: forward(padded(v))[:, width:], lambda u: backward(padded(u))[:, width:]


def _growth(
    chain: list[tuple[Map, Map]], like: Tensor, k: int, width: int, seed: int
) -> Float[Tensor, "layer exponent"]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(k, like.numel() // width, width, generator=generator, dtype=torch.float64)
    q = torch.linalg.qr(centred(drawn).flatten(1).mT)[0].to(like)  # [size, k]
    rows = []
    for forward, _ in chain:
        q, r = torch.linalg.qr(forward(q.mT).mT)
        rows.append(r.diagonal().abs().log())
    return torch.stack(rows)
