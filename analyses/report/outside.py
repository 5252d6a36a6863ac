"""The cascade outside: what `interp cascade outside` and the report measure and show."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from analyses import cascade
from analyses.cascade.commitment import describe_commitment
from analyses.cascade.coupled import Coupled, couple, describe_coupled
from analyses.cascade.disturbances import Disturbance, Nudge, Replace, Unrelated
from analyses.cascade.driven import describe_driven
from analyses.cascade.external import SHORTEST
from analyses.cascade.survival import describe_survival, forced
from analyses.clusters import units_of
from analyses.plots.together import NULL
from analyses.report.beside import Read, beside_twins
from analyses.report.cascade_sentences import commitment_read, rasters_read, wavefront_read
from analyses.report.inside import check_inside
from analyses.report.section import Shown
from analyses.report.shelf import Shelf, parts_shelf, twins_shelf
from analyses.report.steps import Compute, Step, within_clusters
from interp.errors import InterpError
from interp.generation import Sampling, check_room, left_aligned
from interp.model import Transformer
from interp.sweep import MAX_BYTES
from interp.tokenizer import PAD

SHOWN = {
    "wavefront": "",
    "external": (
        "R, how many tokens each changed token changes apart from what the disturbed beginning goes on striking. Below 1 what is "
        "changed dies away by itself, however much the beginning goes on changing; above 1 it is a pile, if the last quarter of the text "
        "and the changed tokens at three lengths bear that out. Where the interval holds 1, nothing is claimed."
    ),
    "driven": (
        "Tokens that differ where both texts go their own ways, beside those that the disturbed beginning alone would change along "
        "one and the same text. What is between them, changed tokens have changed."
    ),
    "joined": "Each prompt: growth inside the model against what happens outside it. The two verdicts need not agree.",
    "coupled": (
        "The same prompt as it is and disturbed, continued on the same random numbers, so that what differs is due to the "
        "disturbance. Beneath, how far apart the next-token distributions are, and how often the next draws would differ."
    ),
    "commitment": "",
    "survival": (
        "How long the two texts stay the same: exactly, from the probabilities along the clean text, and counted in the coupled "
        "texts."
    ),
    "reproduction": (
        "One token of a text is swapped and the rest kept: how often would each later token have been another? The sum up to a "
        "horizon is the number of tokens that one changed token changes. In the closed loop it is counted from the texts "
        "themselves, where changes coincide: above 1 each changed token begets more than one."
    ),
    "avalanches": (
        "How many tokens a disturbance changes before it comes to rest, against a power law and against Borel's law, which a "
        "branching process of the same ratio gives. A power law alone would prove nothing."
    ),
    "rasters": "",
    "channels": (
        "After one nudge the disturbance lives on in the keys and values that are kept and in the tokens that are drawn. Each "
        "is shut in turn."
    ),
    "temperature": (
        "The same against the temperature of sampling, at several lengths. At a critical temperature the peak of the "
        "susceptibility, the variance over draws of one prompt, grows with length, and the curves of all lengths fall onto one, which is "
        "judged on prompts that were not fitted; where the peak does not grow, it is a crossover."
    ),
}
"""Each figure's result, in the order in which they are shown, and how to read it where `READ` does not say."""

READ: Read = {"wavefront": wavefront_read, "commitment": commitment_read, "rasters": rasters_read}

PICTURED = 20
"""Tokens at most that the picture of one disturbance goes on for."""

DRAWS = 2
"""Draws of each prompt at most whose branch is patched at every place."""

WHO = "cascade outside"
HORIZON = 32


def check_outside(
    model: Transformer, texts: Sequence[str], disturbance: Disturbance, *, seeds: int, steps: int, temperature: float
) -> None:
    """Raise InterpError, before any work, where the texts cannot be continued or disturbed as is asked."""
    Sampling(temperature)  # checks it
    if seeds < 1 or steps < SHORTEST:
        raise InterpError(f"{WHO}: seeds must be 1 and steps {SHORTEST} at least, got {seeds} and {steps}.")
    tokens = left_aligned(model.to_tokens(texts))
    check_inside(model, texts)  # each prompt's growth inside is set beside it
    check_room(model, tokens, steps)
    check_room(model, left_aligned(disturbance.begin(model, tokens, WHO)), steps)


