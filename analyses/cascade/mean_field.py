"""What mean-field theory says of a random-init pre-LN transformer: the null against which a trained model's gain stands.

After Yang and Schoenholz 2017 (arXiv 1712.08969) and Cowsik et al. 2024 (arXiv 2403.02579), for GPT-2's initialisation: weights
N(0, s^2), projections into the stream N(0, s_o^2), layer norms with gain 1, hidden width d_mlp.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analyses.cascade.entering import Clean
from analyses.results import Variable, make, token_coords
from interp.config import ModelConfig
from interp.errors import ConfigError
from interp.generation import left_aligned
from interp.geometry import seen
from interp.model import ACTIVATIONS, Transformer
from interp.modes import recording
from interp.prompts import Prompt

NODES = 20001
"""Points of the rule for means over a normal variable, from -10 to 10."""

POWERS = 24
"""Powers of the cosine in an MLP's kernel."""

COVERED = {
    "causal": True, "norm": "layernorm", "norm_placement": "pre", "mlp": "plain", "parallel": False, "window": None,
    "qk_norm": "none", "score_cap": None,
}  # fmt: skip
"""What a shape must have for the theory to hold."""


def mean_field(model: Transformer, prompts: Prompt, *, bos: bool | None = None) -> xr.Dataset:
    """The predicted gain of a small isotropic disturbance in the shape of this model at random initialisation.

    Only the shape and `init_std` count, besides the embedded stream of the prompts, whose mean squares and cosines the theory begins from.
    Positions are not taken by themselves: what attention moves to several positions is the same there, and comes together again above,
    so the covariance of the disturbance at every two positions is carried up, and that of the stream.

    Returns:
        A Dataset. `gain` and `relative_gain` (prompt, injection, layer), as in `gain`, predicted for an injection at layer 0; per prompt
        and layer `log_gain`, `log_relative_gain`, means over injections; `mean_square` (prompt, layer) of the stream.
        `kappa`, `v` and `chi`: what attention adds to the stream's mean square, what the MLP adds, and by how much it amplifies.

    Raises:
        ConfigError: a shape that the theory is not worked out for here: attention must be causal, even over all tokens before it at random
            initialisation (no ALiBi, no window), with scores as they are (no other scale, cap or norm) and as many key heads as heads; the
            norms layer norms, before the parts; the MLP plain, and after attention.
    """
    config = model.config
    _check_covered(config)
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    clean = Clean.of(model, tokens)
    clean.check_some_are_left("mean_field")
    kept = clean.kept.cpu().numpy()
    begin = int(kept.any(0).argmax())
    embedded = seen(config, clean.entering[0]).double().cpu()
    of = constants(model)
    shape = (*tokens.shape, config.n_layers + 1)
    gain, relative = np.full(shape, np.nan), np.full(shape, np.nan)
    squares = np.full((len(tokens), config.n_layers + 1), np.nan)
    for number, length in enumerate(clean.lengths):
        own, there = embedded[number, :length], kept[number, :length]
        found = _predicted((own @ own.mT / config.d_model).numpy(), config.n_layers, of)
        gain[number, :length][there], relative[number, :length][there] = (values[there] for values in found[:2])
        squares[number] = found[2][there].mean(0)
    gain, relative = gain[:, begin:], relative[:, begin:]
    variables: dict[str, Variable] = {
        "gain": (("prompt", "injection", "layer"), gain, "predicted gain G", "1"),
        "relative_gain": (("prompt", "injection", "layer"), relative, "predicted relative on-site gain Gamma", "1"),
        "log_gain": (("prompt", "layer"), np.nanmean(np.log(gain), axis=1), "predicted mean ln G", "nats"),
        "log_relative_gain": (
            ("prompt", "layer"),
            np.nanmean(np.log(relative), axis=1),
            "predicted mean ln Gamma",
            "nats",
        ),
        "mean_square": (("prompt", "layer"), squares, "predicted mean square of the stream", "1"),
        "kappa": ((), of.kappa, "what attention adds to the mean square, of a token by itself", "1"),
        "v": ((), of.v, "what the MLP adds to the mean square", "1"),
        "chi": ((), of.chi, "by how much the MLP amplifies", "1"),
    }
    return make(
        "mean_field",
        variables,
        {
            **token_coords(model, tokens[:, begin:], "injection"),
            "injection": np.arange(begin, tokens.shape[1]),
            "layer": np.arange(config.n_layers + 1),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={"bos": bos, "set_apart": clean.apart.about()},
    )


def _check_covered(config: ModelConfig) -> None:
    wrong = {name: getattr(config, name) for name, value in COVERED.items() if getattr(config, name) != value}
    if config.positions == "alibi":  # looks at near tokens more
        wrong["positions"] = config.positions
    if config.kv_heads != config.n_heads:
        wrong["n_kv_heads"] = config.kv_heads
    if not math.isclose(config.score_scale, 1 / math.sqrt(config.d_head)):
        wrong["attn_scale"] = config.attn_scale
    if wrong:
        said = ", ".join(f"{name} = {value!r}" for name, value in wrong.items())
        raise ConfigError(
            f"mean_field: the theory is not worked out for {said}. Compare with a measured random_twin instead."
        )


@dataclass(frozen=True)
class Constants:
    """What a layer of that shape adds at random initialisation.

    Args:
        kappa: mean square that attention adds to a token by itself.
        rho: (d_model s^2)^2, mean square of the scores of two normed tokens.
        kernel: of the MLP: coefficients of powers of the cosine of two tokens, which sum to v.
        slopes: the same of its derivative, which sum to chi.
    """

    kappa: float
    rho: float
    kernel: Float[np.ndarray, " power"]
    slopes: Float[np.ndarray, " power"]

    @property
    def v(self) -> float:
        """Mean square that the MLP adds."""
        return float(self.kernel.sum())

    @property
    def chi(self) -> float:
        """By how much the MLP amplifies a disturbance of a normed token."""
        return float(self.slopes.sum())


def constants(model: Transformer) -> Constants:
    """From the shape alone."""
    config = model.config
    d, heads, s2 = config.d_model, config.n_heads * config.d_head, config.init_std**2
    into = s2 / (2 * config.n_layers)
    z = torch.linspace(-10, 10, NODES, dtype=torch.float64)
    with recording("mean_field"):
        x = (math.sqrt(d * s2) * z).requires_grad_(True)
        y = ACTIVATIONS[config.activation](x)
        (slope,) = torch.autograd.grad(y.sum(), x)
    kernel, slopes = (_powers(values.detach().numpy(), z.numpy()) for values in (y, slope))
    return Constants(
        heads * d * s2 * into, (d * s2) ** 2, config.d_mlp * into * kernel, config.d_mlp * into * d * s2 * slopes
    )


def _powers(values: Float[np.ndarray, " node"], z: Float[np.ndarray, " node"]) -> Float[np.ndarray, " power"]:
    """a_k with E[f(x) f(y)] = sum_k a_k c^k for standard normal x, y of correlation c (Mehler's formula).

    The last coefficient takes what is left of E[f^2], so that c = 1 is exact.
    """
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    before, now, found = np.zeros_like(z), np.ones_like(z), []
    for k in range(POWERS):
        found.append(float((density * values * now).sum()) ** 2)
        before, now = now, (z * now - math.sqrt(k) * before) / math.sqrt(k + 1)  # Hermite polynomials of unit norm
    found.append(max(0.0, float((density * values**2).sum()) - sum(found)))
    return np.array(found)


def _of_cosine(powers: Float[np.ndarray, " power"], cosine: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    summed: np.ndarray = np.polynomial.polynomial.polyval(np.clip(cosine, -1, 1), powers)
    return summed


def _predicted(
    covariance: Float[np.ndarray, "position other"], n_layers: int, of: Constants
) -> tuple[
    Float[np.ndarray, "position layer"], Float[np.ndarray, "position layer"], Float[np.ndarray, "position layer"]
]:
    """Step by step up, each attention, then each MLP: the covariance of the stream at every two positions, and of a disturbance injected
    at each; the gains of each, and the mean square of the stream. Attention of random weights is even over the tokens seen."""
    length = len(covariance)
    n = np.arange(1, length + 1, dtype=float)
    even = np.tril(np.ones((length, length))) / n[:, None]
    diagonal = np.arange(length)
    moved = np.zeros((length, length, length))  # [injection, position, other]
    moved[diagonal, diagonal, diagonal] = 1
    streams, energies = [covariance[diagonal, diagonal]], [moved[:, diagonal, diagonal]]
    for _ in range(n_layers):
        root = np.sqrt(covariance[diagonal, diagonal])
        normed = moved / (root[:, None] * root)
        own = normed[:, diagonal, diagonal]
        # Where it looks changes too: its own scores with all, and those of all with it.
        looks = np.cumsum(own, axis=1) - own + own * (n - 1)
        moved = moved + of.kappa * (even @ normed @ even.T)
        moved[:, diagonal, diagonal] += of.kappa * of.rho * looks / n**2
        covariance = covariance + of.kappa * (even @ (covariance / (root[:, None] * root)) @ even.T)
        root = np.sqrt(covariance[diagonal, diagonal])
        scale = root[:, None] * root
        moved = moved * (1 + _of_cosine(of.slopes, covariance / scale) / scale)
        covariance = covariance + _of_cosine(of.kernel, covariance / scale)
        streams.append(covariance[diagonal, diagonal])
        energies.append(moved[:, diagonal, diagonal])
    every, stream = (
        np.stack(energies, axis=-1),
        np.stack(streams, axis=-1),
    )  # [injection, position, layer], [position, layer]
    on_site = np.sqrt(every[diagonal, diagonal])
    return np.sqrt(every.sum(1)), on_site / np.sqrt(stream / stream[:, :1]), stream
