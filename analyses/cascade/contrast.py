"""Which directions grow more than random ones."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from analyses.cascade.directions import KINDS, Directions, same_as
from analyses.cascade.injection import Injected, inject
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError, is_known, nearest
from interp.model import Transformer
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES
from interp.whole_numbers import takes_whole

WHO, FEWEST = "cascade.compare_directions", 3
"""Prompts below which there is no test."""


@takes_whole("layer", "n_directions", "seed")
def compare_directions(
    model: Transformer,
    prompts: Prompt,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    own: Mapping[str, Float[Tensor, "given width"]] | None = None,
    dose: float = 1e-2,
    layer: int = 0,
    n_directions: int = 8,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """ln(G / G_isotropic) at the output for each kind of direction, at one dose, paired by prompt.

    Args:
        kinds: names of `KINDS`; `isotropic`, which the others are compared with, is always measured.
        own: further vectors by name (steering vectors, features of a sparse autoencoder).

    The other arguments are those of `gain`.

    Returns:
        A Dataset over `direction_kind`: `log_ratio` (direction_kind, prompt), nats; with several prompts mean, standard error and
        interval; `p`, two-sided t-test of a mean of 0 over prompts, and `p_holm`, corrected for the number of kinds (Holm 1979); NaN
        below 3 prompts. Kinds that are the same, as `token` and `unembedding` are in a model that ties them, are one row and one test,
        under the first name; the parameter `same` says which they are.

    Raises:
        InterpError: a name that is taken, no kind beside `isotropic`, or as `gain`.
    """
    if isinstance(kinds, str) or not isinstance(kinds, Iterable):
        raise InterpError(f"{WHO}: kinds must be a list of names, got {kinds!r}.")
    if not isinstance(own, Mapping | None):
        raise InterpError(f"{WHO}: own must give vectors by name, as a dict does; got {type(own).__name__}.")
    if unknown := [kind for kind in kinds if not is_known(kind, KINDS)]:
        raise InterpError(
            f"cascade.compare_directions: unknown directions {unknown[0]!r}. {nearest(unknown[0], KINDS)}"
        )
    given: dict[str, Directions] = {kind: kind for kind in kinds if kind != "isotropic"}
    if taken := set(own or {}) & {*KINDS, *given}:
        raise InterpError(f"{WHO}: names {sorted(taken)} are those of kinds of directions; choose others.")
    given |= dict(own or {})
    if not given:
        raise InterpError(f"{WHO}: give a kind of direction to compare with isotropic ones.")
    common: dict[str, Any] = {
        "dose": dose, "layer": layer, "n_directions": n_directions, "seed": seed, "bos": bos, "max_bytes": max_bytes, "progress": progress,
    }  # fmt: skip
    base = inject(model, prompts, who=WHO, **common)
    others: dict[str, Injected] = {}
    for name, one in given.items():
        alike = next((first for first in others if _are_same(model, given[first], one)), None)
        others[name] = (
            inject(model, prompts, directions=one, beside=base, who=WHO, **common) if alike is None else others[alike]
        )
    return describe_directions(model, base, others, seed)


def _are_same(model: Transformer, one: Directions, other: Directions) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return same_as(model, one) == same_as(model, other)
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)


def describe_directions(model: Transformer, base: Injected, others: Mapping[str, Injected], seed: int) -> xr.Dataset:
    """The result of `compare_directions` from injections that are made already, of isotropic directions and of others by name. Those that
    are one and the same have one row, under the first name."""
    whose = {name: next(first for first, other in others.items() if other is one) for name, one in others.items()}
    others = {name: one for name, one in others.items() if whose[name] == name}
    ratio = np.stack([one.log_gain[:, -1] - base.log_gain[:, -1] for one in others.values()])
    long_name = "ln of the gain over that of isotropic directions"
    p = np.full(len(others), np.nan)
    if ratio.shape[1] >= FEWEST:
        p = np.asarray(stats.ttest_1samp(ratio, 0.0, axis=1).pvalue)
    variables: dict[str, Variable] = {
        "log_ratio": (("direction_kind", "prompt"), ratio, long_name, "nats"),
        "p": (("direction_kind",), p, "p of a mean of 0", "1"),
        "p_holm": (("direction_kind",), holm(p), "p of a mean of 0, corrected for the number of kinds", "1"),
    }
    tokens = base.tokens
    if len(tokens) > 1:
        variables |= over_prompts("log_ratio", ratio.T, ("direction_kind",), long_name, "nats")
    return make(
        "cascade_directions",
        variables,
        {
            "direction_kind": list(others),
            **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
            **token_coords(model, tokens),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={name: value for name, value in base.parameters.items() if name != "directions"}
        | {"kinds": list(others), "same": {name: first for name, first in whose.items() if name != first}},
        seed=seed,
    )


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """p-values corrected for their number, step by step from the smallest (Holm 1979)."""
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected
