"""The cascade inside: what `interp cascade inside` and the report measure and show."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from analyses import cascade
from analyses.attribution import direct_logit_attribution
from analyses.cascade.contrast import describe_directions
from analyses.cascade.damping import describe_damping
from analyses.cascade.directions import same_as
from analyses.cascade.gain import describe_gain
from analyses.cascade.injection import Injected, check_request, inject
from analyses.cascade.light_cone import describe_cone
from analyses.cascade.lyapunov import exponents_beside
from analyses.clusters import units_of
from analyses.plots.together import NULL
from analyses.report.beside import Read, beside_twins
from analyses.report.cascade_sentences import precision_read, regions_read, repair_read, verdict_read
from analyses.report.section import Shown
from analyses.report.shelf import Shelf, parts_shelf, twins_shelf
from analyses.report.steps import Compute, Step, within_clusters
from analyses.set_apart import begins_with_bos
from interp.config import ModelConfig
from interp.errors import ConfigError, InterpError
from interp.generation import left_aligned
from interp.geometry import seen_directions
from interp.model import Transformer
from interp.tokenizer import PAD

QUICK = ("covariance", "token", "activation", "unembedding")
"""Kinds of directions that are drawn at once; `singular` ones take a decomposition for every place."""

OF_ONE_PLACE = ("token", "unembedding")
"""Those of them that do not compare places."""

WIDE, PROBES = 256, 64
"""Directions of the stream beyond which the participation of every place is estimated, and by how many random ones."""

BETWEEN = 8
"""Layers at most, evenly spaced, at which the way from one activation to another is followed."""

ROUNDED: dict[str, Any] = {
    "precisions": ("float32", "bfloat16"), "doses": tuple(np.logspace(-8, 0, 9).tolist()), "n_directions": 2,
    "max_bytes": 2**25,
}  # fmt: skip
"""What rounding is measured of: less than `cascade.precision` does by default, since it runs each dose in float64 too, with the weights of
the model, of its twin and of one of them in float64 at a time."""

SHOWN = {
    "gain": (
        "A disturbance is injected in random directions at each position, and followed upward; positions of BOS or of a massive stream "
        "are set apart. G is the size of the whole disturbance against the injected one; Γ is its size where it was injected, relative to "
        "the stream there, so that a stream which itself grows does not count as amplification; k is the growth over one layer. Above "
        "the dotted line it grows, below it dies away. Grey is the same architecture before training; dashed, where drawn, what "
        "mean-field theory predicts for that."
    ),
    "verdict": "",
    "cone": (
        "Where a disturbance injected at one token goes: blank is exactly nothing. Right, how much of it is no longer where it "
        "was injected, and how what arrives falls off with distance."
    ),
    "ledger": (
        "The growth of the difference between two prompts, or of an injection where a prompt has no other beside it, split to the "
        "last digit: each bar is what one attention layer or MLP adds to its logarithm, each cell what one head adds, because it "
        "looks elsewhere, because what it reads has turned, or because the norm scales it otherwise."
    ),
    "directions": "Which kinds of directions grow more than random ones of the same dose.",
    "dose": (
        "How the output answers to a larger disturbance: along the dashed line as the derivative says. Above it a flat region has "
        "ended in a jump; below it the answer levels off."
    ),
    "regions": "",
    "precision": "",
    "spectrum": "How many directions grow on the way from the last position's embedding to its output, and by how much.",
    "participation": (
        "The same for every place of the stream: of its directions, how many share what reaches the output, and how much of a "
        "random disturbance there arrives."
    ),
    "exponents": "Growth rates of independent disturbances at the last position, layer by layer and over the whole depth.",
    "damping": "The same injections with the scales of all norms held: the difference is what the norms take away.",
    "repair": "",
}
"""Each figure's result, in the order in which they are shown, and how to read it where `READ` does not say."""

SLOW = ("regions", "precision")
"""Results that `interp cascade inside` leaves to the report unless it is asked for all."""

READ: Read = {"verdict": verdict_read, "repair": repair_read, "precision": precision_read, "regions": regions_read}


