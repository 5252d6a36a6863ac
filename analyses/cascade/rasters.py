"""Rasters: whether what is disturbed in one layer, or at one step, is so in the next, beyond how much there is of it in each."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.cascade.directions import Directions, draw
from analyses.cascade.entering import Clean
from analyses.cascade.injection import check_request
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError, ResultError
from interp.generation import left_aligned
from interp.geometry import seen
from interp.model import Transformer
from interp.names import block_name
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Add, Intervention, Row
from interp.sweep.readouts import EachLayer
from interp.whole_numbers import takes_whole

WHO = "cascade.rasters"
NULLS = ("permuted", "shifted")
"""The units of each column in any order; or moved on by the same number, which keeps what stands beside what."""


@torch.no_grad()
@takes_whole("layer", "position", "n_directions", "draws", "seed", "max_bytes", least={"draws": 1, "max_bytes": 1})
def rasters(
    model: Transformer,
    prompts: Prompt,
    *,
    texts: xr.Dataset | None = None,
    rate: float = 0.2,
    dose: float = 1e-2,
    layer: int = 0,
    position: int | None = None,
    directions: Directions = "isotropic",
    n_directions: int = 4,
    draws: int = 100,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Branching of rasters with matched rates, less that of nulls which keep how much is active in each column.

    A disturbance is injected at one position. Of |delta| / |x| over layers (from the one above on) and tokens (from the injection on), the
    largest `rate` of the cells are active in every raster, so that models are compared at the same rate. With a of unit u in column t, b =
    sum_{u,t} a[u,t] a[u,t+1] / sum_{u,t} a[u,t]: independent cells of rate rho over T columns have b = rho (T-1)/T, so that b by itself
    says nothing, and the difference to its null is 0. In texts the raster is the aligned damage, units the draws of a prompt, columns the
    steps.

    Args:
        texts: a result of `analyses.cascade.coupled` on the same prompts, for the rasters of damage.
        rate: share of the cells that is active.
        position: of the injection; negative counts from the end; None is each prompt's first that is not set apart.
        draws: of each null, for each raster.

    The other arguments are those of `gain`.

    Returns:
        A Dataset over layer, position and prompt: `relative` (prompt, layer, position), the geometric mean over directions of |delta| / |x|
        over what was injected; `active`, the share of directions in which the cell is active; both NaN before the injection. Over `raster`
        (depth, and with texts also text): `branching` (raster, prompt), b, mean over directions; `null_branching` (null, raster, prompt),
        `difference` (null, raster, prompt), each with mean and interval over prompts; `p` (null, raster, prompt), the share of the null's
        draws whose b is as large or larger. NaN for a prompt where nothing is active, or all of it.

    Raises:
        InterpError: a rate that is not between 0 and 1, a dose or place that is not possible, or prompts with nothing after the injection.
        ResultError: texts that are no result of `coupled` on as many prompts.
    """
    if not 0 < rate < 1:
        raise InterpError(f"{WHO}: the rate must be between 0 and 1, got {rate}.")
    if dose is None:
        raise InterpError(f"{WHO}: dose must be a number; what is infinitely small is not counted.")
    check_request(model, dose, layer, n_directions, WHO)
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    damage = _damage(texts, len(tokens))
    clean = Clean.of(model, tokens)
    depth = model.config.n_layers - layer
    if depth < 2:
        raise InterpError(f"{WHO}: from layer {layer} there is one block only, and a raster needs two columns.")
    relative = np.full((len(tokens), n_directions, depth, tokens.shape[1]), np.nan)
    with progress_bar(progress) as bar:
        task = bar.add_task("injecting", total=len(tokens))
        for prompt, length in enumerate(clean.lengths):
            clean.check_some_are_left(WHO)
            at = int(clean.kept[prompt].nonzero()[0]) if position is None else clean.position(prompt, position, WHO)
            if at + 1 >= length:
                raise InterpError(f"{WHO}: nothing comes after position {at} of prompt {prompt}; give a longer one.")
            found = _relative(clean, prompt, at, layer, directions, n_directions, dose, seed, max_bytes)
            relative[prompt, :, :, at:length] = found
            bar.advance(task)
    rng = np.random.default_rng(seed)
    active = np.full(relative.shape, np.nan)
    measured: dict[str, list[list[np.ndarray]]] = {"depth": []}
    for prompt in range(len(tokens)):
        there = np.isfinite(relative[prompt, 0, 0])
        grids = [largest(one[:, there].T, rate) for one in relative[prompt]]  # [token, layer]
        active[prompt][..., there] = np.stack([grid.T for grid in grids])
        measured["depth"].append([against_nulls(grid, draws, rng) for grid in grids])
    if damage is not None:
        measured["text"] = [[against_nulls(own, draws, rng)] for own in damage]
    return make(
        "cascade_rasters",
        _summary(measured, relative / dose, active),
        {
            "raster": list(measured), "null": list(NULLS), "layer": np.arange(layer + 1, model.config.n_layers + 1),
            "position": np.arange(tokens.shape[1]), **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
            **token_coords(model, tokens),
        },
        model=model, prompts={"prompt": tokens},
        parameters={
            "rate": rate, "dose": dose, "layer": layer, "position": position, "n_directions": n_directions, "draws": draws, "bos": bos,
            "directions": directions if isinstance(directions, str) else "given", "texts": texts is not None,
            "set_apart": clean.apart.about(),
        },
        seed=seed,
    )  # fmt: skip


