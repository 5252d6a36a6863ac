"""The spectrum of the Jacobian from one place of the stream to another: how many directions grow, and by how much."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analyses.cascade.entering import Clean, precise
from analyses.cascade.linear import RAREST, Linear, Map, Singular, on_site_blocks, product, top_singular
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.geometry import basis, seen_directions
from interp.model import Transformer
from interp.prompts import Prompt
from interp.spectra import svd
from interp.sweep import MAX_BYTES
from interp.whole_numbers import is_one, takes_whole, whole_numbers

PROBES = 32

VECTORS = 10
"""Singular vectors that are kept where all singular values are."""

Place = tuple[int, int]
"""Layer, whose entering stream is meant (n_layers: the one that leaves the last), and position; negative positions count from the end."""


@takes_whole("k", "probes", "seed", "max_bytes", least={"max_bytes": 1})
@torch.no_grad()
def jacobian_spectrum(
    model: Transformer,
    prompts: Prompt,
    *,
    source: Place = (0, -1),
    target: Place | None = None,
    k: int | None = None,
    probes: int = PROBES,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
) -> xr.Dataset:
    """The singular values of J[(l,p) -> (l',p')], the derivative of the stream at the target by that at the source, as far as their readers
    see it (without the mean over the width where layer norms take it away; see `interp.geometry`).

    A singular value is the factor by which an infinitely small disturbance in its direction grows. Where the matrix fits into `max_bytes`
    it is computed whole, one tangent for each direction, and everything here is exact, but for rounding: from a position to itself the
    blocks are multiplied in float64, elsewhere tangents are carried in the model's precision, and values so far below the largest that it
    loses them mean nothing; their `residual` says so. Else the largest singular values are found by
    iteration, and the sums over all of them that the other numbers need are estimated by random probes of what those leave over.

    Args:
        source, target: (layer, position); default, from the embedding to the output at the last position.
        k: how many singular values; None is all of a matrix that is whole, else 10.
        probes: random vectors, where the matrix is not whole.
        max_bytes: bound on the memory of the matrix and of the tangents that make it.

    Returns:
        A Dataset by prompt: `singular_value`, `residual` (singular), the relative error of each, at least what rounding beside the largest
        makes of it; `right_vector`, `left_vector` (vector, d_model), of the k largest, or
        of the 10 largest where k is None; `frobenius`;
        `participation`, (sum s^2)^2 / sum s^4, the number of directions that share the growth; `non_normality`,
        |J J^T - J^T J| / |J|^2 in Frobenius norms, 0 where growth adds up from layer to layer as eigenvalues would tell;
        `adjoint_error`, |<u, J v> - <J^T u, v>| over |J v| |u|. With several prompts means with standard error and interval.

    Raises:
        InterpError: a place that is not there or whose position is set apart (`analyses.set_apart`), a target below or before its source,
            or `k` out of range.
        ResultError: the iteration does not converge.
    """
    config = model.config
    source, target = _place(source), (config.n_layers, -1) if target is None else _place(target)
    most = seen_directions(config)
    if probes < 1:
        raise InterpError(f"jacobian_spectrum: probes must be at least 1, got {probes}.")
    if k is not None and not 1 <= k <= most:
        raise InterpError(f"jacobian_spectrum: k must be 1 to {most}, got {k}.")
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    generator = torch.Generator().manual_seed(seed)
    found: list[Singular] = []
    numbers = []
    clean = Clean.of(precise(model), tokens)
    for prompt, length in enumerate(clean.lengths):
        at, to = (_position(clean, prompt, place) for place in (source, target))
        if not source[0] < target[0] or (config.causal and to < at):
            raise InterpError(
                f"jacobian_spectrum: nothing at {target} depends on {source}: the target must be at a higher layer and no earlier."
            )
        linear = Linear(clean.linearised(prompt), source[0], target[0])
        forward, backward = linear.on_site(at, to)
        noise = torch.randn(probes, config.d_model, generator=generator, dtype=torch.float64).to(linear.stream)
        span = to - at + 1 if config.causal else length
        if 4 * span * config.d_model**2 * linear.stream.element_size() <= max_bytes:
            top, exact = _whole(linear, at, to, k)
            numbers.append(exact | {"adjoint_error": _adjoint_error(forward, backward, noise)})
        else:
            top = top_singular(forward, backward, linear.stream[0], min(VECTORS, most) if k is None else k, seed=seed)
            numbers.append(_numbers(forward, backward, top, noise))
        found.append(top)
    kept = min(len(one.values) for one in found)
    found = [replace(one, values=one.values[:kept], residual=one.residual[:kept]) for one in found]
    vectors = min(len(one.left) for one in found)
    variables: dict[str, Variable] = {
        "singular_value": (("prompt", "singular"), torch.stack([one.values for one in found]), "singular value", "1"),
        "residual": (("prompt", "singular"), torch.stack([one.residual for one in found]), "relative residual", "1"),
        **{
            f"{side}_vector": (
                ("prompt", "vector", "d_model"),
                torch.stack([getattr(one, side)[:vectors] for one in found]),
                f"{side} singular vector",
                "1",
            )
            for side in ("left", "right")
        },
    }
    described = {
        "frobenius": "Frobenius norm of the Jacobian",
        "participation": "directions that share the growth",
        "non_normality": "non-normality",
        "adjoint_error": "relative error of the adjoint",
    }
    for name, long_name in described.items():
        values = torch.stack([one[name] for one in numbers]).cpu().double().numpy()
        variables[name] = (("prompt",), values, long_name, "1")
        if len(tokens) > 1 and name != "adjoint_error":
            variables |= over_prompts(name, values, (), long_name, "1")
    return make(
        "jacobian_spectrum",
        variables,
        {
            "singular": np.arange(kept),
            "vector": np.arange(vectors),
            **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
            **token_coords(model, tokens),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={
            "source": list(source),
            "target": list(target),
            "k": k,
            "probes": probes,
            "bos": bos,
            "set_apart": clean.apart.about(),
        },
        seed=seed,
    )


def _place(given: Any) -> Place:
    pair = [] if is_one(given) else whole_numbers(given, "jacobian_spectrum: a layer or position", InterpError)
    if len(pair) != 2:
        raise InterpError(f"jacobian_spectrum: {given!r} is not a place; give (layer, position).")
    return pair[0], pair[1]


def _position(clean: Clean, prompt: int, place: Place) -> int:
    (layer, position), layers, length = place, clean.model.config.n_layers, clean.lengths[prompt]
    if not 0 <= layer <= layers or not -length <= position < length:
        raise InterpError(
            f"jacobian_spectrum: {place} is not a place: layers are 0 to {layers}, and a prompt has {length} positions."
        )
    return clean.position(prompt, position, "jacobian_spectrum")


def _numbers(forward: Map, backward: Map, top: Singular, noise: Tensor) -> dict[str, Tensor]:
    rest = noise - (noise @ top.right.mT) @ top.right
    pushed = forward(rest)
    squares = top.values.pow(2).sum() + pushed.pow(2).sum(1).mean()
    fourths = top.values.pow(4).sum() + backward(pushed).pow(2).sum(1).mean()
    commutator = forward(backward(noise)) - backward(forward(noise))
    return {
        "frobenius": squares.sqrt(),
        "participation": squares**2 / fourths,
        "non_normality": commutator.pow(2).sum(1).mean().sqrt() / squares,
        "adjoint_error": _adjoint_error(forward, backward, noise),
    }


def _whole(linear: Linear, at: int, to: int, k: int | None) -> tuple[Singular, dict[str, Tensor]]:
    """Singular values and numbers of the block as a matrix."""
    if at == to and linear.run.model.config.causal:  # nothing comes back to a position that it has left
        matrix, precision = product(on_site_blocks(linear.run, at, linear.start, linear.stop)), torch.float64
    else:
        matrix, precision = linear.dense(at, to).double(), linear.stream.dtype
    u, values, vh = svd(matrix, "jacobian_spectrum: the derivative", whole=True)
    count, vectors = (len(values), min(VECTORS, len(values))) if k is None else (k, k)
    rows = basis(linear.run.model.config, matrix)
    residual = (matrix @ vh[:count].mT - u[:, :count] * values[:count]).norm(dim=0) / values[:count].clamp(
        min=RAREST * float(values[0])
    )
    residual = residual.maximum(torch.finfo(precision).eps * values[0] / values[:count])
    squares, fourths = values.pow(2).sum(), values.pow(4).sum()
    numbers = {
        "frobenius": squares.sqrt(),
        "participation": squares**2 / fourths,
        "non_normality": (matrix @ matrix.mT - matrix.mT @ matrix).norm() / squares,
    }
    return Singular(values[:count], u.mT[:vectors] @ rows, vh[:vectors] @ rows, residual), numbers


def _adjoint_error(forward: Map, backward: Map, noise: Tensor) -> Tensor:
    """|<u, J v> - <J^T u, v>| over |J v| |u|."""
    image, against = forward(noise[:1]), noise[-1:]
    difference = ((against * image).sum() - (backward(against) * noise[:1]).sum()).abs()
    error: Tensor = difference / (image.norm() * against.norm())
    return error
