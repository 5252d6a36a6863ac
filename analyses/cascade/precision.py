"""Which disturbances a precision loses, which it drowns in rounding, and which it lets through."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.cascade.agreement import disagreement
from analyses.cascade.directions import Directions, draw
from analyses.cascade.entering import Clean, copied
from analyses.cascade.rising import positive, rising
from analyses.intervals import over_prompts, resampled
from analyses.results import Variable, make, token_coords
from interp.config import ModelConfig
from interp.errors import InterpError, ResultError, is_known, nearest
from interp.generation import left_aligned
from interp.geometry import seen
from interp.metrics import scaled
from interp.model import Transformer
from interp.progress import progress_bar
from interp.prompts import Prompt
from interp.streams import streams
from interp.sweep import MAX_BYTES
from interp.whole_numbers import takes_whole

WHO = "cascade.precision"
DOSES = tuple(np.logspace(-10, 0, 21).tolist())
PRECISIONS = {
    "float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip
REGIMES = ("stable", "chaotic", "signal-dominated")

NEAR = 0.5
"""h is the signal's where it is within this share of what the same weights give in float64."""


@torch.no_grad()
@takes_whole("layer", "position", "n_directions", "seed", "max_bytes", least={"max_bytes": 1})
def precision(
    model: Transformer,
    prompts: Prompt,
    *,
    doses: Sequence[float] = DOSES,
    precisions: Sequence[str] = ("float64", "float32", "bfloat16"),
    layer: int = 0,
    position: int = -1,
    directions: Directions = "isotropic",
    n_directions: int = 4,
    temperature: float = 1.0,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """h after disturbances down to single rounding steps, in several precisions: three regimes, as of arXiv 2604.13206.

    `stable`: every bit of the logits is that of the clean run, h = 0: the disturbance was lost to rounding. `signal-dominated`: h is within
    a half of what the same weights, rounded as they are in that precision, give in float64. `chaotic`: neither, so that what is seen is
    mostly how roundings fall. Both runs of a pair stand in the same row of batches of one shape.

    Args:
        doses: of the disturbance, relative to the stream; increasing.
        precisions: names of `PRECISIONS`; the weights are rounded to each.
        layer, position: where; a negative position counts from the end. Not one that is set apart (`analyses.set_apart`).
        directions, n_directions, seed: see `gain`.
        temperature: of the draws that are compared, after each prompt.
        max_bytes: bound on the memory of the runs that stand together; one always does.

    Returns:
        A Dataset over precision, dose and prompt: `h` (precision, dose, prompt, direction) and `h_float64`, of the same weights;
        `unchanged` (precision, dose, prompt), the share of directions
        that change no bit of the logits, P(h = 0), with mean and interval over prompts; `regime_share` (regime, precision,
        dose, prompt), the share of directions in each, with mean and interval. `lost` (precision, prompt), the largest dose up to which at
        least half of the directions are lost at every dose, 0 where the smallest is not; `lost_median`, which of an even number of
        prompts is the geometric mean of the middle two, as doses are spaced by ratios, and its interval over prompts.

    Raises:
        InterpError: doses that are not positive and increasing, an unknown precision, a temperature that is not positive, or a place that
            is not there or is set apart. ResultError: a dose of 0 changes the logits, so that nothing can be told; or a run overflows,
            which is no rounding: the smallest dose with which one does is named, since higher ones say nothing either.
    """
    if isinstance(precisions, str) or not isinstance(precisions, Iterable):
        raise InterpError(f"{WHO}: precisions must be a list of names, got {precisions!r}.")
    if unknown := [one for one in precisions if not is_known(one, PRECISIONS)]:
        raise InterpError(f"{WHO}: unknown precision {unknown[0]!r}. {nearest(str(unknown[0]), PRECISIONS)}")
    if not len(precisions) or len(set(precisions)) < len(precisions):
        raise InterpError(f"{WHO}: give at least one precision, each once; got {list(precisions)}.")
    grid = rising(doses, least=1)
    if grid is None:
        raise InterpError(f"{WHO}: doses must be positive and increasing, got {doses!r}.")
    if not positive(temperature) or n_directions < 1:
        raise InterpError(
            f"{WHO}: temperature and n_directions must be positive, got {temperature!r} and {n_directions}."
        )
    if not 0 <= layer < model.config.n_layers:
        raise InterpError(
            f"{WHO}: layer {layer} is out of range; {model.name} has layers 0 to {model.config.n_layers - 1}."
        )
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    clean = Clean.of(copied(model, torch.float64), tokens)
    places = torch.tensor([[n, clean.position(n, position, WHO)] for n in range(len(tokens))], device=tokens.device)
    unit = draw(clean, layer, places, directions, n_directions, seed, WHO)  # [prompt, direction, d_model]
    size = torch.stack([seen(model.config, clean.entering[layer][n, at]).norm() for n, at in places.tolist()])
    deltas = size[:, None, None, None] * torch.as_tensor(grid, device=size.device)[:, None, None] * unit[:, None]
    apart, lengths = clean.apart.about(), clean.lengths
    del clean  # one copy in float64 at a time
    found = np.empty((2, len(precisions), len(grid), len(tokens), unit.shape[1]))
    gone = np.empty(found.shape, dtype=bool)
    with progress_bar(progress) as bar:
        task = bar.add_task("rounding", total=2 * len(precisions) * len(tokens))
        for number, name in enumerate(precisions):
            here = model if model.dtype == PRECISIONS[name] else copied(model, PRECISIONS[name])
            for exact in (0, 1):
                if exact and name == "float64":
                    found[1, number] = found[0, number]
                    bar.advance(task, len(tokens))
                    continue
                if exact:  # one of our own is converted as it is, so that no two stand at once
                    here = copied(model, torch.float64) if here is model else here.to(torch.float64)
                for n, (row, at) in enumerate(places.tolist()):
                    text = tokens[row, : lengths[row]]
                    of = (exact, number, slice(None), n)
                    found[of], gone[of] = _h(here, text, layer, at, deltas[n], grid, temperature, max_bytes)
                    bar.advance(task)
            del here
    return make(
        "cascade_precision", _summary(found, gone[0], grid),
        {
            "precision": list(precisions), "dose": grid, "direction": np.arange(unit.shape[1]), "regime": list(REGIMES),
            **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}), **token_coords(model, tokens),
        },
        model=model, prompts={"prompt": tokens},
        parameters={
            "layer": layer, "position": position, "directions": directions if isinstance(directions, str) else "given",
            "n_directions": n_directions, "temperature": temperature, "bos": bos, "set_apart": apart,
        },
        seed=seed,
    )  # fmt: skip