def check_inside(
    model: Transformer, texts: Sequence[str], *, dose: float = 1e-2, layer: int = 0, n_directions: int = 8
) -> None:
    """Raise InterpError, before any work, where a disturbance of these prompts cannot be followed."""
    check_request(model, dose, layer, n_directions, "cascade inside")
    tokens = left_aligned(model.to_tokens(texts))
    if bool((begins_with_bos(model, tokens) & ((tokens != PAD).sum(1) < 2)).any()):
        raise InterpError("cascade inside: a prompt holds nothing but the beginning-of-text token; give a longer one.")


def inside_steps(
    model: Transformer,
    texts: Sequence[str],
    others: Sequence[str],
    results: dict[str, xr.Dataset],
    *,
    answers: dict[str, Any] | None = None,
    clusters: Sequence[Any] | None = None,
    dose: float = 1e-2,
    layer: int = 0,
    n_directions: int = 8,
    seed: int = 0,
    shelf: Shelf | None = None,
    leave: Sequence[str] = (),
) -> list[Step]:
    """How to get every result of `SHOWN`, in order, each of the model and then of its random-init twin (`gain_null`), with `theory`;
    None of those that the model's architecture does not have. What is measured of the twin is kept in the user's cache, so the twin is
    built only where something of it is not there yet.

    Args:
        others: corrupt partners of the texts, whose difference the ledger follows and towards which the stable regions go; without them
            the ledger follows an injection, and the way goes to the next text, if there is one.
        results: where the earlier steps' results will be.
        answers: `answer` and perhaps `wrong`, after which self-repair is measured; without them it is not.
        clusters: of the texts, over which intervals are; see `analyses.clustered`.
        shelf: where finished results of the model itself are kept.
        leave: names of results that are not wanted.
    """
    request: dict[str, Any] = {"dose": dose, "layer": layer, "n_directions": n_directions, "seed": seed}
    kept = twins_shelf(model, _asked(model, texts, others, answers, request, clusters), otherwise=shelf)

    @cache
    def twin() -> Transformer:
        return cascade.random_twin(model, seed)

    def of_twin(name: str, step: Compute) -> Compute:
        return lambda: kept.part(name, step)

    own = _steps_of(model.config, lambda: model, texts, others, request, answers, results, "")
    null = {
        f"{name}{NULL}": of_twin(f"{name}{NULL}", step)
        for name, step in _steps_of(model.config, twin, texts, others, request, answers, results, NULL).items()
    }
    steps = {"gain": own.pop("gain"), f"gain{NULL}": null.pop(f"gain{NULL}")}
    steps["theory"] = of_twin("theory", lambda: predicted(twin(), texts, layer))
    steps["verdict"] = lambda: cascade.internal_verdict(results["gain"], null=results[f"gain{NULL}"])
    for name, step in own.items():
        steps |= {name: step, f"{name}{NULL}": null[f"{name}{NULL}"]}
    kept_here = {
        name: step if shelf is None or is_of_twin(name) or name == "verdict" else partial(shelf.part, name, step)
        for name, step in steps.items()
        if name.removesuffix(NULL) not in leave
    }
    return [(name, within_clusters(clusters, step)) for name, step in kept_here.items()]


def is_of_twin(name: str) -> bool:
    """Whether the result of that name is of the random-init twin alone."""
    return name.endswith(NULL) or name == "theory"


def _asked(
    model: Transformer,
    texts: Sequence[str],
    others: Sequence[str],
    answers: dict[str, Any] | None,
    request: Mapping[str, Any],
    clusters: Sequence[Any] | None,
) -> dict[str, Any]:
    """All that shapes the numbers besides the model, as JSON values."""
    units = None if clusters is None else units_of(clusters, len(texts), "cascade inside").tolist()
    ids = {
        role: model.to_tokens(those).tolist() if those else [] for role, those in (("texts", texts), ("others", others))
    }
    return {"what": "cascade inside", **ids, "answers": answers, "clusters": units, **request}


