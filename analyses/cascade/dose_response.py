"""Dose-response: up to which size a disturbance acts as its derivative says, and whether a flat region ends in a jump."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analyses.cascade.directions import Directions, draw
from analyses.cascade.entering import Clean
from analyses.cascade.injection import SMALLEST_DOSE
from analyses.cascade.linear import Linear
from analyses.cascade.rising import rising
from analyses.intervals import over_prompts
from analyses.results import Variable, make, token_coords
from interp.errors import InterpError
from interp.generation import left_aligned
from interp.geometry import seen
from interp.metrics import kl_divergence, log_probabilities, pick, rank
from interp.model import Transformer
from interp.names import block_name
from interp.norms import Norm
from interp.prompts import Prompt
from interp.sweep import MAX_BYTES, sweep
from interp.sweep.interventions import Add, Intervention, Row
from interp.sweep.readouts import EachLayer, positions_of
from interp.sweep.tangents import LinearNorm
from interp.whole_numbers import takes_whole

WHO = "cascade.dose_response"
DOSES = tuple(np.logspace(-4, 0.5, 25).tolist())
PATHS = ("additive", "rotation")
NEAR, COSINE = 0.1, 0.95
"""A dose is in the linear range where the size is within this share of the derivative's, and its direction this near."""

READABLE = 100
"""KL below so many roundings of the model's precision has no slope that could be read."""