def _h(
    model: Transformer, text: Int[Tensor, " position"], layer: int, at: int, deltas: Float[Tensor, "dose direction d_model"],
    grid: Float[np.ndarray, " dose"], temperature: float, max_bytes: int,
) -> tuple[Float[np.ndarray, "dose direction"], Bool[np.ndarray, "dose direction"]]:  # fmt: skip
    """h after the text between the clean run and each disturbed one, and whether their logits are the same to the bit. Both stand in the
    same row of batches of one shape, so that nothing but the disturbance makes them differ."""
    config = model.config
    entering = streams(model, text[None])[layer]  # [1, position, d_model]
    rows = torch.cat([deltas.new_zeros(1, config.d_model), deltas.flatten(0, 1)])  # first a dose of 0
    found, same = torch.empty(len(rows), dtype=torch.float64), torch.empty(len(rows), dtype=torch.bool)
    fits = torch.empty_like(same)
    per_row = entering.element_size() * len(text) * 8 * (config.d_model + config.d_mlp) + 64 * config.d_vocab
    together = max(1, max_bytes // per_row)

    def logits(stream: Float[Tensor, "row position d_model"]) -> Float[Tensor, "row vocab"]:
        read: Tensor = model.unembed(model.run_blocks(stream, start_at_layer=layer)[:, -1:])[:, 0]
        return read

    clean = entering.new_empty(0)
    for start in range(0, len(rows), together):
        here = slice(start, start + together)
        stream = entering.repeat(len(rows[here]), 1, 1)
        if len(clean) != len(stream):
            clean = logits(stream)
        stream[:, at] += rows[here].to(stream)
        moved = logits(stream)
        log_p, log_q = (scaled(one, temperature).log_softmax(-1) for one in (clean, moved))
        found[here], same[here] = disagreement(log_p, log_q).cpu(), (clean == moved).all(-1).cpu()
        fits[here] = (_norms_fit(config, stream[:, at]) & moved.isfinite().all(-1)).cpu()
    _check_fits(fits, grid, model.dtype)
    if not bool(same[0]):
        raise ResultError(f"{WHO}: a dose of 0 changes the logits in {model.dtype}; the model is not deterministic.")
    found[same] = 0.0
    return found[1:].reshape(deltas.shape[:2]).numpy(), same[1:].reshape(deltas.shape[:2]).numpy()


def _norms_fit(config: ModelConfig, stream: Float[Tensor, "row d_model"]) -> Bool[Tensor, " row"]:
    """Whether a norm can measure the stream: of one whose squares overflow it makes zeros, so that the logits do not tell."""
    wide = seen(config, stream.to(torch.promote_types(stream.dtype, torch.float32)))
    fits: Tensor = wide.pow(2).sum(-1).isfinite()
    return fits


def _check_fits(fits: Bool[Tensor, " row"], grid: Float[np.ndarray, " dose"], dtype: torch.dtype) -> None:
    """Raise ResultError where a run overflows, the clean one first, then each dose's directions: that is no rounding."""
    if not bool(fits[0]):
        raise ResultError(
            f"{WHO}: the clean run is not finite in {dtype}, or its weights rounded to one; leave that precision out."
        )
    by_dose = fits[1:].reshape(len(grid), -1).all(-1).numpy()
    if not by_dose.all():
        raise ResultError(
            f"{WHO}: the run with dose {grid[~by_dose][0]:g} overflows in {dtype}, which says nothing of rounding. Give lower doses only, "
            "or a precision of wider range."
        )


def _summary(
    found: Float[np.ndarray, "two precision dose prompt direction"],
    gone: Bool[np.ndarray, "precision dose prompt direction"],
    grid: Float[np.ndarray, " dose"],
) -> dict[str, Variable]:
    h, exact = found
    signal = ~gone & (np.abs(h - exact) <= NEAR * exact)
    unchanged = gone.mean(-1)
    regime = np.stack([unchanged, (~gone & ~signal).mean(-1), signal.mean(-1)])
    lost = lost_doses(unchanged, grid)  # [precision, prompt]
    each = ("precision", "dose", "prompt")
    variables: dict[str, Variable] = {
        "h": ((*each, "direction"), h, "probability that the draws differ", "1"),
        "h_float64": ((*each, "direction"), exact, "the same of the same weights in float64", "1"),
        "unchanged": (each, unchanged, "share of directions that change no bit of the logits", "1"),
        "regime_share": (("regime", *each), regime, "share of directions in the regime", "1"),
        "lost": (("precision", "prompt"), lost, "dose up to which disturbances are lost", "1"),
        "lost_median": (
            ("precision",),
            log_median(lost.T),
            "median over prompts, on the scale of ratios, of the same",
            "1",
        ),
    }
    if h.shape[2] > 1:
        variables |= over_prompts(
            "unchanged", np.moveaxis(unchanged, -1, 0), each[:2], "share that changes no bit", "1", share=True
        )
        variables |= over_prompts(
            "regime_share", np.moveaxis(regime, -1, 0), ("regime", *each[:2]), "share", "1", share=True
        )
        variables |= over_prompts(
            "h", np.moveaxis(h.mean(-1), -1, 0), each[:2], "probability that the draws differ", "1"
        )
        bounds = resampled(lost.T, log_median)
        variables["lost_median_interval"] = (("bound", "precision"), bounds, "95 % interval over prompts", "1")
    return variables


def log_median(doses: Float[np.ndarray, "prompt ..."]) -> Float[np.ndarray, "..."]:
    """The median over prompts of what is spaced by ratios: of an even number the geometric mean of the middle two, 0 where one is 0."""
    low, high = (np.quantile(doses, 0.5, axis=0, method=side) for side in ("lower", "higher"))
    middle: np.ndarray = np.where(low == high, low, np.sqrt(low) * np.sqrt(high))
    return middle


def lost_doses(
    unchanged: Float[np.ndarray, "precision dose prompt"], grid: Float[np.ndarray, " dose"]
) -> Float[np.ndarray, "precision prompt"]:
    """The largest dose up to which half of the directions or more are lost; 0 where the smallest is not."""
    count = np.cumprod(unchanged >= 0.5, axis=1).sum(1)
    largest: np.ndarray = np.concatenate([[0.0], grid])[count]
    return largest
