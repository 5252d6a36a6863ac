"""Finite-time Lyapunov exponents over depth, by QR (Benettin et al. 1980)."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.cascade.entering import Clean, precise
from analyses.cascade.linear import Map, blocks, on_site_blocks, product, top_singular
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.geometry import basis, seen, seen_directions
from interp.model import Transformer
from interp.prompts import Prompt
from interp.spectra import qr, singular_values
from interp.whole_numbers import takes_whole

WHO = "cascade.lyapunov"


@takes_whole("k", "position", "seed")
@torch.no_grad()
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
        k: how many exponents; at most as many as directions that readers see of the stream (`interp.geometry`), at one site or at all. None
            is 32, or as many as there are.
        position: the site that the disturbance is held to, leaving out what goes to other positions; negative counts from the end. There
            each block is a matrix, and all is exact, up to singular values so small beside the largest that float64 loses them. None is the
            whole state of all positions that are not set apart (`analyses.set_apart`), where the singular values are found by iteration.

    Returns:
        A Dataset: `growth` (prompt, layer, mode), ln |R_ii|; `exponent` and `singular_exponent` (prompt, mode), nats per layer,
        largest first. NaN for a direction that does not go on, as one that a norm behind a block takes away: beyond rounding nothing is
        left of it to measure. With several prompts also means, standard errors and intervals.

    Raises:
        InterpError: `k` or a position out of range, or one that is set apart.
        ResultError: the singular values do not converge.
    """
    return _measured(model, prompts, k, position, seed, bos)


@torch.no_grad()
def exponents_beside(model: Transformer, prompts: Prompt, spectrum: xr.Dataset, *, k: int, seed: int) -> xr.Dataset:
    """`lyapunov` at the last position, whose singular exponents come from the singular values, all of them, of `jacobian_spectrum` from
    the embedding to the output there. In a causal model that map is the product of the blocks at that site, which is not made again."""
    return _measured(model, prompts, k, -1, seed, None, torch.from_numpy(spectrum["singular_value"].to_numpy()))


def _measured(
    model: Transformer,
    prompts: Prompt,
    k: int | None,
    position: int | None,
    seed: int,
    bos: bool | None,
    singular_of: Float[Tensor, "prompt singular"] | None = None,
) -> xr.Dataset:
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    clean = Clean.of(precise(model), tokens)
    clean.check_some_are_left(WHO)
    sites = 1 if position is not None else int(clean.kept.sum(1).min())
    most = sites * seen_directions(model.config)
    k = min(32, most) if k is None else k
    if not 1 <= k <= most:
        raise InterpError(f"lyapunov: k must be 1 to {most}, the directions of the state; got {k}.")
    found = [
        _whole_state(clean, prompt, k, seed)
        if position is None
        else _on_site(clean, prompt, position, k, seed, None if singular_of is None else singular_of[prompt])
        for prompt in range(len(tokens))
    ]
    growth, singular = zip(*found, strict=True)
    by_layer = torch.stack(growth).cpu().double()  # [prompt, layer, exponent]
    exponent = -np.sort(-by_layer.mean(1).numpy(), axis=-1)  # NaN comes last
    finite = torch.stack(singular).cpu().double().numpy()
    variables: dict[str, Variable] = {
        "growth": (("prompt", "layer", "mode"), by_layer, "ln |R_ii|", "nats"),
        "exponent": (("prompt", "mode"), exponent, "finite-time Lyapunov exponent", "nats per layer"),
        "singular_exponent": (("prompt", "mode"), finite, "ln of the singular value over depth", "nats per layer"),
    }
    if len(tokens) > 1:
        variables |= over_prompts("exponent", exponent, ("mode",), "finite-time Lyapunov exponent", "nats per layer")
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
        parameters={"k": k, "position": position, "bos": bos, "set_apart": clean.apart.about()},
        seed=seed,
    )


def _on_site(
    clean: Clean, prompt: int, position: int, k: int, seed: int, known: Float[Tensor, " singular"] | None = None
) -> tuple[Float[Tensor, "layer mode"], Float[Tensor, " mode"]]:
    """ln |R_ii| of each block's matrix, and ln s_i / L of their product, whose singular values may be `known`."""
    at = clean.position(prompt, position, WHO)
    run, precision = clean.linearised(prompt), clean.entering[0].dtype
    rows = basis(clean.model.config, clean.entering[0].double())
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(len(rows), k, generator=generator, dtype=torch.float64).to(rows)
    if known is not None:
        pushed = [partial(_through, linear.on_site(at, at)[0], rows, precision) for linear in blocks(run)]
        return _growth(pushed, q, precision), _logs(known, k, len(pushed))
    matrices = list(on_site_blocks(run, at))
    values = singular_values(product(matrices), f"{WHO}: the derivative of all blocks")
    return _growth([partial(_applied, matrix) for matrix in matrices], q, precision), _logs(values, k, len(matrices))


def _through(
    forward: Map, rows: Float[Tensor, "seen d_model"], dtype: torch.dtype, vectors: Float[Tensor, "vector seen"]
) -> Float[Tensor, "vector seen"]:
    """A map of the stream, on vectors by their shares in each of the orthonormal directions that are seen."""
    return forward((vectors @ rows).to(dtype)).to(rows) @ rows.mT


def _applied(matrix: Float[Tensor, "out size"], vectors: Float[Tensor, "vector size"]) -> Float[Tensor, "vector out"]:
    return vectors @ matrix.mT


def _whole_state(
    clean: Clean, prompt: int, k: int, seed: int
) -> tuple[Float[Tensor, "layer mode"], Float[Tensor, " mode"]]:
    """The same of all positions that are not set apart."""
    config, kept = clean.model.config, clean.kept[prompt, : clean.lengths[prompt]]
    maps = [linear.among(kept) for linear in blocks(clean.linearised(prompt))]

    def forward(v: Tensor) -> Tensor:
        for up, _ in maps:
            v = up(v)
        return v

    def backward(u: Tensor) -> Tensor:
        for _, down in reversed(maps):
            u = down(u)
        return u

    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(k, int(kept.sum()), config.d_model, generator=generator, dtype=torch.float64)
    q = seen(config, drawn).flatten(1).to(clean.entering[0])
    singular = top_singular(forward, backward, q[0], k, seed=seed).values
    return _growth([up for up, _ in maps], q.mT, q.dtype), singular.log() / len(maps)


def _growth(
    maps: Sequence[Map], begun: Float[Tensor, "size mode"], precision: torch.dtype
) -> Float[Tensor, "layer mode"]:
    """ln |R_ii|, NaN for a direction of which a block leaves no more than the rounding of its own precision."""
    q = qr(begun, f"{WHO}: where it begins")[0]
    rows = []
    for forward in maps:
        q, r = qr(forward(q.mT).mT, f"{WHO}: what leaves a block")
        rows.append(_beyond_rounding(r.diagonal().abs(), len(q), precision).log())
    return torch.stack(rows)


def _logs(values: Float[Tensor, " singular"], k: int, layers: int) -> Float[Tensor, " mode"]:
    """ln s_i / L of the k largest, NaN where float64 loses them beside the largest."""
    return _beyond_rounding(values, len(values), torch.float64)[:k].log() / layers


def _beyond_rounding(sizes: Float[Tensor, " mode"], width: int, precision: torch.dtype) -> Float[Tensor, " mode"]:
    """NaN for those that are no more than rounding beside the largest, as numpy's `matrix_rank` judges it."""
    return sizes.where(sizes > width * torch.finfo(precision).eps * sizes.max(), torch.nan)