def outside_steps(
    model: Transformer,
    texts: Sequence[str],
    disturbance: Disturbance,
    results: dict[str, xr.Dataset],
    *,
    seeds: int,
    steps: int,
    temperature: float,
    clusters: Sequence[Any] | None = None,
    seed: int = 0,
    folder: Path | None = None,
) -> list[Step]:
    """How to get every result of `SHOWN`, in an order in which each finds those it is made of; None where it cannot be. Rasters and
    commitment are those of the random-init twin too (`rasters_null`), disturbed in the same tokens; they are kept in the user's cache.

    Args:
        results: where the earlier steps' results will be.
        clusters: of the texts, over which intervals are; see `analyses.clustered`.
        folder: where finished parts are kept.
    """
    request: dict[str, Any] = {"seeds": seeds, "steps": steps, "temperature": temperature, "seed": seed}

    def parts(name: str) -> Path | None:
        return None if folder is None else folder / name

    @cache
    def run() -> Coupled:
        return couple(model, texts, disturbance, folder=parts("coupled"), **request)

    def reproduction() -> xr.Dataset | None:
        if greedy:
            return None
        results["coupled"]  # an error where it was left out: it is not run in vain a second time
        return cascade.reproduction(model, texts, temperature=temperature, horizon=horizon, loop=run(), seed=seed)

    @cache
    def along() -> tuple[np.ndarray, np.ndarray]:
        return forced(model, run(), MAX_BYTES)

    def driven() -> xr.Dataset | None:
        if greedy:
            return None
        results["coupled"]
        return describe_driven(model, run(), results["reproduction"], along=along())

    @cache
    def alike() -> Disturbance:
        """What disturbs the twin, and the one prompt of the picture: the same tokens, whatever the model thinks most probable."""
        if isinstance(disturbance, Nudge):
            return disturbance
        return Replace(left_aligned(disturbance.begin(model, left_aligned(model.to_tokens(texts)), WHO)))

    @cache
    def twin() -> Transformer:
        return cascade.random_twin(model, seed)

    @cache
    def run_of_twin() -> Coupled:
        results["coupled"]
        return couple(twin(), texts, alike(), folder=parts(f"coupled{NULL}"), **request)

    def of_twin(name: str, step: Compute) -> Step:
        return f"{name}{NULL}", lambda: kept.part(f"{name}{NULL}", step)

    def rasters_of_twin() -> xr.Dataset:
        found = describe_coupled(twin(), run_of_twin())
        return cascade.rasters(twin(), texts, texts=found, seed=seed)

    def commitment(which: Callable[[], Transformer], texts_of: Callable[[], Coupled]) -> xr.Dataset | None:
        if isinstance(disturbance, Nudge) or not texts_of().damage.any():
            return None
        return describe_commitment(which(), texts_of(), draws=DRAWS)

    def own() -> Coupled:
        results["coupled"]
        return run()

    def wavefront() -> xr.Dataset:
        pair = [left_aligned(model.to_tokens(texts))]
        pair += [alike().begin(model, pair[0], WHO)]
        lengths = [(rows != PAD).sum(1) for rows in pair]
        same = (lengths[0] == lengths[1]).nonzero()[:, 0].tolist()
        at = same[0] if same else 0
        clean, other = (rows[at : at + 1, : int(length[at])] for rows, length in zip(pair, lengths, strict=True))
        how = disturbance if isinstance(disturbance, Nudge) else Replace(other)
        return cascade.wavefront(model, clean, how, steps=min(steps, PICTURED), temperature=temperature, seed=seed)

    def survival() -> xr.Dataset:
        results["coupled"]
        several = len(run().clean) > 1
        unrelated = couple(model, texts, Unrelated(), folder=parts("unrelated"), **request) if several else None
        return describe_survival(model, run(), unrelated, along=along())

    def joined() -> xr.Dataset | None:
        if greedy:
            return None
        gain = cascade.gain(model, texts, seed=seed)
        inside = cascade.internal_verdict(gain)
        return cascade.joined_verdict(inside, results["external"], gain=gain, coupled=results["coupled"])

    greedy = temperature == 0
    lengths = [steps // 4, steps // 2, steps]
    nudge = disturbance if isinstance(disturbance, Nudge) else Nudge(dose=0.5)
    horizon = min(HORIZON, steps // 2)
    units = None if clusters is None else units_of(clusters, len(texts), WHO).tolist()
    kept = twins_shelf(model, outside_asked(model, texts, disturbance, **request, clusters=units))
    stages: list[Step] = [
        ("wavefront", wavefront),
        ("coupled", lambda: describe_coupled(model, run())),
        ("reproduction", reproduction),
        ("driven", driven),
        ("external", lambda: None if greedy else cascade.external_verdict(results["driven"])),
        ("joined", joined),
        ("commitment", lambda: commitment(lambda: model, own)),
        of_twin("commitment", lambda: commitment(twin, run_of_twin)),
        ("survival", survival),
        ("avalanches", lambda: cascade.avalanches(results["coupled"], reproduction=results.get("reproduction"))),
        ("rasters", lambda: cascade.rasters(model, texts, texts=results["coupled"], seed=seed)),
        of_twin("rasters", rasters_of_twin),
        ("channels", lambda: None if greedy else cascade.channels(model, texts, nudge, folder=parts("channels"), **request)),
        (
            "temperature",
            partial(
                cascade.temperature_sweep, model, texts, disturbance, lengths=lengths, seeds=seeds, seed=seed, folder=parts("temperature")
            ),
        ),
    ]  # fmt: skip
    return [(name, within_clusters(clusters, stage)) for name, stage in stages]


def outside_asked(model: Transformer, texts: Sequence[str], disturbance: Disturbance, **request: Any) -> dict[str, Any]:
    """All that shapes the numbers besides the model, as JSON values; `request` is what `outside_steps` takes."""
    tokens = left_aligned(model.to_tokens(texts))
    return {
        "what": WHO,
        "tokens": tokens.tolist(),
        "disturbed": left_aligned(disturbance.begin(model, tokens, WHO)).tolist(),
        "disturbance": disturbance.about(),
        **request,
    }


def outside_shelf(
    folder: Path | None, model: Transformer, texts: Sequence[str], disturbance: Disturbance, **request: Any
) -> Shelf:
    """Where the finished parts of `interp cascade outside` are kept; the arguments are those of `outside_steps`."""
    return parts_shelf(folder, model, outside_asked(model, texts, disturbance, **request))


def figures(results: Mapping[str, xr.Dataset]) -> list[Shown]:
    """Each figure of `SHOWN` that there is a result for, and how to read it, some also at random initialisation; in the place of what was
    left out, why."""
    return beside_twins(results, SHOWN, READ)
