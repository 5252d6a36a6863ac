"""Gain: how a disturbance injected into the residual stream grows or shrinks, layer by layer."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.intervals import RESAMPLES, bootstrap_mean
from analyses.results import make, token_coords
from interp.errors import InterpError, ResultError
from interp.interventions import Add, Intervention, Row
from interp.model import Transformer
from interp.names import block_name
from interp.prompts import Prompt
from interp.readouts import EachLayer
from interp.streams import streams
from interp.sweep import MAX_BYTES, sweep
from interp.tokenizer import PAD

SMALLEST_DOSE = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Below this dose the difference of two runs is mostly rounding: float32 rounds 4e-7 to 6e-7 of |x| in each layer."""


LARGEST_ROUNDING = 0.02
"""Largest share of a disturbance that may be rounding between the run with it and the one without."""


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
        max_bytes: bound on the sweep's memory; see `interp.sweep`.
        progress: show a progress bar on standard error.

    Returns:
        A Dataset over prompt, injection (the position p0), direction, and layer (from `layer` to n_layers):
        `gain` G = sqrt(E[l]/E[layer]); `relative_gain` Gamma = (|delta[l,p0]| / |x[l,p0]|) / dose, on site;
        `rounding` (prompt, injection, layer), the share of the disturbance that the same run with dose 0 shows.
        Per prompt and layer: `log_gain`, `log_relative_gain` (mean natural logarithms over injections and directions), `rms_gain`,
        and `reproduction` k[l] = exp(mean ln sqrt(E[l+1]/E[l])), NaN at the last layer. `log_gain_interval`,
        `log_relative_gain_interval` and `log_reproduction_interval` (bound, layer): 95 % percentile bootstrap over
        prompts, NaN below 3 prompts. `doubling_depth` (prompt): ln 2 over the mean of ln k, layers; negative is a half-life.

    Raises:
        ResultError: the zero-dose control or causality is violated, or rounding is more than 2 % of a disturbance: the numbers
            cannot be trusted.
        InterpError: a dose, layer or number of directions out of range, a dtype too coarse, or a prompt of one token.
        TokenError: a prompt that the model cannot take.
    """
    _check_request(model, dose, layer, n_directions)
    tokens = model.to_tokens(prompts, bos=bos)
    if int((tokens != PAD).sum(1).min()) < 2:
        raise InterpError("cascade.gain: a prompt has one token; position 0 is left out, so at least two are needed.")
    real = tokens != PAD
    sizes = torch.stack([_centred(stream).norm(dim=-1) for stream in streams(model, tokens)[layer:]])
    places = real[:, 1:].nonzero() + torch.tensor([0, 1], device=tokens.device)  # [place, (prompt, position)]
    prompt, position = places.T
    if bool((sizes[0, prompt, position] == 0).any()):
        raise InterpError("cascade.gain: the stream is zero at a position, so a dose relative to it means nothing.")
    shape = (len(places), n_directions, model.config.d_model)
    directions = isotropic(shape, torch.Generator().manual_seed(seed)).to(sizes)
    deltas = dose * sizes[0, prompt, position, None, None] * directions
    energies = _inject(model, tokens, places, deltas, layer, max_bytes, progress)
    _check(energies, position, layer)
    depth = model.config.n_layers - layer + 1
    total, on_site, rounding = (
        torch.full((*tokens[:, 1:].shape, *rest), torch.nan, device=tokens.device, dtype=sizes.dtype)
        for rest in ((n_directions, depth), (n_directions, depth), (depth,))
    )
    moved = energies.nansum(-1)  # [place, row, layer]
    total[prompt, position - 1] = (moved[:, 2:] / moved[:, 2:, :1]).sqrt()
    at_site = energies[torch.arange(len(places)), 2:, :, position].sqrt()  # [place, direction, layer]
    on_site[prompt, position - 1] = at_site / sizes[:, prompt, position].T[:, None] / dose
    rounding[prompt, position - 1] = (moved[:, 1] / moved[:, 2:].mean(1)).sqrt()
    return _result(model, tokens, total, on_site, rounding, dose, layer, n_directions, seed, bos)


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


def isotropic(shape: tuple[int, int, int], generator: torch.Generator) -> Float[Tensor, "place direction d_model"]:
    """Isotropic unit vectors without a mean, which the layer norm would remove; drawn in float64 whatever the model's dtype."""
    return torch.nn.functional.normalize(_centred(torch.randn(shape, generator=generator, dtype=torch.float64)), dim=-1)


def _inject(
    model: Transformer,
    tokens: Int[Tensor, "prompt position"],
    places: Int[Tensor, "place 2"],
    deltas: Float[Tensor, "place direction d_model"],
    layer: int,
    max_bytes: int,
    progress: bool,
) -> Float[Tensor, "place row layer position"]:
    """The energies of the change of each row; at each place two controls of zero dose (skipped, computed), then the directions."""
    name, zero = block_name(layer, "hook_resid_pre"), deltas.new_zeros(model.config.d_model)
    rows = []
    for (prompt, position), there in zip(places.tolist(), deltas, strict=True):
        for number, delta in enumerate([zero, zero, *there]):
            rows.append(Row([Intervention(name, Add(delta), positions=position)], prompt, always=number == 1))
    swept = sweep(
        model, tokens, rows, EachLayer(_energy), max_bytes=max_bytes, progress="injecting" if progress else None
    )
    return swept.values.reshape(len(places), -1, *swept.values.shape[1:])[:, :, layer:]


def _energy(stream: Float[Tensor, "place d_model"], base: Float[Tensor, "place d_model"]) -> Float[Tensor, " place"]:
    return _centred(stream - base).pow(2).sum(-1)


def _check(energies: Float[Tensor, "place row layer position"], position: Int[Tensor, " place"], layer: int) -> None:
    """The controls of one run: causality, zero dose, and a disturbance well above rounding."""
    skipped, computed, total = energies[:, 0], energies[:, 1].nansum(-1), energies[:, 2:].nansum(-1)
    before = torch.arange(energies.shape[-1], device=position.device) < position[:, None]
    if bool(energies.nan_to_num().amax((1, 2))[before].any()):
        raise ResultError(
            "cascade.gain: the disturbance reached a position before the injection: causality is violated."
        )
    if bool(skipped.nan_to_num().any()):
        raise ResultError("cascade.gain: the zero-dose control moved; the model is not deterministic here.")
    vanished = (total == 0).nonzero()
    if len(vanished):
        raise ResultError(
            f"cascade.gain: the disturbance is exactly zero at layer {layer + int(vanished[0, 2])}, so its "
            "logarithm does not exist. Raise the dose."
        )
    share = (computed[:, None] / total).sqrt()
    if float(share.max()) > LARGEST_ROUNDING:
        raise ResultError(
            f"cascade.gain: the zero-dose control, computed again, moved by {float(share.max()):.2g} of the disturbance. Raise the dose "
            "or load the model in float64; if that does not help, the model is not deterministic or not causal."
        )


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def _result(
    model: Transformer,
    tokens: Tensor,
    total: Tensor,
    on_site: Tensor,
    rounding: Tensor,
    dose: float,
    layer: int,
    n_directions: int,
    seed: int,
    bos: bool | None,
) -> xr.Dataset:
    nested = (1, 2)
    total, on_site = total.cpu().float(), on_site.cpu().float()
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
            "rounding": (
                ("prompt", "injection", "layer"),
                rounding.cpu().float(),
                "share of the disturbance that is rounding",
                "1",
            ),
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
