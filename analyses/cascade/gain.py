"""Gain: how a disturbance injected into the residual stream grows or shrinks, layer by layer."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analyses.cascade.directions import Directions
from analyses.cascade.injection import Injected, inject
from analyses.cascade.laws import LAWS, fit
from analyses.intervals import RESAMPLES, bootstrap_mean
from analyses.results import make, token_coords
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.whole_numbers import takes_whole


@takes_whole("layer", "n_directions", "seed", several=["positions"])
def gain(
    model: Transformer,
    prompts: Prompt,
    *,
    dose: float | None = 1e-2,
    layer: int = 0,
    directions: Directions = "isotropic",
    n_directions: int = 8,
    seed: int = 0,
    positions: Sequence[int] | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Inject a small disturbance into the stream at one position and follow its size up through the layers.

    With `x[l,p]` the stream entering block l as its readers see it (without its mean over the width where layer norms take that away, see
    `interp.geometry`) and `delta` its change, `E[l] = sum_p |delta[l,p]|^2`. The injected delta has a random direction and the size
    `dose * |x[layer,p0]|`. Every position is injected by itself, each with `n_directions` directions. Positions that are set apart, where
    BOS stands or the stream is massive (`analyses.set_apart`), are neither injected at nor counted in E.

    Args:
        prompts: a text, several texts, or token ids. The prompt is the unit of replication.
        dose: size of the injection relative to the stream; at least 1e-4 in float32. None is infinitely small: derivatives in forward
            mode, many at once, without rounding to compare with and with `rounding` 0.
        layer: where to inject.
        directions: what they are drawn from: `isotropic`, `covariance`, `token`, `activation`, `unembedding` or `singular`, see
            `analyses.cascade.directions`; or vectors of one's own [direction, d_model].
        n_directions: at each position; of one's own vectors, all are taken.
        seed: of the directions.
        positions: inject at these only, counted from the end where negative; None is every one that is not set apart.
        bos: see `Transformer.to_tokens`.
        max_bytes: bound on the sweep's memory; see `interp.sweep`.
        progress: show a progress bar on standard error.

    Returns:
        A Dataset over prompt, injection (the position p0, from the first that is injected at), direction, and layer (from `layer` on):
        `gain` G = sqrt(E[l]/E[layer]); `relative_gain` Gamma = (|delta[l,p0]| / |x[l,p0]|) / dose, on site; `whole_relative_gain`,
        sqrt(sum_p (|delta[l,p]| / |x[l,p]|)^2) / dose, Gamma over all positions, each against the stream there. By prompt, injection and
        layer: `stream_growth`, |x[l,p0]| / |x[layer,p0]|; `rounding`, the share of the disturbance that the same run with dose 0 shows.
        Per prompt and layer: `log_gain`, `log_relative_gain`, `log_whole_relative_gain` (mean natural logarithms over injections and
        directions), `rms_gain`, `reproduction` k[l] = exp(mean ln sqrt(E[l+1]/E[l])) and `relative_reproduction` k_rel, k divided by
        |x[l+1,p0]| / |x[l,p0]|, NaN at the last layer: its product is G over the stream's growth, and not Gamma, whose disturbance is
        that on site; nor the k_rel of `ledger`, whose stream is that of all positions. `log_gain_interval`, `log_relative_gain_interval`,
        `log_whole_relative_gain_interval` and `log_reproduction_interval` (bound, layer): 95 % bootstrap over prompts (see
        `analyses.intervals`), NaN below 6 prompts. `doubling_depth`: ln 2 over the mean of ln k over layers and prompts; negative is a
        half-life; infinite where the interval over prompts covers ln k = 0, or rounding does; below 6 prompts
        there is no interval to ask. `growth_aic` (law) of a power and an exponential of depth through the mean of ln G from one layer above
        the injection on, `growth_exponent` and `growth_rate` (nats per layer) of each: at random initialisation growth is a power (Yang and
        Schoenholz 2017). NaN with fewer than 4 layers.

    Raises:
        ResultError: the zero-dose control or causality is violated, or rounding is more than 2 % of a disturbance: the numbers
            cannot be trusted.
        InterpError: a dose, layer or number of directions out of range, a dtype too coarse, or a prompt of which nothing is left.
        TokenError: a prompt that the model cannot take.
    """
    found = inject(
        model, prompts, dose=dose, layer=layer, directions=directions, n_directions=n_directions, seed=seed,
        positions=positions, bos=bos, max_bytes=max_bytes, progress=progress, who="cascade.gain",
    )  # fmt: skip
    return describe_gain(model, found, seed)