@torch.no_grad()
@takes_whole("layer", "position", "target", "n_directions", "seed")
def dose_response(
    model: Transformer,
    prompts: Prompt,
    *,
    doses: Sequence[float] = DOSES,
    layer: int = 0,
    position: int = -1,
    target: int = -1,
    directions: Directions = "isotropic",
    n_directions: int = 4,
    seed: int = 0,
    bos: bool | None = None,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> xr.Dataset:
    """Disturb the stream at one place by more and more, along two paths, and follow what comes out.

    `additive` adds dose * |x| in the direction; a large one also makes the stream longer, so that the norms above shrink everything
    else. `rotation` turns the stream towards the direction, its length kept, until it has moved as far; it reaches doses up to 2.

    Args:
        doses: sizes relative to the stream, increasing; at least 1e-4 in float32.
        layer, position: where; a negative position counts from the end. Not one that is set apart (`analyses.set_apart`).
        target: the position whose prediction is read; negative counts from the end. In a causal model not before `position`.
        directions, n_directions, seed: see `gain`.

    Returns:
        A Dataset over (path, prompt, direction, dose), NaN where a path does not reach: `size`, |delta| of the stream at the output over
        all positions, relative to what was injected; `linearity`, that over the derivative's; `cosine` with the derivative; at the
        target `kl`, KL(P || P') in nats, from differences of logits that keep their digits however small the dose; `logit_change` of the
        clean prediction (its logit less the mean logit), its `rank`, and
        `quadratic_kl`, half the Fisher form of the derivative. By (path, prompt, direction): `linear_range`, the largest dose up to
        which linearity is within 0.1 of 1 and the cosine above 0.95; `plateau`, the dose at which the quadratic form reaches half of
        the largest KL over that at which KL does: above 1 a flat region, whose curvature the form is, ends in a jump; below 1 the response
        levels off. `steepness`, the largest d ln KL / d ln dose from one dose to the next, less 2: 0 where KL is quadratic, large for a
        jump; NaN where no two doses have a KL of 100 roundings of the model's precision. `kl_slope` (path, dose), mean
        d ln KL / d ln dose: 2 where the response is linear. With several prompts means of `kl` and `size`.

    Raises:
        InterpError: doses that are not increasing or too small for the precision, or a place that is not there or is set apart.
    """
    doses = _checked(model, doses, layer)
    tokens = left_aligned(model.to_tokens(prompts, bos=bos))
    clean = Clean.of(model, tokens)
    found = [
        _of_prompt(clean, prompt, doses, layer, position, target, directions, n_directions, seed, max_bytes, progress)
        for prompt in range(len(tokens))
    ]
    stacked = {name: np.stack([one[name] for one in found], axis=1) for name in found[0]}
    each = ("path", "prompt", "direction", "dose")
    described = {
        "size": ("size at the output over that injected", "1"),
        "linearity": ("size over the derivative's", "1"),
        "cosine": ("cosine with the derivative", "1"),
        "kl": ("KL(clean || disturbed)", "nats"),
        "logit_change": ("change of the clean prediction's logit", "logits"),
        "rank": ("rank of the clean prediction, 0 the most probable", "1"),
        "quadratic_kl": ("half the Fisher form of the derivative", "nats"),
    }
    variables: dict[str, Variable] = {name: (each, stacked[name], *about) for name, about in described.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(stacked["kl"])
        slope = np.gradient(logs, np.log(np.asarray(doses)), axis=-1)
    slope[~np.isfinite(slope)] = np.nan
    variables |= {
        "kl_slope": (("path", "dose"), _mean(slope, (1, 2)), "mean d ln KL / d ln dose", "1"),
        "linear_range": (("path", "prompt", "direction"), _linear_range(stacked, doses), "largest linear dose", "1"),
        "plateau": (
            ("path", "prompt", "direction"),
            _plateau(stacked["kl"], stacked["quadratic_kl"], doses),
            "plateau index",
            "1",
        ),
        "steepness": (
            ("path", "prompt", "direction"),
            _steepness(stacked["kl"], doses, READABLE * torch.finfo(model.dtype).eps),
            "largest slope of ln KL less 2",
            "1",
        ),
    }
    if len(tokens) > 1:
        for name in ("kl", "size"):
            by_prompt = stacked[name].mean(2).swapaxes(0, 1)
            variables |= over_prompts(name, by_prompt, ("path", "dose"), *described[name])
    return make(
        "dose_response",
        variables,
        {
            "path": list(PATHS),
            "dose": np.asarray(doses),
            "direction": np.arange(stacked["kl"].shape[2]),
            **({"bound": ["lower", "upper"]} if len(tokens) > 1 else {}),
            **token_coords(model, tokens),
        },
        model=model,
        prompts={"prompt": tokens},
        parameters={
            "layer": layer,
            "position": position,
            "target": target,
            "directions": directions if isinstance(directions, str) else "given",
            "n_directions": n_directions,
            "bos": bos,
            "set_apart": clean.apart.about(),
        },
        seed=seed,
    )


def _checked(model: Transformer, doses: Sequence[float], layer: int) -> Sequence[float]:
    """The doses, once they and the layer are known to be possible."""
    smallest = SMALLEST_DOSE.get(model.dtype)
    if smallest is None:
        raise InterpError(
            f"{WHO}: {model.dtype} is too coarse to measure small differences; load in float32 or float64."
        )
    given = rising(doses, least=3)
    if given is None or given[0] < smallest * (1 - 1e-9):
        raise InterpError(
            f"{WHO}: doses must be three at least, increasing, and in {model.dtype} not below {smallest:g}; load in float64 for "
            "smaller ones."
        )
    if not 0 <= layer < model.config.n_layers:
        raise InterpError(
            f"{WHO}: layer {layer} is out of range; {model.name} has layers 0 to {model.config.n_layers - 1}."
        )
    return tuple(given.tolist())


def _of_prompt(
    run: Clean,
    prompt: int,
    doses: Sequence[float],
    layer: int,
    position: int,
    target: int,
    directions: Directions,
    n_directions: int,
    seed: int,
    max_bytes: int,
    progress: bool,
) -> dict[str, np.ndarray]:
    """Everything of one prompt, [path, direction, dose]."""
    model, config = run.model, run.model.config
    tokens = run.tokens[prompt, : run.lengths[prompt]]
    at = run.position(prompt, position, WHO)
    (read,) = positions_of(target, [len(tokens)], WHO)
    if config.causal and read < at:
        raise InterpError(
            f"{WHO}: nothing at position {target} depends on position {position}: the target must not be earlier."
        )
    unit = draw(run, layer, torch.tensor([[prompt, at]], device=tokens.device), directions, n_directions, seed, WHO)[0]
    x = seen(config, run.entering[layer][prompt, at])
    aside = _aside(x, unit)
    steps = torch.stack([_additive(x, unit, doses), _rotation(x, aside, doses)])  # [path, direction, dose, d_model]
    reached = ~steps.isnan().any(-1)
    name = block_name(layer, "hook_resid_pre")
    rows = [Row([Intervention(name, Add(step), positions=at)]) for step in steps[reached]]
    readout = EachLayer(lambda stream, base: stream)
    swept = sweep(model, tokens[None], rows, readout, max_bytes=max_bytes, progress="injecting" if progress else None)
    final, clean = swept.values[:, -1], swept.base[0, -1]  # [row, position, d_model]
    delta = seen(config, final - clean)
    linear = Linear(run.linearised(prompt), layer, config.n_layers)
    spread = linear.spread(at, torch.cat([unit, aside]))  # what each path begins as
    pushed = spread.reshape(len(PATHS), len(unit), *spread.shape[1:])
    which = reached.nonzero()
    own = pushed[which[:, 0], which[:, 1]]
    injected = steps[reached].norm(dim=-1)
    size = delta.flatten(1).norm(dim=1)
    logits, moved = _logits(model, clean[read], final[:, read])
    log_p, log_q = log_probabilities(logits), log_probabilities(logits + moved)
    best = log_p.argmax(-1).expand(len(log_q))
    values = {
        "size": size / injected,
        "linearity": size / (injected * own.flatten(1).norm(dim=1)),
        "cosine": torch.cosine_similarity(delta.flatten(1), own.flatten(1), dim=1),
        "kl": kl_divergence(log_p.expand_as(log_q), log_q),
        "logit_change": pick(moved, best) - moved.mean(-1),
        "rank": rank(log_q, best).to(size.dtype),
    }
    laid = {}
    for key, value in values.items():
        whole = torch.full(reached.shape, torch.nan, dtype=value.dtype, device=value.device)
        whole[reached] = value
        laid[key] = whole.cpu().double().numpy()
    scale = torch.tensor(list(doses), dtype=torch.float64) * float(x.norm())
    fisher = _fisher(model, clean[read], pushed[:, :, read].flatten(0, 1)).reshape(len(PATHS), -1, 1)
    laid["quadratic_kl"] = (fisher * scale**2 / 2).numpy()
    return laid


def _additive(x: Tensor, unit: Tensor, doses: Sequence[float]) -> Float[Tensor, "direction dose d_model"]:
    added: Tensor = unit[:, None] * x.norm() * torch.tensor(list(doses), dtype=x.dtype, device=x.device)[:, None]
    return added


def _aside(x: Tensor, unit: Tensor) -> Float[Tensor, "direction d_model"]:
    """The directions without what they have of the stream's own."""
    ahead = x / x.norm()
    aside: Tensor = torch.nn.functional.normalize(unit - (unit @ ahead)[:, None] * ahead, dim=-1)
    return aside


def _rotation(x: Tensor, aside: Tensor, doses: Sequence[float]) -> Float[Tensor, "direction dose d_model"]:
    """The chord of a turn towards the direction; NaN beyond a whole turn back, which is a chord of 2."""
    chord = torch.tensor(list(doses), dtype=x.dtype, device=x.device)
    angle = 2 * torch.asin((chord / 2).where(chord <= 2, torch.nan))
    turned: Tensor = (angle.cos() - 1)[:, None] * x + x.norm() * angle.sin()[:, None] * aside[:, None]
    return turned


def _logits(
    model: Transformer, clean: Float[Tensor, " d_model"], disturbed: Float[Tensor, "row d_model"]
) -> tuple[Float[Tensor, " vocab"], Float[Tensor, "row vocab"]]:
    """Logits of the clean stream, and how far those of the disturbed ones are from them, in float64.

    The second is the difference of the normed streams, unembedded: that of two logits in float32 is mostly rounding where it is small.
    """

    def normed(x: Tensor) -> Tensor:  # but for a bias, which both have
        if not isinstance(model.ln_final, Norm):
            return x.double()
        wide, scale = model.ln_final.measured(x.double())
        return wide / scale * model.ln_final.weight

    products = torch.nn.functional.linear(model.ln_final(clean[None, None]), model.W_U.mT, model.b_U)[0, 0]
    moved = ((normed(disturbed) - normed(clean)).to(model.dtype) @ model.W_U).double()
    cap = model.config.logit_cap
    if cap is not None:
        before = products.double()
        moved = cap * (((before + moved) / cap).tanh() - (before / cap).tanh())
    return model.finished_logits(products).double(), moved


def _fisher(
    model: Transformer, stream: Float[Tensor, " d_model"], tangents: Float[Tensor, "direction d_model"]
) -> Float[Tensor, " direction"]:
    """t^T F t for the derivative t of the logits along each tangent: its variance under the prediction."""

    wide = torch.promote_types(stream.dtype, torch.float32)
    logits = model.unembed(stream[None, None])[0, 0]
    # not torch's forward mode, whose levels all threads share
    normed = LinearNorm(model.ln_final, stream[None].to(wide)).push(tangents[:, None].to(wide), slice(0, 1))[:, 0]
    moved = (normed @ model.W_U.to(wide)).double()
    if model.config.logit_cap is not None:
        moved = moved * (1 - (logits.double() / model.config.logit_cap) ** 2)
    p = log_probabilities(logits.double()).exp()
    variance: Tensor = (p * (moved - (p * moved).sum(-1, keepdim=True)) ** 2).sum(-1)
    return variance.cpu()


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Over what is there; NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axes)
    mean: np.ndarray = np.where(count > 0, np.where(there, values, 0).sum(axes) / np.maximum(count, 1), np.nan)
    return mean


def _linear_range(values: dict[str, np.ndarray], doses: Sequence[float]) -> Float[np.ndarray, "path prompt direction"]:
    """The dose before the first that is not linear; 0 where the smallest is not."""
    linear = (np.abs(values["linearity"] - 1) < NEAR) & (values["cosine"] > COSINE)
    count = np.cumprod(linear, axis=-1).sum(-1)
    largest: np.ndarray = np.concatenate([[0.0], np.asarray(doses)])[count]
    return largest


def _plateau(
    kl: Float[np.ndarray, "path prompt direction dose"],
    quadratic: Float[np.ndarray, "path prompt direction dose"],
    doses: Sequence[float],
) -> Float[np.ndarray, "path prompt direction"]:
    """The quadratic's dose at half of the largest KL over KL's own, by straight lines between the logarithms; the quadratic's is exact."""
    r = np.log(np.asarray(doses))
    index = np.full(kl.shape[:-1], np.nan)
    for at in np.ndindex(index.shape):
        there = np.isfinite(kl[at]) & (kl[at] > 0)
        if there.sum() < 2:
            continue
        own, logs = r[there], np.log(kl[at][there])
        half = logs.max() - np.log(2)
        above = int((logs >= half).argmax())
        if above == 0 or quadratic[at][-1] <= 0:
            continue
        share = (half - logs[above - 1]) / (logs[above] - logs[above - 1])
        reached = own[above - 1] + share * (own[above] - own[above - 1])
        expected = r[-1] + (half - np.log(quadratic[at][-1])) / 2
        index[at] = np.exp(expected - reached)
    return index


def _steepness(
    kl: Float[np.ndarray, "path prompt direction dose"], doses: Sequence[float], least: float
) -> Float[np.ndarray, "path prompt direction"]:
    """The largest d ln KL / d ln dose between neighbouring doses whose KL is `least` or more, less 2; NaN where there are none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.diff(np.log(np.where(kl >= least, kl, np.nan)), axis=-1) / np.diff(np.log(np.asarray(doses)))
    largest: np.ndarray = np.where(np.isfinite(slope), slope, -np.inf).max(-1) - 2
    return np.where(np.isfinite(largest), largest, np.nan)