def inside_shelf(
    folder: Path | None,
    model: Transformer,
    texts: Sequence[str],
    others: Sequence[str],
    *,
    answers: dict[str, Any] | None = None,
    clusters: Sequence[Any] | None = None,
    **request: Any,
) -> Shelf:
    """Where the finished parts of `interp cascade inside` are kept; the arguments are those of `inside_steps`."""
    return parts_shelf(folder, model, _asked(model, texts, others, answers, request, clusters))


def _steps_of(
    config: ModelConfig,
    model: Callable[[], Transformer],
    texts: Sequence[str],
    others: Sequence[str],
    request: dict[str, Any],
    answers: dict[str, Any] | None,
    results: Mapping[str, xr.Dataset],
    suffix: str,
) -> dict[str, Compute]:
    """How to measure everything of one model, which is made when it is needed; one injection serves four of them, and one spectrum two.
    What was measured before is in `results` under the step's name and the suffix."""
    is_sum = config.is_sum
    layer, seed, dose = request["layer"], request["seed"], request["dose"]
    most = seen_directions(config)

    @cache
    def injected(directions: str = "isotropic", frozen: bool = False) -> Injected:
        base = None if directions == "isotropic" else injected()
        return inject(
            model(), texts, who="cascade inside", directions=directions, frozen=frozen, beside=base, **request
        )

    def directions() -> xr.Dataset:
        kinds = QUICK if len(injected().places) > 1 else OF_ONE_PLACE
        return describe_directions(
            model(), injected(), {kind: injected(same_as(model(), kind)) for kind in kinds}, seed
        )

    def regions() -> xr.Dataset | None:
        if not others and len(texts) < 2:
            return None
        layers = np.unique(np.linspace(0, config.n_layers - 1, BETWEEN).round().astype(int)).tolist()
        return cascade.stable_regions(model(), texts, others or None, layers=layers, seed=seed, max_bytes=2**27)

    def spectrum() -> xr.Dataset:
        return cascade.jacobian_spectrum(model(), texts, source=(layer, -1), k=None, seed=seed)

    def exponents() -> xr.Dataset:
        k, found = min(32, most), results.get(f"spectrum{suffix}")
        if found is not None and config.causal and layer == 0 and found.sizes["singular"] == most:
            return exponents_beside(model(), texts, found, k=k, seed=seed)
        return cascade.lyapunov(model(), texts, k=k, seed=seed)

    def repair() -> xr.Dataset | None:
        if answers is None or not is_sum:
            return None
        effect = direct_logit_attribution(model(), texts, **answers)["head_effect"].mean("prompt").to_numpy()
        found = np.unravel_index(int(effect.argmax()), effect.shape)
        return cascade.self_repair(model(), texts, (int(found[0]), int(found[1])), **answers)

    return {
        "gain": lambda: describe_gain(model(), injected(), seed),
        "cone": lambda: describe_cone(model(), injected(), seed),
        "ledger": lambda: cascade.ledger(model(), texts, others or None, dose=dose, layer=layer, seed=seed) if is_sum else None,
        "directions": directions,
        "dose": lambda: cascade.dose_response(model(), texts, layer=layer, seed=seed),
        "regions": regions,
        "precision": lambda: cascade.precision(model(), texts, layer=layer, seed=seed, **ROUNDED),
        "spectrum": spectrum,
        "participation": lambda: cascade.participation(model(), texts, layer=layer, probes=PROBES if most > WIDE else None, seed=seed),
        "exponents": exponents,
        "damping": lambda: describe_damping(model(), injected(), injected(frozen=True), seed) if config.norm != "none" else None,
        "repair": repair,
    }  # fmt: skip


def predicted(twin: Transformer, texts: Sequence[str], layer: int = 0) -> xr.Dataset | None:
    """The mean-field prediction; None for an injection above layer 0 or a shape that it does not cover."""
    if layer != 0:
        return None
    try:
        return cascade.mean_field(twin, texts)
    except ConfigError:
        return None


def figures(results: Mapping[str, xr.Dataset]) -> list[Shown]:
    """Each figure of `SHOWN` that there is a result for, and how to read it; then the same at random initialisation, on its scales.

    Where a result was left out, that stands in the figure's place.
    """
    return beside_twins(results, SHOWN, READ)