def describe_gain(model: Transformer, found: Injected, seed: int) -> xr.Dataset:
    """The result of `gain` from injections that are made already."""
    dose = found.parameters["dose"]
    prompt, position = found.places.T
    total = (found.total / found.total[..., :1]).sqrt()
    whole = found.relative_total.sqrt() / (1.0 if dose is None else dose)
    on_site = found.on_site.sqrt() / found.sizes[:, prompt, position].T[:, None] / (1.0 if dose is None else dose)
    rounding = (found.rounding / found.total.mean(1)).sqrt()
    growth = (found.sizes[:, prompt, position] / found.sizes[0, prompt, position]).T
    tokens = found.tokens
    total, on_site, whole, rounding, growth = (
        found.by_prompt(values).cpu() for values in (total, on_site, whole, rounding, growth)
    )
    nested = (1, 2)
    log_total, log_site, log_whole = (values.double().log() for values in (total, on_site, whole))
    log_k = torch.full_like(log_total, torch.nan)
    log_k[..., :-1] = log_total.diff(dim=-1)
    log_relative_k = log_k.nanmean(nested).clone()
    log_relative_k[:, :-1] -= growth.double().log().diff(dim=-1).nanmean(1)
    means = {
        name: values.nanmean(nested)
        for name, values in (
            ("log_gain", log_total),
            ("log_relative_gain", log_site),
            ("log_whole_relative_gain", log_whole),
            ("log_reproduction", log_k),
        )
    }
    intervals = {f"{name}_interval": bootstrap_mean(values.numpy()) for name, values in means.items()}
    by_layer, each, bounds = ("prompt", "layer"), ("prompt", "injection", "direction", "layer"), ("bound", "layer")
    depth = np.arange(total.shape[-1], dtype=float)
    laws = fit(depth, means["log_gain"].mean(0).exp().numpy())
    slack = (total.shape[-1] - 1) * float(torch.finfo(model.dtype).eps) / (1.0 if dose is None else dose)
    doubling = doubling_depth(means["log_gain"][:, -1].numpy(), total.shape[-1] - 1, slack)
    return make(
        "cascade_gain",
        {
            "gain": (each, total, "gain G", "1"),
            "relative_gain": (each, on_site, "relative on-site gain Gamma", "1"),
            "rounding": (
                ("prompt", "injection", "layer"),
                rounding,
                "share of the disturbance that is rounding",
                "1",
            ),
            "whole_relative_gain": (each, whole, "relative gain Gamma over all positions", "1"),
            "log_gain": (by_layer, means["log_gain"], "mean ln G", "nats"),
            "log_relative_gain": (by_layer, means["log_relative_gain"], "mean ln Gamma, on site", "nats"),
            "log_whole_relative_gain": (
                by_layer,
                means["log_whole_relative_gain"],
                "mean ln Gamma over all positions",
                "nats",
            ),
            "rms_gain": (by_layer, total.double().pow(2).nanmean(nested).sqrt(), "root mean square of G", "1"),
            "reproduction": (by_layer, means["log_reproduction"].exp(), "depth reproduction number k", "1"),
            **{
                name: (bounds, values, f"95 % interval over prompts of {name.removesuffix('_interval')}", "nats")
                for name, values in intervals.items()
            },
            "relative_reproduction": (
                by_layer,
                log_relative_k.exp(),
                "k_rel: k of the whole disturbance over the growth of the stream where it was injected",
                "1",
            ),
            "stream_growth": (("prompt", "injection", "layer"), growth, "growth of the stream", "1"),
            "growth_aic": (("law",), laws.aic, "Akaike's criterion, the smaller the better", "nats"),
            "growth_exponent": ((), laws.slope[0], "exponent of growth as a power of depth", "1"),
            "growth_rate": ((), laws.slope[1], "rate of growth as an exponential of depth", "nats per layer"),
            "doubling_depth": ((), doubling, "depth over which the disturbance doubles", "layers"),
        },
        {
            **token_coords(model, tokens[:, found.first :], "injection"),
            "injection": np.arange(found.first, tokens.shape[1]),
            "direction": np.arange(total.shape[2]),
            "layer": np.arange(found.parameters["layer"], model.config.n_layers + 1),
            "bound": ["lower", "upper"],
            "law": list(LAWS),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={**found.parameters, "resamples": RESAMPLES},
        seed=seed,
    )


def doubling_depth(log_gain: Float[np.ndarray, " prompt"], depth: int, slack: float = 0.0) -> float:
    """ln 2 over ln k, of each prompt's ln G over so many layers; infinite where growth is not told from none.

    Args:
        slack: how far from 0 rounding brings a ln G.
    """
    low, high = bootstrap_mean(log_gain)
    mean = float(log_gain.mean())
    if abs(mean) <= slack or low <= 0 <= high:
        return float("inf")
    return float(np.log(2)) / (mean / depth)
