"""How much of a circuit is in the pairs that happened to be drawn."""

import json

import numpy as np
import xarray as xr
from jaxtyping import Float

from analyses.circuits.circuit import counted
from analyses.circuits.edges import edges
from analyses.circuits.scores import scores_by_pair, shape_of_result
from interp.errors import ResultError
from interp.whole_numbers import takes_whole

WHO = "circuit_stability"


@takes_whole("count", "draws", "seed", least={"count": 1, "draws": 2})
def circuit_stability(
    result: xr.Dataset,
    *,
    count: int | None = None,
    share: float | None = None,
    absolute: bool = True,
    method: str | None = None,
    draws: int = 500,
    seed: int = 0,
) -> xr.Dataset:
    """How often each edge is chosen when the pairs are drawn anew, with replacement: what of a circuit is the model's, what the sample's.

    Circuits from resamples of one data set may share few edges while each is as faithful as the other. An edge with a frequency near 1
    is found whatever the sample.

    Args:
        result: of `edge_patching` or `edge_attribution`, of two pairs or more.
        count, share: how many edges are chosen, see `Circuit.from_scores`; one of the two.
        absolute, method: as there.
        draws: how many resamples; seed: of those.

    Returns:
        A Dataset over `edge`: `frequency`, the share of resamples in which it is chosen; `chosen`, whether it is from all pairs;
        `score`, its mean over pairs; `overlap` (draw), edges of both over edges of either of a resample's circuit and that from all pairs.

    Raises:
        ResultError: fewer than two pairs, or as `edge_scores`. InterpError: as `Circuit.from_scores`.
    """
    if result.sizes.get("prompt", 0) < 2:
        raise ResultError(
            f"{WHO}: from {result.sizes.get('prompt', 0)} pair there is nothing to resample; take several."
        )
    per_pair = scores_by_pair(result, method, WHO)
    whole = per_pair.mean(0)
    shape = shape_of_result(result)
    if (count is None) == (share is None):
        raise ResultError(f"{WHO}: give count or share.")
    number = counted(count, share, len(edges(shape, who=WHO)))
    if number == 0 or number > per_pair.shape[1]:
        raise ResultError(f"{WHO}: {number} edges to choose of the {per_pair.shape[1]} that the result has.")
    rng = np.random.default_rng(seed % 2**64)
    times = np.stack(
        [np.bincount(rng.integers(0, len(per_pair), len(per_pair)), minlength=len(per_pair)) for _ in range(draws)]
    )
    base = _first(whole, number, absolute)
    drawn = np.stack([_first(weights @ per_pair / len(per_pair), number, absolute) for weights in times])
    both, either = (drawn & base).sum(1), (drawn | base).sum(1)
    data = {
        "frequency": ("edge", drawn.mean(0), "share of resamples of the pairs in which the edge is chosen"),
        "chosen": ("edge", base, "whether it is chosen from all pairs"),
        "score": ("edge", whole, "mean score over pairs"),
        "overlap": (
            "draw",
            both / either,
            "edges of both over edges of either: a resample's circuit and that from all pairs",
        ),
    }
    units = {"score": result["clean_baseline"].attrs["units"]}
    made = xr.Dataset(
        {
            name: (dim, values, {"long_name": said, "units": units.get(name, "1")})
            for name, (dim, values, said) in data.items()
        },
        coords={name: result[name] for name in ("edge", "source", "destination")},
        attrs=dict(result.attrs),
    )
    before = json.loads(result.attrs["parameters"])
    parameters = {"count": number, "absolute": absolute, "draws": draws, "of": before, "method": method}
    made.attrs |= {"kind": "circuit_stability", "parameters": json.dumps(parameters), "seed": json.dumps(seed)}
    return made


def _first(scores: Float[np.ndarray, " edge"], number: int, absolute: bool) -> np.ndarray:
    """Which edges come first, as `Circuit.from_scores` has it."""
    size = np.nan_to_num(np.abs(scores) if absolute else scores, nan=-np.inf)
    there = np.zeros(len(scores), dtype=bool)
    there[np.argsort(-size, kind="stable")[:number]] = True
    return there
