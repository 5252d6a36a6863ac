"""The light cone: how a disturbance spreads over positions as it goes up the layers."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analyses.cascade.directions import Directions
from analyses.cascade.injection import Injected, inject
from analyses.cascade.laws import LAWS, fit
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.whole_numbers import takes_whole


@takes_whole("layer", "n_directions", "seed", several=["positions"])
def light_cone(
    model: Transformer,
    prompts: Prompt,
    *,
    dose: float = 1e-2,
    layer: int = 0,
    directions: Directions = "isotropic",
    n_directions: int = 8,
    seed: int = 0,
    positions: Sequence[int] | None = None,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Where the energy of a disturbance is: C[l,p] = e[l,p] / E[layer], injected at one position, mean over directions.

    Arguments and controls are those of `gain`.

    Returns:
        A Dataset. `share` (prompt, injection, layer, position), C, NaN beyond a prompt's end; all else leaves out positions that are
        set apart (`analyses.set_apart`), E too: `off_site` (prompt, layer),
        1 - e[l,p0]/E[l], the fraction that has left its position, mean over injections that have a later position (where attention is
        bidirectional, another); `centroid` (prompt, layer), mean of p - p0 weighted by energy (tokens). `by_distance` (prompt, distance),
        mean over injections of e/E at the output at that distance, in a bidirectional model on either side; NaN where no injection of the
        prompt reaches so far. `log_likelihood` and `aic` (law) of a straight line through ln(mean share) against ln(distance), a power,
        and against the distance, an exponential, from distance 1 on, the mean being over the prompts that reach so far; `exponent` (power;
        positive falls off) and `length` (exponential, tokens). NaN with fewer than 4 distances. With several prompts `off_site` and
        `centroid` have means with intervals.

    Raises:
        As `gain`.
    """
    found = inject(
        model, prompts, dose=dose, layer=layer, directions=directions, n_directions=n_directions, seed=seed,
        positions=positions, bos=bos, max_bytes=max_bytes, progress=progress, who="cascade.light_cone",
    )  # fmt: skip
    return describe_cone(model, found, seed)


def describe_cone(model: Transformer, found: Injected, seed: int) -> xr.Dataset:
    """The result of `light_cone` from injections that are made already."""
    energy = found.counted_energies.mean(1).double()  # [place, layer, position]
    start = found.total[..., 0].mean(1).double()
    now = energy.nansum(-1)
    at = torch.arange(energy.shape[-1], device=energy.device)
    distance = at - found.places[:, 1, None]  # [place, position]
    on_site = found.on_site.mean(1).double()
    reach = distance if model.config.causal else distance.abs()
    can_leave = ~energy[:, 0].isnan() & (reach > 0)
    nan = torch.full_like(now, torch.nan)
    off_site = torch.where(can_leave.any(1, keepdim=True), 1 - on_site / now, nan)
    centroid = torch.where(can_leave.any(1, keepdim=True), (energy.nan_to_num() * distance[:, None]).sum(-1) / now, nan)
    per_prompt = {
        "off_site": (found.by_prompt(off_site).nanmean(1), "share that has left its position", "1"),
        "centroid": (found.by_prompt(centroid).nanmean(1), "mean distance from the injection", "tokens"),
    }
    by_distance = _by_distance(found, energy[:, -1] / now[:, -1:], reach)
    variables: dict[str, Variable] = {
        "share": (
            ("prompt", "injection", "layer", "position"),
            found.by_prompt(found.energies.mean(1).double() / start[:, None, None]),
            "energy over the injected energy",
            "1",
        ),
        "by_distance": (("prompt", "distance"), by_distance, "share of the energy at the output", "1"),
        **range_law(by_distance),
    }
    several = len(found.tokens) > 1
    for name, (values, long_name, units) in per_prompt.items():
        numbers = values.cpu().numpy()
        variables[name] = (("prompt", "layer"), numbers, long_name, units)
        if several:
            variables |= over_prompts(name, numbers, ("layer",), long_name, units)
    length = found.tokens.shape[1]
    return make(
        "light_cone",
        variables,
        {
            **token_coords(model, found.tokens),
            "injection": np.arange(found.first, length),
            "layer": np.arange(found.parameters["layer"], model.config.n_layers + 1),
            "position": np.arange(length),
            "distance": np.arange(by_distance.shape[1]),
            "law": list(LAWS),
            **({"bound": ["lower", "upper"]} if several else {}),
        },
        model=model,
        prompts={"prompt": found.tokens},
        parameters=found.parameters,
        seed=seed,
    )


def _by_distance(
    found: Injected, share: Float[torch.Tensor, "place position"], distance: torch.Tensor
) -> Float[np.ndarray, "prompt distance"]:
    """Mean over the injections of a prompt that have a position at that distance."""
    count = found.tokens.shape[1] - found.first
    result = np.full((len(found.tokens), count), np.nan)
    for prompt in range(len(found.tokens)):
        own = found.places[:, 0] == prompt
        for d in range(count):
            there = share[own][distance[own] == d]
            there = there[~there.isnan()]
            if len(there):
                result[prompt, d] = float(there.mean())
    return result


def range_law(by_distance: Float[np.ndarray, "prompt distance"]) -> dict[str, Variable]:
    """Both laws through the mean over prompts, from distance 1 on."""
    seen = np.isfinite(by_distance).any(0)
    found = fit(np.flatnonzero(seen).astype(float), np.nanmean(by_distance[:, seen], axis=0))
    return {
        "log_likelihood": (("law",), found.log_likelihood, "log-likelihood", "nats"),
        "aic": (("law",), found.aic, "Akaike's criterion, the smaller the better", "nats"),
        "exponent": ((), -found.slope[0], "exponent of the power law", "1"),
        "length": ((), -1 / found.slope[1], "decay length of the exponential law", "tokens"),
    }
