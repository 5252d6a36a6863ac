"""Uncertainty over prompts, or over the clusters of prompts that `analyses.clustered` names."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import stats

from analyses.clusters import current_units, sums_by_unit
from analyses.from_end import side_by_side
from analyses.results import Variable

RESAMPLES = 2000
FEWEST_PROMPTS = 6
"""Fewer prompts than this have no interval: from so few values none covers as often as it says."""

LEAST_USABLE = 0.95
"""Share of resamples in which a statistic must exist for it to have an interval."""

LARGEST_DRAW = 2**22
"""Means of resamples that are held at once."""


Groups = Int[np.ndarray, " prompt"] | None
"""The number of each prompt's cluster; None is each prompt by itself, or the clusters that the `clustered` around names."""


def bootstrap_mean(per_prompt: Float[np.ndarray, "prompt ..."], groups: Groups = None) -> Float[np.ndarray, "two ..."]:
    """95 % bootstrap interval of the mean over prompts, for each cell; NaN where a prompt has none, or with too few prompts or clusters.
    What is drawn is the cluster, with all its prompts.

    Percentiles, taken further out for few prompts so that the interval is as wide as Student's (Hesterberg 2015, arXiv 1411.5279,
    "expanded percentile"): plain ones cover 82 % of the time at 5 prompts and 89 % at 8.
    """
    shape = per_prompt.shape[1:]
    flat, counts = _sums(per_prompt.reshape(len(per_prompt), math.prod(shape)), groups)
    n = len(flat)
    interval = np.full((2, flat.shape[1]), np.nan)
    usable = np.isfinite(flat).all(axis=0)
    if n >= FEWEST_PROMPTS and usable.any():
        places, times = np.flatnonzero(usable), _times_drawn(n)
        for some in np.array_split(places, -(-len(places) * RESAMPLES // LARGEST_DRAW)):
            means = (
                flat[:, some].T @ times.T / (times @ counts)
            )  # a cell's resamples lie side by side, which orders faster
            interval[:, some] = [_quantile(means, tail(n)), _quantile(means, 1 - tail(n))]
    return interval.reshape(2, *shape)


def _sums(
    per_prompt: Shaped[np.ndarray, "prompt ..."], groups: Groups
) -> tuple[Float[np.ndarray, "unit ..."], Float[np.ndarray, " unit"]]:
    """Of the prompts of each unit, and how many these are."""
    groups = current_units(len(per_prompt)) if groups is None else groups
    if groups is None:
        return per_prompt.astype(np.float64), np.ones(len(per_prompt))
    return sums_by_unit(per_prompt.astype(np.float64), groups), np.bincount(groups).astype(np.float64)


def _quantile(values: Float[np.ndarray, "cell resample"], share: float) -> Float[np.ndarray, " cell"]:
    """Between the two nearest, as far as it lies from each (Hyndman and Fan 1996, definition 7); orders the values in part, in place."""
    place = share * (values.shape[1] - 1)
    near = int(place)
    values.partition(near, axis=1)  # at one place only: that is many times as fast as numpy's quantiles
    below = values[:, near]
    above = values[:, near + 1 :].min(axis=1) if near + 1 < values.shape[1] else below
    found: np.ndarray = below + (place - near) * (above - below)
    return found


def _times_drawn(n: int) -> Float[np.ndarray, "resample prompt"]:
    """How often each of so many prompts is in each resample, the same for all cells: their means are then one product."""
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    places = (np.arange(RESAMPLES)[:, None] * n + drawn).ravel()
    return np.bincount(places, minlength=RESAMPLES * n).reshape(RESAMPLES, n).astype(np.float64)


def careful_interval(per_prompt: Float[np.ndarray, "prompt ..."], tails: float = 0.025) -> Float[np.ndarray, "two ..."]:
    """Interval of the mean over prompts for decisions, which leaves `tails` out on either side: at each end the further out of Student's
    and, from 6 prompts on, the bootstrap-t's (Hall 1988), which knows of skewness. NaN with fewer than 3 prompts, or where one has none.

    At 12 prompts an end is missed 2 % of the time where they are normal, 3 % where lognormal with a spread of 0.5 and 7 % with one of 1, on
    the side of the long tail; Student's alone 2.5, 6 and 15 %.
    """
    n = len(per_prompt)
    nothing = np.full((2, *per_prompt.shape[1:]), np.nan)
    if n < 3:
        return nothing
    mean, error = per_prompt.mean(0), per_prompt.std(0, ddof=1) / np.sqrt(n)
    far = stats.t.ppf(1 - tails, n - 1)
    below, above = (
        np.full_like(mean, far),
        np.full_like(mean, far),
    )  # how many standard errors to the lower and to the upper end
    if n >= FEWEST_PROMPTS:
        rng = np.random.default_rng(0)
        drawn = per_prompt[rng.integers(0, n, (RESAMPLES, n))]  # [resample, prompt, ...]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (drawn.mean(1) - mean) / (drawn.std(1, ddof=1) / np.sqrt(n))
        t = np.where(np.isfinite(t), t, 0.0)  # all the same prompt: says nothing of how means vary
        low, high = np.quantile(t, [tails, 1 - tails], axis=0)
        below, above = np.maximum(below, high), np.maximum(above, -low)
    return np.stack([mean - below * error, mean + above * error])


def share_interval(per_prompt: Float[np.ndarray, "prompt ..."], groups: Groups = None) -> Float[np.ndarray, "two ..."]:
    """95 % interval of the mean over prompts of shares, 0 to 1, for each cell; NaN where a prompt has none.

    Where every prompt has 0 or 1 throughout, it is exact (Clopper and Pearson 1934), with any number of prompts: resampling gives no width
    at all to 6 right of 6. Of shares between, and over clusters, it is that of `bootstrap_mean`, at either end at least as far out as what
    few prompts or clusters leave open, see `largest_rare`.
    """
    sums, counts = _sums(per_prompt, groups)
    if len(sums) < len(per_prompt) or not ((per_prompt == 0) | (per_prompt == 1)).all():
        low, high = bootstrap_mean(per_prompt, groups)
        shares = sums / counts.reshape(-1, *[1] * (sums.ndim - 1))
        return np.stack([np.minimum(low, 1 - largest_rare(1 - shares)), np.maximum(high, largest_rare(shares))])
    n, hits = len(per_prompt), per_prompt.sum(axis=0)
    tails = stats.beta.ppf(0.025, hits, n - hits + 1), stats.beta.ppf(0.975, hits + 1, n - hits)  # NaN at their ends
    return np.stack([np.where(hits == 0, 0.0, tails[0]), np.where(hits == n, 1.0, tails[1])])


def largest_rare(per_prompt: Float[np.ndarray, "prompt ..."], typical: float | None = None) -> Float[np.ndarray, "..."]:
    """An upper bound of a mean that few prompts have any of: Clopper and Pearson's for their share, times the mean of those that have.

    Args:
        typical: that mean where no prompt has any; None is that of all cells, or 1 where none has any anywhere.
    """
    n, some = len(per_prompt), per_prompt > 0
    if typical is None:
        typical = float(per_prompt[some].mean()) if some.any() else 1.0
    return rare_bound(n, np.asarray(some.sum(axis=0)), np.asarray(per_prompt.sum(axis=0)), typical)


def rare_bound(
    n: int, k: Shaped[np.ndarray, "..."], total: Float[np.ndarray, "..."], typical: float
) -> Float[np.ndarray, "..."]:
    """That bound from how many prompts there are, how many of them have any, and the sum over these."""
    share = np.where(k < n, stats.beta.ppf(0.975, k + 1, np.maximum(n - k, 1)), 1.0)
    return np.asarray(share * np.where(k > 0, total / np.maximum(k, 1), typical))


def resampled(
    by_prompt: Float[np.ndarray, "prompt ..."], statistic: Callable[[np.ndarray], float | np.ndarray]
) -> Float[np.ndarray, "two ..."]:
    """95 % bootstrap interval over prompts of a statistic that is no mean of theirs, by percentiles as in `bootstrap_mean`; NaN with too
    few prompts or clusters, and where the statistic does not exist in more than one resample of twenty.

    Args:
        statistic: of values of some prompts, drawn with replacement, [prompt, ...]; of a cluster all or none are drawn.
    """
    units = current_units(len(by_prompt))
    units = np.arange(len(by_prompt)) if units is None else units
    members = [np.flatnonzero(units == unit) for unit in np.unique(units)]
    n = len(members)
    shape = np.shape(statistic(by_prompt))
    if n < FEWEST_PROMPTS:
        return np.full((2, *shape), np.nan)
    rng = np.random.default_rng(0)
    drawn = np.stack(
        [
            np.asarray(statistic(by_prompt[np.concatenate([members[at] for at in rng.integers(0, n, n)])]), float)
            for _ in range(RESAMPLES // 2)
        ]
    )
    there = np.isfinite(drawn)
    usable = there.mean(0) >= LEAST_USABLE
    bounds = np.full((2, *shape), np.nan)
    bounds[:, usable] = np.nanquantile(np.where(there, drawn, np.nan)[:, usable], [tail(n), 1 - tail(n)], axis=0)
    return bounds


def ratio_interval(
    above: Shaped[np.ndarray, " prompt"], below: Shaped[np.ndarray, " prompt"]
) -> Float[np.ndarray, " two"]:
    """95 % interval of sum(above) / sum(below) over prompts or clusters, Student's about the linearised ratio (Cochran 1977, section 6.4);
    NaN with too few of them. For a skewed ratio it covers better than resampling does."""
    (above, _), (below, _) = (_sums(values, None) for values in (above, below))
    n, total = len(above), float(below.sum())
    if n < FEWEST_PROMPTS or total == 0:
        return np.full(2, np.nan)
    ratio = float(above.sum()) / total
    error = float(np.sqrt(((above - ratio * below) ** 2).sum() * n / (n - 1)) / total)
    return np.asarray(ratio + stats.t.ppf([0.025, 0.975], n - 1) * error)


def tail(prompts: int, level: float = 0.025) -> float:
    """The probability to leave out on either side so that a percentile interval of so few prompts is as wide as Student's."""
    return float(stats.norm.cdf(stats.t.ppf(level, prompts - 1) * np.sqrt(prompts / (prompts - 1))))


def over_prompts(
    name: str,
    values: Float[np.ndarray, "prompt ..."],
    dims: tuple[str, ...],
    long_name: str,
    units: str,
    *,
    share: bool = False,
    kept: Shaped[np.ndarray, " prompt"] | None = None,
    lengths: Sequence[int] | None = None,
) -> dict[str, Variable]:
    """Mean, standard error and interval of a quantity over prompts, cell by cell; NaN where a prompt has no value there.

    Args:
        share: the values are shares of what was counted, 0 to 1; see `share_interval`.
        kept: which prompts are averaged over, in a quantity that some cannot have; None is all. The long names say how many.
        lengths: of the prompts, which a quantity by position needs: where they differ, positions are counted from the end
            (`analyses.from_end`).
    """
    if "position" in dims:
        if lengths is None:
            raise ValueError(f"over_prompts: {name} is by position, so the prompts' lengths are needed.")
        dims, values = side_by_side(values, dims, lengths)
    values = values.astype(np.float64)
    over, groups = "prompts", current_units(len(values))
    if kept is not None and not kept.all():
        over = f"{int(kept.sum())} of {len(kept)} prompts"
        values, groups = values[kept], None if groups is None else np.unique(groups[kept], return_inverse=True)[1]
    nothing = np.full(values.shape[1:], np.nan)
    with np.errstate(invalid="ignore"):  # of infinities there is a mean, but no spread
        mean = values.mean(axis=0) if len(values) else nothing
        spread = _standard_error(values, groups) if len(values) > 1 else nothing
    spread_over = over if groups is None else f"{len(set(groups))} clusters of {over}"
    return {
        f"{name}_mean": (dims, mean, f"mean over {over}: {long_name}", units),
        f"{name}_standard_error": (dims, spread, f"standard error over {spread_over}: {long_name}", units),
        f"{name}_interval": (
            ("bound", *dims),
            share_interval(values, groups) if share else bootstrap_mean(values, groups),
            f"95 % interval over {spread_over}: {long_name}",
            units,
        ),
    }


def _standard_error(
    values: Float[np.ndarray, "prompt ..."], groups: Int[np.ndarray, " prompt"] | None
) -> Float[np.ndarray, "..."]:
    """Of the mean over prompts, from how the sums of clusters scatter about what the mean says of so many prompts."""
    sums, counts = _sums(values, groups)
    apart = sums - counts.reshape(-1, *[1] * (sums.ndim - 1)) * values.mean(axis=0)
    n = len(sums)
    if n < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(np.sqrt(n / (n - 1) * (apart**2).sum(axis=0)) / len(values))


def wilson(hits: int, tries: int) -> Float[np.ndarray, " two"]:
    """95 % interval of a probability from how often something happened (Wilson 1927); NaN where nothing was tried."""
    if tries == 0:
        return np.full(2, np.nan)
    found = stats.binomtest(hits, tries).proportion_ci(method="wilson")
    return np.array([found.low, found.high])
