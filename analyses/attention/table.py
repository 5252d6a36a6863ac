"""Every score of every head in one Dataset."""

import numpy as np
import torch
import xarray as xr

from analyses.answers import Tokens
from analyses.attention.circuits import WAYS, composition, copying_scores
from analyses.attention.detectors import MASKS, SHAPE, detect_heads
from analyses.attention.importance import REPLACEMENTS, head_importance
from analyses.results import Variable, make
from interp.errors import InterpError
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.sweep.readouts import Position, given_position
from interp.whole_numbers import takes_whole

SCORES = (*MASKS, *SHAPE, "copying", "copying_raw", *(f"reads_by_{way}" for way in WAYS))
"""The numbers that the table has of each head."""

IMPORTANCE = tuple(f"importance_{replacement}" for replacement in REPLACEMENTS)
"""Those that it has on pairs of a task."""


@torch.no_grad()
@takes_whole("length", "count", "seed", "max_bytes", least={"max_bytes": 1})
def head_table(
    model: Transformer,
    *,
    clean: Prompt | None = None,
    corrupt: Prompt | None = None,
    answer: Tokens | None = None,
    wrong: Tokens | None = None,
    position: Position = -1,
    length: int | None = None,
    count: int = 10,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """What is known of each head; `head_table(model).to_dataframe().sort_values("induction")` sorts it.

    Args:
        clean, corrupt, answer, wrong, position: pairs of a task, as for `activation_patching`; with them the table has the heads'
            importance.
        length, count, seed: of the repeated random sequences, see `detect_heads`.

    Returns:
        A Dataset over (layer, head). Of attention on repeated random tokens, means over sequences with `_interval`: the five detectors,
        `entropy` (nats), `distance` (tokens). Of the weights: `copying`, of the effective embedding, and `copying_raw`, of W_E itself (see
        `copying_scores`); and for each way of reading the largest excess of composition, `reads_by_Q` and so on, with the head that is
        read, `reads_by_Q_from`, "" in layer 0. With pairs: `importance_zero`, `importance_mean`, `importance_mean_by_position` and
        `importance_resample`, the share of the baseline gap that is lost without the head.

    Raises:
        As `detect_heads`, `head_importance`.
    """
    detected = detect_heads(model, length=length, count=count, seed=seed, progress=progress)
    variables: dict[str, Variable] = {}
    at = ("layer", "head")
    for name in (*MASKS, *SHAPE):
        one = detected[name]
        about = one.attrs["long_name"], one.attrs["units"]
        variables[name] = (at, one.mean("prompt").to_numpy(), *about)
        if f"{name}_interval" in detected:
            variables[f"{name}_interval"] = (("bound", *at), detected[f"{name}_interval"].to_numpy(), *about)
    for name, embedding in (("copying", "effective"), ("copying_raw", "raw")):
        about = f"copying score of the OV circuit's eigenvalues, {embedding} embedding", "1"
        variables[name] = (at, copying_scores(model, embedding=embedding), *about)
    variables |= _strongest_reads(composition(model, seed=seed))
    if clean is not None:
        if corrupt is None or answer is None:
            raise InterpError("head_table: with `clean`, give `corrupt` and `answer` too.")
        important = head_importance(
            model,
            clean,
            corrupt,
            answer=answer,
            wrong=wrong,
            position=position,
            bos=bos,
            max_bytes=max_bytes,
            progress=progress,
        )
        one = important["importance_mean" if "importance_mean" in important else "importance"]
        shape = (model.config.n_layers, model.config.n_heads)
        for number, replacement in enumerate(important["replacement"].to_numpy()):
            mean = one.isel(replacement=number).to_numpy().reshape(-1, *shape).mean(0)
            long_name = f"share of the gap lost without the head ({replacement})"
            variables[f"importance_{replacement}"] = (at, mean, long_name, "1")
    return make(
        "head_table",
        variables,
        {
            "layer": np.arange(model.config.n_layers),
            "head": np.arange(model.config.n_heads),
            **({"bound": ["lower", "upper"]} if count > 1 else {}),
        },
        model=model,
        prompts={"prompt": torch.from_numpy(detected["token_id"].to_numpy())},
        parameters={
            "length": length,
            "count": count,
            "task": clean is not None,
            "position": given_position(position, "head_table"),
            "bos": bos,
        },
        seed=seed,
    )


def _strongest_reads(composed: xr.Dataset) -> dict[str, Variable]:
    """Over the layers below; NaN where one of those composes by no number."""
    variables: dict[str, Variable] = {}
    heads, layers = composed.sizes["writer_head"], np.arange(composed.sizes["layer"])
    below = (layers[:, None] < layers)[:, None, :, None]
    for way in composed["way"].to_numpy():
        excess = composed["excess"].sel(way=way).to_numpy()  # [writer layer, writer head, layer, head]
        flat = np.where(below, excess, -np.inf).reshape(-1, *excess.shape[2:])
        best, value = flat.argmax(0), flat.max(0)
        names = np.array([[f"{b // heads}.{b % heads}" for b in row] for row in best], dtype=object)
        names[~np.isfinite(value)] = ""
        variables[f"reads_by_{way}"] = (
            ("layer", "head"), np.where(np.isfinite(value), value, np.nan), f"largest {way}-composition above chance", "1",
        )  # fmt: skip
        variables[f"reads_by_{way}_from"] = (("layer", "head"), names, f"the head it reads most by {way}", "1")
    return variables
