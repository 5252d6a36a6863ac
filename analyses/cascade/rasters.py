"""Rasters: whether what is disturbed in one layer, or at one step, is so in the next, beyond how much there is of it in each."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.cascade.directions import Directions, draw
from analyses.cascade.entering import Clean
from analyses.cascade.injection import check_request
from analyses.cascade.rising import positive
from analyses.intervals import over_prompts
from analyses.results import Variable, is_result, make, token_coords
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
        draws whose b is as large or larger. Of a null, means over the directions in which it is known: NaN where nothing is active, or
        all of it, or where no order of the null gives another b than the raster's, as with one unit: seeds=1 of `coupled`.

    Raises:
        InterpError: a rate that is not between 0 and 1, a dose or place that is not possible, or prompts with nothing after the injection.
        ResultError: texts that are no result of `coupled` on the same prompts, or a dose at which the run overflows.
    """
    if not positive(rate) or rate >= 1:
        raise InterpError(f"{WHO}: the rate must be a number between 0 and 1, got {rate!r}.")
    if dose is None:
        raise InterpError(f"{WHO}: dose must be a number; what is infinitely small is not counted.")
    check_request(model, dose, layer, n_directions, WHO)
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    damage = _damage(texts, tokens)
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
    measured: dict[str, list[np.ndarray]] = {"depth": []}
    for prompt in range(len(tokens)):
        there = np.isfinite(relative[prompt, 0, 0])
        grids = [largest(one[:, there].T, rate) for one in relative[prompt]]  # [token, layer]
        active[prompt][..., there] = np.stack([grid.T for grid in grids])
        measured["depth"].append(over_directions([against_nulls(grid, draws, rng) for grid in grids]))
    if damage is not None:
        measured["text"] = [over_directions([against_nulls(own, draws, rng)]) for own in damage]
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


def _damage(texts: Any, tokens: Int[Tensor, "prompt position"]) -> Bool[np.ndarray, "prompt seed time"] | None:
    if texts is None:
        return None
    same_prompts = is_result(texts, "cascade_coupled") and np.array_equal(
        texts["prompt_token_id"], tokens.cpu().numpy()
    )
    if not same_prompts:
        raise ResultError(
            f"{WHO}: texts= must be a result of analyses.cascade.coupled on the same {len(tokens)} prompts, token by token; make it of "
            "those that are given here, with the same bos."
        )
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
    if not np.isfinite(found).all():
        raise ResultError(
            f"{WHO}: at dose {dose:g} the disturbed run of prompt {prompt} overflows in {model.dtype}. Lower the dose, or load the model "
            "in float64."
        )
    return found


def largest(values: Float[np.ndarray, "unit column"], rate: float) -> Bool[np.ndarray, "unit column"]:
    """The largest cells, as many as the rate says; of equal ones the first."""
    count = max(1, round(rate * values.size))
    active = np.zeros(values.size, dtype=bool)
    active[np.argsort(-values.ravel(), kind="stable")[:count]] = True
    return active.reshape(values.shape)


def branching(raster: Bool[np.ndarray, "*rasters unit column"]) -> Float[np.ndarray, "*rasters"]:
    """b: of the active cells, the share whose unit is active in the next column too; NaN where none is."""
    total = raster.sum((-2, -1))
    share: np.ndarray = np.divide(_following(raster), total, out=np.full(total.shape, np.nan), where=total > 0)
    return share


def _following(raster: Bool[np.ndarray, "*rasters unit column"]) -> Int[np.ndarray, "*rasters"]:
    """How many active cells have one beside them in the next column."""
    return np.asarray((raster[..., :-1] & raster[..., 1:]).sum((-2, -1)))


def can_differ(raster: Bool[np.ndarray, "unit column"]) -> Bool[np.ndarray, " null"]:
    """Of each null, whether any of its orders has another b than the raster.

    Two columns that are permuted always overlap alike only where one of them is all active or not at all. Moved on, they may do so
    otherwise too, as 1010 and 1100 do; each pair's overlaps at all moves are looked at.
    """
    moves = np.stack([np.roll(raster, step, axis=0) for step in range(len(raster))])
    overlaps = (moves[:, :, :-1] & raster[:, 1:]).sum(1)  # [move, column]
    mixed = np.asarray(raster.any(0) & ~raster.all(0))
    return np.array([(mixed[:-1] & mixed[1:]).any(), (overlaps != overlaps[0]).any()])


