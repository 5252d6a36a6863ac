"""Avalanches: how many tokens one disturbance changes before it comes to rest."""

import json
import warnings
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy import optimize, special, stats

from analyses.cascade.reproduction import branching_ratio, loop_counts
from analyses.cascade.survival import runs_of
from analyses.intervals import ratio_interval, resampled
from analyses.results import is_result
from interp.errors import ResultError
from interp.whole_numbers import takes_whole

RIVALS = ("lognormal", "exponential", "borel")
FEWEST = 20
"""Avalanches that came to rest below which no law is fitted."""


@takes_whole("gap")
def avalanches(result: xr.Dataset, *, gap: int = 8, reproduction: xr.Dataset | None = None) -> xr.Dataset:
    """Sizes and durations of the avalanches that a disturbance sets off, and the laws they follow.

    An avalanche begins with the disturbance and ends with the last changed token before `gap` unchanged ones. Its size is 1 (the
    disturbance) plus the changed tokens, after alignment, its duration the step of the last of them, 0 where there is none. One that has
    not come to rest when the text ends is known to be at least as large as seen.

    The exponent is the discrete maximum likelihood up to the largest size that can come to rest in the text (the cutoff); against
    lognormal and exponential, likelihood-ratio tests of the powerlaw package (Alstott, Bullmore and Plenz 2014, arXiv 1305.0215), against
    Borel's law, which a Poisson branching process gives exactly, Vuong's. A power law alone is no evidence of criticality.

    Args:
        result: of `analyses.cascade.coupled`.
        gap: unchanged tokens after which an avalanche is at rest.
        reproduction: of `analyses.cascade.reproduction`, of the same model and temperature: how much of a token's influence a text that
            ends is too short to show. Without it there is a branching ratio only where all avalanches came to rest.

    Returns:
        A Dataset with the provenance of the result: `avalanche_size`, `avalanche_duration`, `at_rest` (prompt, seed); `ccdf` (size),
        P(S >= size) by Kaplan and Meier, and `borel_ccdf` of the branching ratio found; `branching_ratio`, children over parents summed
        over avalanches (Harris), parents counted by the share of their influence that falls within the text (`loop_counts` of
        `analyses.cascade.reproduction`), with its interval over prompts: it may exceed 1, and is Borel's maximum likelihood where all
        avalanches came to rest; NaN where it is not known; `exponent` with its interval;
        `log_ratio` and `ratio_p` (rival): positive where the power law is more likely, and the p of no difference. NaN with fewer than 20
        avalanches at rest, or all of one size.

    Raises:
        ResultError: no result of `coupled`, fewer steps than the gap and one, or no reproduction of the same model and temperature.
    """
    if not is_result(result, "cascade_coupled") or result.sizes["time"] <= gap or gap < 1:
        raise ResultError(
            f"avalanches: expected a result of analyses.cascade.coupled over more than {gap} steps, and a gap of at least 1."
        )
    damage = result["aligned_damage"].to_numpy()
    size, duration, rest = measure(damage.astype(bool), gap)
    ended = size[rest]
    largest = damage.shape[-1] - gap + 1
    fits = len(ended) >= FEWEST and len(np.unique(ended)) > 1
    children, parents = _counts(result, damage, gap, reproduction)
    ratio = branching_ratio(children, parents)
    sizes = np.arange(1, int(size.max()) + 1)
    data = stats.CensoredData(uncensored=ended, right=size[~rest])
    log_ratio, p = (
        _compare(ended, largest, ratio) if fits else (np.full(len(RIVALS), np.nan), np.full(len(RIVALS), np.nan))
    )
    shown: dict[str, tuple[tuple[str, ...], Any, str, str]] = {
        "avalanche_size": (("prompt", "seed"), size, "size of the avalanche", "tokens"),
        "avalanche_duration": (("prompt", "seed"), duration, "duration of the avalanche", "tokens"),
        "at_rest": (("prompt", "seed"), rest, "whether it came to rest", "1"),
        "ccdf": (
            ("size",),
            np.asarray(stats.ecdf(data).sf.evaluate(sizes - 1)),
            "share of avalanches at least as large",
            "1",
        ),
        "borel_ccdf": (("size",), borel_ccdf(ratio, len(sizes)), "the same of Borel's law", "1"),
        "branching_ratio": ((), ratio, "branching ratio", "1"),
        "branching_ratio_interval": (
            ("bound",),
            ratio_interval(children, parents),
            "95 % interval over prompts",
            "1",
        ),
        "exponent": ((), power_law(ended, largest) if fits else np.nan, "exponent of the power law", "1"),
        "exponent_interval": (
            ("bound",),
            _exponents(size, rest, largest) if fits else np.full(2, np.nan),
            "95 % interval over prompts",
            "1",
        ),
        "log_ratio": (("rival",), log_ratio, "ln likelihood of the power law over its rival's", "nats"),
        "ratio_p": (("rival",), p, "p of no difference", "1"),
    }
    return xr.Dataset(
        {name: (dims, values, {"long_name": long_name, "units": units}) for name, (dims, values, long_name, units) in shown.items()},
        coords={"size": sizes, "rival": list(RIVALS), "bound": ["lower", "upper"]},
        attrs={**result.attrs, "kind": "cascade_avalanches"},
    )  # fmt: skip


