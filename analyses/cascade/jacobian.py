"""The spectrum of the Jacobian from one place of the stream to another: how many directions grow, and by how much."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analyses.cascade.linear import Map, Singular, linearised, precise, top_singular
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.model import Transformer
from interp.prompts import Prompt
from interp.tokenizer import PAD

PROBES = 32

Place = tuple[int, int]
"""Layer, whose entering stream is meant (n_layers: the one that leaves the last), and position; negative positions count from the end."""


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
) -> xr.Dataset:
    """The largest singular values of J[(l,p) -> (l',p')], the derivative of the mean-centred stream at the target by that at the source.

    A singular value is the factor by which an infinitely small disturbance in its direction grows. The Frobenius norm and the sums
    over all singular values that the other numbers need are estimated by random probes of what the largest ones leave over.

    Args:
        source, target: (layer, position); default, from the embedding to the output at the last position.
        k: how many singular values; None is 10, or all but one of a narrower stream.
        probes: random vectors.

    Returns:
        A Dataset by prompt: `singular_value`, `residual` (singular) and `right_vector`, `left_vector` (singular, d_model); `frobenius`;
        `participation`, (sum s^2)^2 / sum s^4, the number of directions that share the growth; `non_normality`,
        |J J^T - J^T J| / |J|^2 in Frobenius norms, 0 where growth adds up from layer to layer as eigenvalues would tell;
        `adjoint_error`, |<u, J v> - <J^T u, v>| over |J v| |u|. With several prompts means with standard error and interval.

    Raises:
        InterpError: a place that is not there, a target below or before its source, or `k` out of range.
        ResultError: the iteration does not converge.
    """
    config = model.config
    target = (config.n_layers, -1) if target is None else target
    k = min(10, config.d_model - 1) if k is None else k
    if not 1 <= k < config.d_model:
        raise InterpError(f"jacobian_spectrum: k must be 1 to {config.d_model - 1}, got {k}.")
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    exact = precise(model)
    generator = torch.Generator().manual_seed(seed)
    found: list[Singular] = []
    numbers = []
    for row in tokens:
        prompt = row[row != PAD]
        at, to = (_position(place, len(prompt), config.n_layers) for place in (source, target))
        if not source[0] < target[0] or (config.causal and to < at):
            raise InterpError(
                f"jacobian_spectrum: nothing at {target} depends on {source}: the target must be at a higher layer and no earlier."
            )
        linear = linearised(exact, prompt, source[0], target[0])
        forward, backward = linear.on_site(at, to)
        top = top_singular(forward, backward, linear.stream[0], k, seed=seed)
        found.append(top)
        noise = torch.randn(probes, config.d_model, generator=generator, dtype=torch.float64).to(linear.stream)
        numbers.append(_numbers(forward, backward, top, noise))
    variables: dict[str, Variable] = {
        "singular_value": (("prompt", "singular"), torch.stack([one.values for one in found]), "singular value", "1"),
        "residual": (("prompt", "singular"), torch.stack([one.residual for one in found]), "relative residual", "1"),
        **{
            f"{side}_vector": (
                ("prompt", "singular", "d_model"),
                torch.stack([getattr(one, side) for one in found]),
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
            "singular": np.arange(k),
            **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
            **token_coords(model, tokens),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={"source": list(source), "target": list(target), "k": k, "probes": probes, "bos": bos},
        seed=seed,
    )


def _position(place: Place, length: int, n_layers: int) -> int:
    layer, position = place
    if not 0 <= layer <= n_layers or not -length <= position < length:
        raise InterpError(
            f"jacobian_spectrum: {place} is not a place: layers are 0 to {n_layers}, and a prompt has {length} positions."
        )
    return position % length


def _numbers(forward: Map, backward: Map, top: Singular, noise: Tensor) -> dict[str, Tensor]:
    rest = noise - (noise @ top.right.mT) @ top.right
    pushed = forward(rest)
    squares = top.values.pow(2).sum() + pushed.pow(2).sum(1).mean()
    fourths = top.values.pow(4).sum() + backward(pushed).pow(2).sum(1).mean()
    commutator = forward(backward(noise)) - backward(forward(noise))
    image = forward(noise[:1])
    against = noise[-1:]
    error = ((against * image).sum() - (backward(against) * noise[:1]).sum()).abs() / (image.norm() * against.norm())
    return {
        "frobenius": squares.sqrt(),
        "participation": squares**2 / fourths,
        "non_normality": commutator.pow(2).sum(1).mean().sqrt() / squares,
        "adjoint_error": error,
    }
