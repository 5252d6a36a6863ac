"""How much the layer norms damp a disturbance: the same runs with their scales held."""

import numpy as np
import xarray as xr

from analyses.cascade.directions import Directions
from analyses.cascade.injection import Injected, inject
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import ConfigError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.whole_numbers import takes_whole

WHO = "cascade.damping"


@takes_whole("layer", "n_directions", "seed")
def damping(
    model: Transformer,
    prompts: Prompt,
    *,
    dose: float = 1e-2,
    layer: int = 0,
    directions: Directions = "isotropic",
    n_directions: int = 8,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """D_LN = ln(G / G_frozen), where in G_frozen every norm of the blocks divides by what it divides by in the clean run.

    Negative: the norms damp, since a disturbance that lengthens the stream is divided by more. It assumes that nothing else is to be
    held; with large doses the frozen run leaves the range that the model knows.

    Arguments and controls are those of `gain`.

    Returns:
        A Dataset over prompt and layer: `log_damping`, D_LN, `log_gain` and `log_gain_frozen`, means over injections and directions, nats.
        With several prompts mean, standard error and interval of each.

    Raises:
        ConfigError: a model without norms. Else as `gain`.
    """
    if model.config.norm == "none":
        raise ConfigError(f"{WHO}: this model has no norms whose scale could be held.")
    free, held = (
        inject(
            model, prompts, dose=dose, layer=layer, directions=directions, n_directions=n_directions, seed=seed, bos=bos,
            max_bytes=max_bytes, progress=progress, who=WHO, frozen=frozen,
        )
        for frozen in (False, True)
    )  # fmt: skip
    return describe_damping(model, free, held, seed)


def describe_damping(model: Transformer, free: Injected, held: Injected, seed: int) -> xr.Dataset:
    """The result of `damping` from injections that are made already, with the scales free and held."""
    logs = {"log_gain": free.log_gain, "log_gain_frozen": held.log_gain}
    logs["log_damping"] = logs["log_gain"] - logs["log_gain_frozen"]
    described = {
        "log_gain": "mean ln G",
        "log_gain_frozen": "mean ln G with the norms' scales held",
        "log_damping": "ln of G over G with the norms' scales held",
    }
    variables: dict[str, Variable] = {}
    for name, long_name in described.items():
        variables[name] = (("prompt", "layer"), logs[name], long_name, "nats")
        if len(free.tokens) > 1:
            variables |= over_prompts(name, logs[name], ("layer",), long_name, "nats")
    return make(
        "cascade_damping",
        variables,
        {
            "layer": np.arange(free.parameters["layer"], model.config.n_layers + 1),
            **({"bound": ["lower", "upper"]} if len(free.tokens) > 1 else {}),
            **token_coords(model, free.tokens),
        },
        model=model,
        prompts={"prompt": free.tokens},
        parameters=free.parameters,
        seed=seed,
    )
