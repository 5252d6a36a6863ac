"""The cascade as one picture: where two runs differ, inside at every layer and outside through the text that each goes on to write."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.cascade.coupled import Coupled, couple
from analyses.cascade.disturbances import Disturbance, disturbance_of
from analyses.cascade.twin import random_twin
from analyses.results import Variable, make, token_strings
from interp.errors import InterpError
from interp.geometry import seen
from interp.model import Transformer
from interp.prompts import Prompt
from interp.streams import streams
from interp.tokenizer import PAD
from interp.whole_numbers import takes_whole

WHO = "cascade.wavefront"


@takes_whole("steps", "seed", least={"steps": 1})
def wavefront(
    model: Transformer,
    prompt: Prompt,
    disturbance: Disturbance | None = None,
    *,
    steps: int = 16,
    temperature: float = 1.0,
    seed: int = 0,
    twin: bool = True,
    bos: bool | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """One prompt, as it is and disturbed, both continued on the same noise (`coupled`): how far the two streams are apart everywhere.

    At each layer and position d = |x' - x| / sqrt((|x|^2 + |x'|^2) / 2), of what readers see of the streams (`interp.geometry`): 0 where
    nothing has come, sqrt 2 where the streams have nothing to do with each other, 2 at most. In the prompt a disturbance goes up the
    layers and on to later positions by attention; in the text that follows also by the tokens that were drawn differently.

    Args:
        prompt: one text, or ids. As one draw is shown, `seed` chooses which.
        disturbance: as for `coupled`, of equal length; None swaps the last token for the most probable other.
        steps: tokens to generate.
        temperature: of sampling; 0 is greedy.
        twin: beside it, the same of the model at random initialisation, which continues the prompt by a text of its own.

    Returns:
        A Dataset over weights (`trained`, `random`), layer (the stream that enters it; the last is the output) and position: `distance`
        (weights, layer, position), d; `h` (weights, position), the probability that the draws of the token there differ, NaN in the
        prompt; `token`, `token_id` of the clean text and `other_token`, `other_token_id` of the disturbed (weights, position).
        `generated` (position), 1 where the token was drawn.

    Raises:
        InterpError: several prompts, or a disturbed one of another length. Else as `coupled`.
    """
    disturbance = disturbance_of(disturbance, WHO)
    options: dict[str, Any] = {"steps": steps, "temperature": temperature, "seed": seed, "bos": bos}
    models = [model, random_twin(model)] if twin else [model]
    found = [_followed(one, prompt, disturbance, options, progress) for one in models]
    run = found[0].run
    start = run.clean.shape[1]
    each = ("weights", "position")
    texts = [torch.stack([one.texts[stream] for one in found]).cpu().numpy() for stream in (0, 1)]
    h = np.full((len(found), start + steps), np.nan)
    h[:, start:] = [one.run.h[0, 0] for one in found]
    distance = np.stack([one.distance for one in found])
    variables: dict[str, Variable] = {
        "distance": (("weights", "layer", "position"), distance, "how far the streams are apart", "1"),
        "h": (each, h, "probability that the draws differ", "1"),
    }
    for name, ids in zip(("token", "other_token"), texts, strict=True):
        variables[name] = (each, token_strings(model, ids), name.replace("_", " "), "1")
        variables[f"{name}_id"] = (each, ids, f"id of the {name.replace('_', ' ')}", "1")
    return make(
        "cascade_wavefront",
        variables,
        {
            "weights": ["trained", "random"][: len(found)],
            "layer": np.arange(model.config.n_layers + 1),
            "position": np.arange(start + steps),
            "generated": ("position", (np.arange(start + steps) >= start).astype(int)),
        },
        model=model,
        prompts={"clean": run.clean, "disturbed": run.other},
        parameters={name: value for name, value in run.parameters.items() if name != "seeds"} | {"twin": twin},
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class Followed:
    """Both texts of a pair, and how far apart they are.

    Args:
        texts: [stream, position], prompt and what was generated.
        distance: [layer, position]
    """

    run: Coupled
    texts: Int[Tensor, "two position"]
    distance: Float[np.ndarray, "layer position"]


def _followed(
    model: Transformer, prompt: Prompt, disturbance: Disturbance, options: dict[str, Any], progress: bool
) -> Followed:
    clean = model.to_tokens(prompt, bos=options["bos"])
    if len(clean) != 1:
        raise InterpError(f"{WHO}: one picture shows one prompt, got {len(clean)}; give one of them.")
    run = couple(model, clean, disturbance, seeds=1, progress=progress, **options)
    lengths = [int((rows != PAD).sum()) for rows in (run.clean, run.other)]
    if lengths[0] != lengths[1]:
        raise InterpError(
            f"{WHO}: the prompt has {lengths[0]} tokens and the disturbed one {lengths[1]}, so that positions do not correspond. "
            "Give one of equal length."
        )
    beginnings = torch.cat([run.clean, run.other])
    texts = torch.cat([beginnings, torch.from_numpy(run.tokens[:, 0, 0]).to(beginnings)], dim=1)
    zero = beginnings.new_zeros(1)
    with disturbance.attached(model, zero + 1, zero, zero + lengths[0]):
        found = torch.stack(streams(model, texts))  # [layer, stream, position, d_model]
    return Followed(run, texts, apart(*seen(model.config, found).double().unbind(1)).cpu().numpy())


def apart(one: Float[Tensor, "*place d_model"], other: Float[Tensor, "*place d_model"]) -> Float[Tensor, "*place"]:
    """|x' - x| over the root of the mean of both squares; 0 where both are 0."""
    size = ((one.square().sum(-1) + other.square().sum(-1)) / 2).sqrt()
    distance: Tensor = (other - one).norm(dim=-1) / torch.where(size > 0, size, 1.0)
    return distance