def _damage(texts: xr.Dataset | None, prompts: int) -> Bool[np.ndarray, "prompt seed time"] | None:
    if texts is None:
        return None
    if texts.attrs.get("kind") != "cascade_coupled" or texts.sizes["prompt"] != prompts:
        raise ResultError(f"{WHO}: texts= must be a result of analyses.cascade.coupled on the same {prompts} prompts.")
    return np.asarray(texts["aligned_damage"].to_numpy() > 0)


def _relative(
    clean: Clean, prompt: int, at: int, layer: int, directions: Directions, n_directions: int, dose: float, seed: int, max_bytes: int
) -> Float[np.ndarray, "direction layer position"]:  # fmt: skip
    """|delta| / |x| in the streams above the injection, from its position on."""
    model, config = clean.model, clean.model.config
    text = clean.tokens[prompt : prompt + 1, : clean.lengths[prompt]]
    place = torch.tensor([[prompt, at]], device=text.device)
    unit = draw(clean, layer, place, directions, n_directions, seed, WHO)[0]
    size = seen(config, clean.entering[layer][prompt, at]).norm()
    name = block_name(layer, "hook_resid_pre")
    rows = [Row([Intervention(name, Add(dose * size * one), positions=at)]) for one in unit]

    def read(stream: Tensor, base: Tensor) -> Tensor:
        share: Tensor = seen(config, stream - base).norm(dim=-1) / seen(config, base).norm(dim=-1)
        return share

    swept = sweep(model, text, rows, EachLayer(read), max_bytes=max_bytes)
    found: np.ndarray = swept.values[:, layer + 1 :, at:].double().cpu().numpy()
    return found


def largest(values: Float[np.ndarray, "unit column"], rate: float) -> Bool[np.ndarray, "unit column"]:
    """The largest cells, as many as the rate says; of equal ones the first."""
    count = max(1, round(rate * values.size))
    active = np.zeros(values.size, dtype=bool)
    active[np.argsort(-values.ravel(), kind="stable")[:count]] = True
    return active.reshape(values.shape)


def branching(raster: Bool[np.ndarray, "*rasters unit column"]) -> Float[np.ndarray, "*rasters"]:
    """b: of the active cells, the share whose unit is active in the next column too; NaN where none is."""
    follows = (raster[..., :-1] & raster[..., 1:]).sum((-2, -1))
    total = raster.sum((-2, -1))
    share: np.ndarray = np.divide(follows, total, out=np.full(total.shape, np.nan), where=total > 0)
    return share


def against_nulls(
    raster: Bool[np.ndarray, "unit column"], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " five"]:
    """b; the mean of each null's; and of each the share of draws with as large a b or a larger one."""
    units, columns = raster.shape
    own = branching(raster)
    if not raster.any() or raster.all():
        return np.full(1 + 2 * len(NULLS), np.nan)
    column = np.arange(columns)
    permuted = raster[rng.permuted(np.broadcast_to(np.arange(units)[:, None], (draws, units, columns)), axis=1), column]
    moved = rng.integers(0, units, (draws, 1, columns))
    shifted = raster[(np.arange(units)[:, None] + moved) % units, column]
    nulls = [branching(one) for one in (permuted, shifted)]
    return np.array([own, *(one.mean() for one in nulls), *((one >= own - 1e-12).mean() for one in nulls)])


def _summary(
    measured: dict[str, list[list[np.ndarray]]],
    relative: Float[np.ndarray, "prompt direction layer position"],
    active: Float[np.ndarray, "prompt direction layer position"],
) -> dict[str, Variable]:
    numbers = np.stack(
        [np.stack([np.mean(one, axis=0) for one in own]) for own in measured.values()]
    )  # [raster, prompt, 5]
    b, null, p = numbers[..., 0], np.moveaxis(numbers[..., 1:3], -1, 0), np.moveaxis(numbers[..., 3:], -1, 0)
    cell = ("prompt", "layer", "position")
    by, each = ("raster", "prompt"), ("null", "raster", "prompt")
    with np.errstate(divide="ignore"):
        typical = np.exp(np.log(relative).mean(1))
    described: dict[str, tuple[tuple[str, ...], Any, str]] = {
        "branching": (by, b, "branching ratio of the raster"),
        "null_branching": (each, null, "the same of the null"),
        "difference": (each, b - null, "branching ratio less that of the null"),
    }
    variables: dict[str, Variable] = {
        "relative": (cell, typical, "|delta| / |x| over what was injected", "1"),
        "active": (cell, active.mean(1), "share of directions in which the cell is active", "1"),
        "p": (each, p, "share of the null with as large a branching ratio", "1"),
    }
    for name, (dims, values, long_name) in described.items():
        variables[name] = (dims, values, long_name, "1")
        if b.shape[1] > 1:
            parts = [
                over_prompts(
                    name, np.moveaxis(values[..., one, :], -1, 0), dims[:-2], long_name, "1", kept=np.isfinite(b[one])
                )
                for one in range(len(measured))
            ]
            for key, (inner, _, said, units) in parts[0].items():
                variables[key] = ((*inner, "raster"), np.stack([part[key][1] for part in parts], axis=-1), said, units)
    return variables
