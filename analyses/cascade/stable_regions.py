"""Stable regions: between two real activations the output hardly moves, then jumps; and how two directions add up before it does."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from analyses.cascade.directions import Directions, draw
from analyses.cascade.entering import Clean
from analyses.cascade.rising import rising
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.geometry import seen
from interp.model import Transformer
from interp.names import block_name
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Add, Intervention, Row, Set
from interp.sweep.readouts import Logits
from interp.whole_numbers import takes_whole, whole_numbers

WHO = "cascade.stable_regions"
DOSES = tuple(np.geomspace(0.05, 2.0, 10).tolist())
MIXED = np.geomspace(0.3, 2.0, 12)
"""How far out mixtures are followed, as a share of the one that has both directions at their own thresholds."""


@torch.no_grad()
@takes_whole("points", "position", "pairs", "seed", "max_bytes", least={"points": 3, "pairs": 1, "max_bytes": 1})
def stable_regions(
    model: Transformer,
    prompts: Prompt,
    others: Prompt | None = None,
    *,
    layers: Sequence[int] | None = None,
    points: int = 21,
    position: int = -1,
    directions: Directions = "isotropic",
    pairs: int = 2,
    doses: Sequence[float] = DOSES,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """How abruptly the output goes over from one activation's to another's, and how two directions add up on the way to a threshold.

    F is the logits after the prompt, less their mean. Interpolated: the stream at one place is x + a (y - x), y that of another prompt at
    its own place, and d(a) = |F(a) - F(0)| / (|F(a) - F(0)| + |F(a) - F(1)|) goes from 0 to 1. Its maximal slope is 1 where F is affine and
    large where regions are stable (Janiak et al. 2024, arXiv 2409.17113). Mixed: u and v reach |F - F(0)| = level at t_u and t_v by
    themselves, and s (t_u u +- t_v v) at s. Where the level's surface is |a|^p + |b|^p = 1, s^-p = 2: p = 2 for every quadratic form, also
    one with cross terms, since the mean of s^-2 over both signs is taken; a box, in which each direction has a threshold of its own, has
    no finite p (arXiv 2606.24964).

    Args:
        others: whose activations are interpolated towards, one for each prompt; None is the next prompt of the list, so that neighbours
            share an activation: give others where intervals matter.
        layers: the streams that are looked at, by the layer that they enter; None is all.
        points: values of a, from 0 to 1.
        position: where, in each of the prompts; negative counts from the end. Not one that is set apart (`analyses.set_apart`).
        directions, seed: of what is mixed, see `gain`; 2 x `pairs` are drawn.
        pairs: of directions, at each place.
        doses: lengths along them relative to the stream, increasing. The level is half of what the weaker of both does at the largest.

    Returns:
        A Dataset over layer, a and prompt: `distance` (prompt, layer, a), d(a), NaN where
        both activations do the same, as those of equal tokens below the first block; `slope` (prompt, layer), its largest slope between
        neighbouring points; `inverse_exponent` (prompt, layer), 1/p, the mean over pairs: 1/2 for a quadratic form, 0 for a box, below 0
        where two directions hold each other up, NaN where a response does not reach its level. With several prompts means and intervals;
        `exponent` (layer), p of the mean, infinite where that is not positive.

    Raises:
        InterpError: fewer than two prompts without others, as many others as there are not, doses that are not positive and increasing, or
            a place that is not there or is set apart.
    """
    grid = rising(doses, least=3)
    if grid is None:
        raise InterpError(f"{WHO}: doses must be three at least, positive and increasing, got {doses!r}.")
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    if others is None and len(tokens) < 2:
        raise InterpError(f"{WHO}: give another prompt, or others= to interpolate towards.")
    towards = tokens.roll(-1, dims=0) if others is None else left_aligned(model.to_tokens(others, bos=bos))
    if len(towards) != len(tokens):
        raise InterpError(f"{WHO}: {len(tokens)} prompts but {len(towards)} others.")
    chosen = _chosen(model, layers)
    clean, far = Clean.of(model, tokens), Clean.of(model, towards)
    steps = np.linspace(0.0, 1.0, points)
    distance = np.empty((len(tokens), len(chosen), points))
    inverse = np.empty((len(tokens), len(chosen), pairs))
    with progress_bar(progress) as bar:
        task = bar.add_task("interpolating", total=len(tokens))
        for prompt in range(len(tokens)):
            at, there = clean.position(prompt, position, WHO), far.position(prompt, position, WHO)
            place = _Place(clean, prompt, at, chosen, max_bytes)
            ends = [far.entering[layer][prompt, there] - clean.entering[layer][prompt, at] for layer in chosen]
            distance[prompt] = place.distances(torch.stack(ends), steps)
            inverse[prompt] = place.inverse_exponents(directions, grid, pairs, seed)
            bar.advance(task)
    slope = (np.diff(distance, axis=-1) / np.diff(steps)).max(-1)
    mixed = inverse.mean(-1)
    by, several = ("prompt", "layer"), len(tokens) > 1
    variables: dict[str, Variable] = {
        "distance": ((*by, "a"), distance, "distance of the output from the beginning, of its way", "1"),
        "slope": (by, slope, "largest slope of the distance", "1"),
        "inverse_exponent": (by, mixed, "1/p of mixtures", "1"),
    }
    if several:
        variables |= over_prompts("distance", distance, ("layer", "a"), "distance of the output", "1")
        variables |= over_prompts("slope", slope, ("layer",), "largest slope of the distance", "1")
        variables |= over_prompts("inverse_exponent", mixed, ("layer",), "1/p of mixtures", "1")
    mean = mixed.mean(0)
    p = np.where(mean > 0, 1 / np.where(mean > 0, mean, 1.0), np.where(np.isnan(mean), np.nan, np.inf))
    variables["exponent"] = (("layer",), p, "exponent p of mixtures", "1")
    coords: dict[Any, Any] = {
        "layer": chosen, "a": steps, **({"bound": ["lower", "upper"]} if several else {}), **token_coords(model, tokens),
    }  # fmt: skip
    return make(
        "stable_regions", variables, coords, model=model, prompts={"prompt": tokens, "towards": towards},
        parameters={
            "position": position, "directions": directions if isinstance(directions, str) else "given", "pairs": pairs,
            "doses": grid, "bos": bos, "set_apart": clean.apart.about(),
        },
        seed=seed,
    )  # fmt: skip


def _chosen(model: Transformer, layers: Sequence[int] | None) -> list[int]:
    if layers is None:
        return list(range(model.config.n_layers))
    chosen = whole_numbers(layers, f"{WHO}: a layer", InterpError)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= layer < model.config.n_layers for layer in chosen):
        raise InterpError(f"{WHO}: layers must be some of 0 to {model.config.n_layers - 1}, each once; got {chosen}.")
    return chosen


class _Place:
    """The outputs of one prompt as the stream at one position is moved, at each of several layers."""

    def __init__(self, clean: Clean, prompt: int, at: int, layers: list[int], max_bytes: int) -> None:
        self._clean, self._prompt, self._at, self._layers, self._max_bytes = clean, prompt, at, layers, max_bytes
        self._here = [clean.entering[layer][prompt, at] for layer in layers]
        self._text: Int[Tensor, "one position"] = clean.tokens[prompt : prompt + 1, : clean.lengths[prompt]]

    def distances(
        self, ends: Float[Tensor, "layer d_model"], steps: Float[np.ndarray, " a"]
    ) -> Float[np.ndarray, "layer a"]:
        """d(a) at each layer."""
        share = torch.as_tensor(steps, dtype=ends.dtype, device=ends.device)
        moved = self._outputs((torch.stack(self._here)[:, None] + share[:, None] * ends[:, None]).flatten(0, 1), Set)
        out = moved.reshape(len(self._layers), len(steps), -1)
        begun, left = ((out - end).norm(dim=-1) for end in (out[:, :1], out[:, -1:]))
        whole = (begun + left).where(ends.any(-1, keepdim=True), 0.0)  # of equal activations all of it is rounding
        return torch.where(whole > 0, begun / whole, torch.nan).cpu().numpy()

    def inverse_exponents(
        self, directions: Directions, doses: Float[np.ndarray, " dose"], pairs: int, seed: int
    ) -> Float[np.ndarray, "layer pair"]:
        """1/p of each pair of directions at each layer."""
        place = torch.tensor([[self._prompt, self._at]], device=self._text.device)
        units = torch.stack(
            [
                draw(self._clean, layer, place, directions, 2 * pairs, seed, WHO)[0][: 2 * pairs]
                for layer in self._layers
            ]
        )  # [layer, direction, d_model]
        if units.shape[1] < 2 * pairs:
            raise InterpError(f"{WHO}: {pairs} pairs need {2 * pairs} directions; {units.shape[1]} were given.")
        config = self._clean.model.config
        size = torch.stack([seen(config, stream).norm() for stream in self._here])
        scale = torch.as_tensor(doses, dtype=units.dtype, device=units.device)
        alone = units[:, :, None] * size[:, None, None, None] * scale[:, None]  # [layer, direction, dose, d_model]
        own = self._responses(alone)
        ends = own[..., -1].reshape(len(self._layers), pairs, 2)
        level = (ends.min(-1) / 2).repeat(2, axis=-1)  # [layer, direction]
        reached = crossing(own, doses, level)
        vectors = (
            units * size[:, None, None] * torch.as_tensor(reached, dtype=units.dtype, device=units.device)[..., None]
        )
        first, second = vectors[:, 0::2], vectors[:, 1::2]  # [layer, pair, d_model]
        both = torch.stack([first + second, first - second], dim=2)[:, :, :, None]
        further = torch.as_tensor(MIXED, dtype=units.dtype, device=units.device)[:, None]
        mixed = crossing(
            self._responses(both * further), MIXED, np.repeat(level[:, 0::2, None], 2, axis=-1)
        )  # [layer, pair, sign]
        return inverse_exponent(mixed)

    def _responses(self, moves: Float[Tensor, "*places d_model"]) -> Float[np.ndarray, "*places"]:
        """|F - F(0)|; NaN where the move is no number."""
        per_layer = moves.reshape(len(self._layers), -1, moves.shape[-1])
        whole = per_layer.isfinite().all(-1)
        safe = torch.where(whole[..., None], per_layer, 0.0)
        zero = torch.zeros_like(safe[:, :1])
        out = self._outputs(torch.cat([zero, safe], dim=1).flatten(0, 1), Add).reshape(
            len(self._layers), safe.shape[1] + 1, -1
        )
        size = (out[:, 1:] - out[:, :1]).norm(dim=-1).masked_fill(~whole, torch.nan)
        laid: np.ndarray = size.reshape(moves.shape[:-1]).cpu().numpy()
        return laid

    def _outputs(
        self, values: Float[Tensor, "row d_model"], change: type[Set] | type[Add]
    ) -> Float[Tensor, "row vocab"]:
        """Logits less their mean, in float64; rows are laid out by layer."""
        each = len(values) // len(self._layers)
        rows = [
            Row(
                [Intervention(block_name(self._layers[number // each], "hook_resid_pre"), change(value), positions=self._at)], always=True
            )
            for number, value in enumerate(values)
        ]  # fmt: skip
        logits = sweep(self._clean.model, self._text, rows, Logits(), max_bytes=self._max_bytes).values.double()
        return logits - logits.mean(-1, keepdim=True)


def crossing(
    response: Float[np.ndarray, "*places dose"], doses: Float[np.ndarray, " dose"], level: Float[np.ndarray, "*places"]
) -> Float[np.ndarray, "*places"]:
    """The first dose at which a response reaches its level, by straight lines between the logarithms, and beyond either end of the doses by
    the line at that end; NaN where it does not rise there."""
    logs, x = np.log(np.where(response > 0, response, np.nan)), np.log(doses)
    above = response >= level[..., None]
    at = np.where(above.any(-1), above.argmax(-1), len(doses) - 1)
    upper = np.maximum(at, 1)
    lower = upper - 1
    low, high = (np.take_along_axis(logs, index[..., None], axis=-1)[..., 0] for index in (lower, upper))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.log(level) - low) / (high - low)
    found: np.ndarray = np.exp(x[lower] + share * (x[upper] - x[lower]))
    return np.where((high > low) & np.isfinite(share), found, np.nan)


def inverse_exponent(reached: Float[np.ndarray, "*places two"]) -> Float[np.ndarray, "*places"]:
    """1/p of mixtures that reach the level at so much of both directions' own thresholds, with equal and with opposite signs."""
    found: np.ndarray = np.log((reached**-2.0).mean(-1)) / (2 * np.log(2))
    return found
