"""Gain: how a disturbance injected into the residual stream grows or shrinks, layer by layer."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import track
from torch import Tensor

from analyses.intervals import RESAMPLES, bootstrap_mean
from analyses.results import make, token_coords
from interp.errors import InterpError, ResultError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.streams import MAX_BYTES, chunks, streams, streams_from
from interp.tokenizer import PAD

SMALLEST_DOSE = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Below this dose the difference of two runs is mostly rounding: float32 rounds 4e-7 to 6e-7 of |x| in each layer."""


@torch.no_grad()
def gain(
    model: Transformer,
    prompts: Prompt,
    *,
    dose: float = 1e-2,
    layer: int = 0,
    n_directions: int = 8,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Inject a small disturbance into the stream at one position and follow its size up through the layers.

    With `x[l,p]` the mean-centred stream entering block l and `delta` its change, `E[l] = sum_p |delta[l,p]|^2`. The injected
    delta has an isotropic random direction and the size `dose * |x[layer,p0]|`. Every position but 0 is injected by itself (position 0
    carries massive activations, and is left out as source); each with `n_directions` directions.

    Args:
        prompts: a text, several texts, or token ids. The prompt is the unit of replication.
        dose: size of the injection relative to the stream; at least 1e-4 in float32.
        layer: where to inject.
        n_directions: random directions at each position.
        seed: of the directions.
        bos: see `Transformer.to_tokens`.
        max_bytes: bound on the widest activation of a chunk of rows.
        progress: show a progress bar on standard error.

    Returns:
        A Dataset over prompt, injection (the position p0), direction, and layer (from `layer` to n_layers):
        `gain` G = sqrt(E[l]/E[layer]); `relative_gain` Gamma = (|delta[l,p0]| / |x[l,p0]|) / dose, on site.
        Per prompt and layer: `log_gain`, `log_relative_gain` (mean natural logarithms over injections and directions), `rms_gain`,
        and `reproduction` k[l] = exp(mean ln sqrt(E[l+1]/E[l])), NaN at the last layer. `log_gain_interval`,
        `log_relative_gain_interval` and `log_reproduction_interval` (bound, layer): 95 % percentile bootstrap over
        prompts, NaN below 3 prompts. `doubling_depth` (prompt): ln 2 over the mean of ln k, layers; negative is a half-life.

    Raises:
        ResultError: the zero-dose control or causality is violated, which means that the numbers cannot be trusted.
        InterpError: a dose, layer or number of directions out of range, a dtype too coarse, or a prompt of one token.
        TokenError: a prompt that the model cannot take.
    """
    _check_request(model, dose, layer, n_directions)
    tokens = model.to_tokens(prompts, bos=bos)
    if int((tokens != PAD).sum(1).min()) < 2:
        raise InterpError("cascade.gain: a prompt has one token; position 0 is left out, so at least two are needed.")
    count, positions = tokens.shape
    depth = model.config.n_layers - layer + 1
    total, on_site = (torch.full((count, positions - 1, n_directions, depth), torch.nan) for _ in range(2))
    generator = torch.Generator().manual_seed(seed)
    for number in track(range(count), "injecting", console=Console(stderr=True), disable=not progress):
        row = tokens[number][tokens[number] != PAD]
        directions = _directions((len(row) - 1, n_directions, model.config.d_model), generator)
        measured = _follow(model, row, directions, dose, layer, max_bytes)
        total[number, : len(row) - 1], on_site[number, : len(row) - 1] = measured
    return _result(model, tokens, total, on_site, dose, layer, n_directions, seed, bos)


def _check_request(model: Transformer, dose: float, layer: int, n_directions: int) -> None:
    if model.dtype not in SMALLEST_DOSE:
        raise InterpError(
            f"cascade.gain: {model.dtype} is too coarse to measure small differences; load in float32 or float64."
        )
    smallest = SMALLEST_DOSE[model.dtype]
    if not smallest <= dose < float("inf"):
        raise InterpError(
            f"cascade.gain: dose {dose:g} is out of range; in {model.dtype} it must be at least {smallest:g}, below which rounding "
            "drowns the difference. Load the model in float64 for smaller doses."
        )
    if not 0 <= layer < model.config.n_layers:
        raise InterpError(
            f"cascade.gain: layer {layer} is out of range; {model.name} has layers 0 to {model.config.n_layers - 1}."
        )
    if n_directions < 1:
        raise InterpError(f"cascade.gain: n_directions must be at least 1, got {n_directions}.")


def _directions(
    shape: tuple[int, int, int], generator: torch.Generator
) -> Float[Tensor, "injection direction d_model"]:
    """Isotropic unit vectors without a mean, which the layer norm would remove; drawn in float64 whatever the model's dtype."""
    return torch.nn.functional.normalize(_centred(torch.randn(shape, generator=generator, dtype=torch.float64)), dim=-1)


def _follow(
    model: Transformer,
    tokens: Int[Tensor, " position"],
    directions: Float[Tensor, "injection direction d_model"],
    dose: float,
    layer: int,
    max_bytes: int,
) -> tuple[Float[Tensor, "injection direction layer"], Float[Tensor, "injection direction layer"]]:
    """G and Gamma of one prompt. Clean and disturbed runs share the batch shape, so that equal inputs give equal bits."""
    base = streams(model, tokens[None])[layer][0]
    injections, n_directions, d_model = directions.shape
    rows = directions.reshape(-1, d_model).to(device=base.device, dtype=base.dtype)
    sites = torch.arange(1, len(tokens), device=base.device).repeat_interleave(n_directions)
    size = dose * _centred(base).norm(dim=-1)[sites]
    if bool((size == 0).any()):
        raise InterpError("cascade.gain: the stream is zero at a position, so a dose relative to it means nothing.")
    gains = []
    for number, chunk in enumerate(chunks(model, len(rows), len(tokens), max_bytes)):
        site, delta = sites[chunk], size[chunk, None] * rows[chunk]
        clean = _run(model, base, site, torch.zeros_like(delta), layer)
        if number == 0:
            _check_control(_run(model, base, site, -torch.zeros_like(delta), layer), clean)
        gains.append(_measure(_run(model, base, site, delta, layer), clean, site, dose, layer))
    total, on_site = (
        torch.cat(parts).reshape(injections, n_directions, -1).cpu().float() for parts in zip(*gains, strict=True)
    )
    return total, on_site


def _run(
    model: Transformer,
    base: Float[Tensor, "position d_model"],
    site: Int[Tensor, " row"],
    delta: Float[Tensor, "row d_model"],
    layer: int,
) -> Float[Tensor, "row layer position d_model"]:
    """The mean-centred stream entering every block from `layer` on, and leaving the last, with delta[i] added at site[i]."""
    start = base.repeat(len(site), 1, 1)
    start[torch.arange(len(site), device=base.device), site] += delta
    return torch.stack([_centred(stream) for stream in streams_from(model, start, layer)], dim=1)


def _measure(
    disturbed: Tensor, clean: Tensor, site: Int[Tensor, " row"], dose: float, layer: int
) -> tuple[Tensor, Tensor]:
    delta = disturbed - clean
    energy = delta.pow(2).sum(-1)  # [row, layer, position]
    before = torch.arange(energy.shape[-1], device=site.device) < site[:, None]
    if bool(energy.masked_select(before[:, None]).any()):
        raise ResultError(
            "cascade.gain: the disturbance reached a position before the injection: causality is violated."
        )
    total = energy.sum(-1)
    vanished = (total == 0).nonzero()
    if len(vanished):
        raise ResultError(
            f"cascade.gain: the disturbance is exactly zero at layer {layer + int(vanished[0, 1])}, so its "
            "logarithm does not exist. Raise the dose."
        )
    row = torch.arange(len(site), device=site.device)
    relative = energy[row, :, site].sqrt() / clean[row, :, site].norm(dim=-1) / dose
    return (total / total[:, :1]).sqrt(), relative


def _check_control(again: Tensor, clean: Tensor) -> None:
    if not torch.equal(again, clean):
        worst = float((again - clean).abs().max())
        raise ResultError(
            f"cascade.gain: the zero-dose control moved by {worst:.3g} instead of 0; the model is not deterministic here."
        )


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def _result(
    model: Transformer,
    tokens: Tensor,
    total: Tensor,
    on_site: Tensor,
    dose: float,
    layer: int,
    n_directions: int,
    seed: int,
    bos: bool | None,
) -> xr.Dataset:
    nested = (1, 2)
    log_total, log_site = total.double().log(), on_site.double().log()
    log_k = torch.full_like(log_total, torch.nan)
    log_k[..., :-1] = log_total.diff(dim=-1)
    means = {
        name: values.nanmean(nested)
        for name, values in (("log_gain", log_total), ("log_relative_gain", log_site), ("log_reproduction", log_k))
    }
    intervals = {f"{name}_interval": bootstrap_mean(values.numpy()) for name, values in means.items()}
    by_layer, each, bounds = ("prompt", "layer"), ("prompt", "injection", "direction", "layer"), ("bound", "layer")
    doubling = np.log(2) / (means["log_gain"][:, -1] / (total.shape[-1] - 1))
    return make(
        "cascade_gain",
        {
            "gain": (each, total, "gain G", "1"),
            "relative_gain": (each, on_site, "relative on-site gain Gamma", "1"),
            "log_gain": (by_layer, means["log_gain"], "mean ln G", "nats"),
            "log_relative_gain": (by_layer, means["log_relative_gain"], "mean ln Gamma", "nats"),
            "rms_gain": (by_layer, total.double().pow(2).nanmean(nested).sqrt(), "root mean square of G", "1"),
            "reproduction": (by_layer, means["log_reproduction"].exp(), "depth reproduction number k", "1"),
            **{
                name: (bounds, values, f"95 % interval over prompts of {name.removesuffix('_interval')}", "nats")
                for name, values in intervals.items()
            },
            "doubling_depth": (("prompt",), doubling, "depth over which the disturbance doubles", "layers"),
        },
        {
            **token_coords(model, tokens[:, 1:], "injection"),
            "injection": np.arange(1, tokens.shape[1]),
            "direction": np.arange(n_directions),
            "layer": np.arange(layer, model.config.n_layers + 1),
            "bound": ["lower", "upper"],
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={
            "dose": dose,
            "layer": layer,
            "n_directions": n_directions,
            "direction": "isotropic",
            "resamples": RESAMPLES,
            "bos": bos,
        },
        seed=seed,
    )