def measure(
    damage: Bool[np.ndarray, "*run time"], gap: int
) -> tuple[Int[np.ndarray, "*run"], Int[np.ndarray, "*run"], Bool[np.ndarray, "*run"]]:
    """Size, duration and whether it came to rest, of the avalanche that begins before step 0."""
    within, rest = _within(damage, gap)
    counted = damage & within
    last = damage.shape[-1] - counted[..., ::-1].argmax(-1)
    return 1 + counted.sum(-1), np.where(counted.any(-1), last, 0), rest


def _within(
    damage: Bool[np.ndarray, "*run time"], gap: int
) -> tuple[Bool[np.ndarray, "*run time"], Bool[np.ndarray, "*run"]]:
    """The steps before an avalanche is at rest, and whether it comes to that."""
    quiet = runs_of(~damage, gap)
    rest = np.asarray(quiet.any(-1))
    end = np.where(rest, quiet.argmax(-1), damage.shape[-1])
    return np.arange(damage.shape[-1]) < end[..., None], rest


def _counts(
    result: xr.Dataset, damage: Int[np.ndarray, "prompt seed time"], gap: int, reproduction: xr.Dataset | None
) -> tuple[Int[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
    """Children and parents of each prompt's avalanches; no parents where it is not known how many there are."""
    within, rest = _within(damage > 0, gap)
    counted = damage * within
    if reproduction is None:  # of an avalanche at rest each token was followed for the gap
        return counted.sum((1, 2)), (damage.shape[1] + counted.sum((1, 2))) * float(rest.all())
    texts = json.loads(result.attrs.get("parameters", "{}"))
    if not is_result(reproduction, "cascade_reproduction") or _origin(reproduction) != _origin(result):
        raise ResultError(
            "avalanches: reproduction= must be a result of analyses.cascade.reproduction of the same model and temperature."
        )
    return loop_counts(counted, reproduction["influence_mean"].to_numpy(), texts["disturbance"].get("step", 0))


def _origin(result: xr.Dataset) -> tuple[Any, Any]:
    """Of which weights, at which temperature."""
    return result.attrs.get("weight_hash"), json.loads(result.attrs.get("parameters", "{}")).get("temperature")


def borel(n: Int[np.ndarray, " size"], sigma: float) -> Float[np.ndarray, " size"]:
    """ln P(S = n) of the total progeny of a Poisson branching process (Borel 1942): (sigma n)^(n-1) e^(-sigma n) / n!"""
    n = np.asarray(n, dtype=float)
    return np.asarray(special.xlogy(n - 1, sigma * n) - sigma * n - special.gammaln(n + 1))


def borel_ccdf(sigma: float, largest: int) -> Float[np.ndarray, " size"]:
    """P(S >= n) for n from 1 to `largest`."""
    below = np.exp(borel(np.arange(1, largest + 1), sigma)).cumsum()
    return np.concatenate([[1.0], 1 - below[:-1]])


def power_law(sizes: Int[np.ndarray, " avalanche"], largest: int) -> float:
    """The exponent of P(S = n) ~ n^-a on 1 to `largest`, by maximum likelihood."""
    logs, mean = np.log(np.arange(1, largest + 1)), float(np.log(sizes).mean())

    def surplus(a: float) -> float:
        weights = np.exp(-a * logs - (-a * logs).max())
        return float(weights @ logs / weights.sum() - mean)

    return float(optimize.brentq(surplus, -20.0, 60.0))


def _exponents(size: np.ndarray, rest: np.ndarray, largest: int) -> Float[np.ndarray, " bound"]:
    pairs = np.stack([size, rest], axis=-1).astype(float)

    def of(drawn: np.ndarray) -> float:
        ended = drawn[..., 0][drawn[..., 1].astype(bool)].astype(int)
        return power_law(ended, largest) if (ended > 1).any() else np.nan

    return resampled(pairs, of)


def _compare(sizes: np.ndarray, largest: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """ln likelihood ratio of the power law over each rival, and its p."""
    import powerlaw  # draws with matplotlib, which takes half a second to start

    with warnings.catch_warnings():
        # The package warns where a rival fits at the edge of its range or not at all; the ratio, NaN if need be, says so too.
        warnings.simplefilter("ignore")
        fit = powerlaw.Fit(sizes, discrete=True, xmin=1, xmax=largest, verbose=0)
        found = [fit.distribution_compare("power_law", rival) for rival in RIVALS[:-1]]
    if np.isnan(sigma):
        found.append((np.nan, np.nan))
        return np.array([float(one[0]) for one in found]), np.array([float(one[1]) for one in found])
    n = np.arange(1, largest + 1)
    own = -power_law(sizes, largest) * np.log(n)
    own -= special.logsumexp(own)
    each = own[sizes - 1] - (borel(n, sigma) - special.logsumexp(borel(n, sigma)))[sizes - 1]
    spread = each.std() * np.sqrt(len(each))
    found.append((each.sum(), special.erfc(abs(each.sum()) / (np.sqrt(2) * spread)) if spread > 0 else 1.0))
    return np.array([float(one[0]) for one in found]), np.array([float(one[1]) for one in found])