def against_nulls(
    raster: Bool[np.ndarray, "unit column"], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " five"]:
    """b; the mean of each null's; and of each the share of draws with as large a b or a larger one. NaN for a null that cannot differ."""
    units, columns = raster.shape
    if not raster.any() or raster.all():
        return np.full(1 + 2 * len(NULLS), np.nan)
    column = np.arange(columns)
    permuted = raster[rng.permuted(np.broadcast_to(np.arange(units)[:, None], (draws, units, columns)), axis=1), column]
    moved = rng.integers(0, units, (draws, 1, columns))
    shifted = raster[(np.arange(units)[:, None] + moved) % units, column]
    own, nulls = _following(raster), np.stack([_following(one) for one in (permuted, shifted)])  # [null, draw]
    known = np.where(can_differ(raster), 1.0, np.nan)
    means, p = nulls.mean(1) / raster.sum(), (nulls >= own).mean(1)
    return np.concatenate([[own / raster.sum()], known * means, known * p])


def over_directions(each: list[Float[np.ndarray, " five"]]) -> Float[np.ndarray, " seven"]:
    """Of what `against_nulls` gives for each direction: b, the nulls' b, b less that, and p, each the mean of those that are known."""
    own, null, p = np.split(np.stack(each), [1, 3], axis=1)
    numbers = np.concatenate([own, null, own - null, p], axis=1)  # [direction, 7]
    known = np.isfinite(numbers)
    count = known.sum(0)
    mean: np.ndarray = np.divide(
        np.where(known, numbers, 0.0).sum(0), count, out=np.full(len(count), np.nan), where=count > 0
    )
    return mean


def _summary(
    measured: dict[str, list[np.ndarray]],
    relative: Float[np.ndarray, "prompt direction layer position"],
    active: Float[np.ndarray, "prompt direction layer position"],
) -> dict[str, Variable]:
    b, *rest = np.moveaxis(np.array(list(measured.values())), -1, 0)  # each [raster, prompt]
    null, difference, p = (np.stack(rest[start : start + 2]) for start in (0, 2, 4))  # [null, raster, prompt]
    cell = ("prompt", "layer", "position")
    by, each = ("raster", "prompt"), ("null", "raster", "prompt")
    with np.errstate(divide="ignore"):
        typical = np.exp(np.log(relative).mean(1))
    described: dict[str, tuple[tuple[str, ...], Any, str]] = {
        "branching": (by, b, "branching ratio of the raster"),
        "null_branching": (each, null, "the same of the null"),
        "difference": (each, difference, "branching ratio less that of the null"),
    }
    variables: dict[str, Variable] = {
        "relative": (cell, typical, "|delta| / |x| over what was injected", "1"),
        "active": (cell, active.mean(1), "share of directions in which the cell is active", "1"),
        "p": (each, p, "share of the null with as large a branching ratio", "1"),
    }
    for name, (dims, values, long_name) in described.items():
        variables[name] = (dims, values, long_name, "1")
        if b.shape[1] > 1:
            variables |= _over_known(name, values, dims, long_name)
    return variables


def _over_known(
    name: str, values: Float[np.ndarray, "*by prompt"], dims: tuple[str, ...], long_name: str
) -> dict[str, Variable]:
    """Mean, standard error and interval over the prompts in which it is known, of each raster and null by themselves."""
    by, flat = values.shape[:-1], values.reshape(-1, values.shape[-1])
    parts = [over_prompts(name, one, (), long_name, "1", kept=np.isfinite(one)) for one in flat]

    def laid(key: str) -> np.ndarray:
        found = np.stack([part[key][1] for part in parts], axis=-1)
        return found.reshape(*found.shape[:-1], *by)

    return {
        f"{name}_{key}": (
            (*inner, *dims[:-1]),
            laid(f"{name}_{key}"),
            f"{said} over prompts where it is known: {long_name}",
            "1",
        )
        for key, inner, said in (
            ("mean", (), "mean"),
            ("standard_error", (), "standard error"),
            ("interval", ("bound",), "95 % interval"),
        )
    }
