"""Means, standard errors and intervals over prompts that come in parts: memory does not grow with their number."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy import stats

from analyses.intervals import FEWEST_PROMPTS, RESAMPLES, bootstrap_mean, rare_bound, share_interval, tail

HELD, MOST = 2**24, 1024
"""Bytes of values, and prompts, that are held for a bootstrap that draws prompts; of more it is streamed."""

LARGEST = 2**25
"""Numbers that a streamed bootstrap holds."""

FEWEST_RESAMPLES = 400
BLOCK = 256
"""Rows whose draws are made together."""


class Moments:
    """What is needed of a quantity to say its mean over prompts and how sure that is.

    Those of a few prompts are held, and resampled as everywhere (`analyses.intervals`). Of more, each prompt counts in each resample as
    often as a Poisson variable of mean 1 says (Hanley and MacGibbon 2006; Chamandy et al. 2012), which needs no number of prompts
    beforehand. A prompt's draws depend on its row alone, so that no interval depends on how the rows came in parts.

    Args:
        interval: whether there is to be one.
        share: the values are shares of what was counted, 0 to 1.
    """

    def __init__(self, interval: bool, share: bool = False) -> None:
        self.interval, self.share = interval, share
        self._held: list[tuple[np.ndarray, np.ndarray]] = []
        self._sums: _Sums | None = None
        self._drawn: _Drawn | None = None

    def add(self, values: Float[np.ndarray, "prompt ..."], rows: Int[np.ndarray, " prompt"]) -> None:
        """More prompts, NaN where one has no value, and which rows of the data set they are."""
        values = np.asarray(values, dtype=np.float64)
        if self._sums is None:
            self._sums = _Sums(values.shape[1:])
        self._sums.add(values)
        if not self.interval:
            return
        self._held.append((values, rows))
        if self._drawn is not None or self.n > MOST or sum(part.nbytes for part, _ in self._held) > HELD:
            self._drawn = self._drawn or _Drawn(values.shape[1:])
            for part, of in self._held:
                self._drawn.add(part, of)
            self._held = []

    @property
    def n(self) -> int:
        """Prompts so far."""
        return 0 if self._sums is None else self._sums.n

    def mean(self) -> Float[np.ndarray, "..."]:
        """Over the prompts that have a value; NaN where none has."""
        assert self._sums is not None
        return self._sums.mean()

    def of_all(self) -> Float[np.ndarray, "..."]:
        """The mean where every prompt has a value, else NaN."""
        assert self._sums is not None
        return np.where(self._sums.count == self.n, self.mean(), np.nan)

    def standard_error(self) -> Float[np.ndarray, "..."]:
        """Of that mean."""
        assert self._sums is not None
        return self._sums.standard_error()

    def bounds(self) -> Float[np.ndarray, "two ..."]:
        """The 95 % interval of the mean; NaN where a prompt has no value, or with too few prompts."""
        assert self._sums is not None
        if self._drawn is None:
            values = np.concatenate([part for part, _ in self._held])
            return share_interval(values) if self.share else bootstrap_mean(values)
        bounds = np.where(self._sums.count == self.n, self._drawn.bounds(self.n), np.nan)
        return self._sums.widened(bounds) if self.share else bounds


class _Sums:
    """Counts and sums of each cell, about its first value, so that nothing cancels."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.n = 0
        self.about: np.ndarray | None = None
        self.count, self.total, self.squares = (np.zeros(shape) for _ in range(3))
        self.above, self.below, self.sum = (np.zeros(shape) for _ in range(3))  # prompts above 0 and below 1
        self.binary = True

    def add(self, values: Float[np.ndarray, "prompt ..."]) -> None:
        if not len(values):
            return
        there = np.isfinite(values)
        if self.about is None:
            self.about = np.where(there[0], values[0], 0.0)
        away = np.where(there, values - self.about, 0.0)
        self.n += len(values)
        self.count += there.sum(0)
        self.total += away.sum(0)
        self.squares += (away**2).sum(0)
        self.above += (values > 0).sum(0)
        self.below += (values < 1).sum(0)
        self.sum += np.where(there, values, 0.0).sum(0)
        self.binary = self.binary and bool(((values == 0) | (values == 1)).all())

    def mean(self) -> Float[np.ndarray, "..."]:
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = (0.0 if self.about is None else self.about) + self.total / self.count
        return np.where(self.count > 0, found, np.nan)

    def standard_error(self) -> Float[np.ndarray, "..."]:
        if self.n < 2:
            return np.full(self.count.shape, np.nan)
        variance = np.maximum(self.squares - self.total**2 / self.n, 0.0) / (self.n - 1)
        return np.where(self.count == self.n, np.sqrt(variance / self.n), np.nan)

    def widened(self, bounds: Float[np.ndarray, "two ..."]) -> Float[np.ndarray, "two ..."]:
        """As `analyses.intervals.share_interval` does of values that are held."""
        n, zeros = self.n, self.n - self.above
        if self.binary:
            low, high = stats.beta.ppf(0.025, self.above, zeros + 1), stats.beta.ppf(0.975, self.above + 1, zeros)
            return np.stack([np.where(self.above == 0, 0.0, low), np.where(zeros == 0, 1.0, high)])
        rest = n - self.sum
        high, low = (
            rare_bound(n, k, total, float(total.sum() / k.sum()) if k.any() else 1.0)
            for k, total in ((self.above, self.sum), (self.below, rest))
        )
        return np.stack([np.minimum(bounds[0], 1 - low), np.maximum(bounds[1], high)])


class _Drawn:
    """Means of resamples, from prompts that come in parts."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        cells = max(1, int(np.prod(shape)))
        self.shape = shape
        self.resamples = min(RESAMPLES, max(FEWEST_RESAMPLES, LARGEST // cells))
        self.total, self.weight = np.zeros((self.resamples, cells)), np.zeros(self.resamples)

    def add(self, values: Float[np.ndarray, "prompt ..."], rows: Int[np.ndarray, " prompt"]) -> None:
        for block in np.unique(rows // BLOCK).tolist():
            mine = rows // BLOCK == block
            times = times_drawn(block)[rows[mine] % BLOCK, : self.resamples].astype(np.float64)
            self.total += times.T @ np.nan_to_num(values[mine].reshape(len(times), -1))
            self.weight += times.sum(0)

    def bounds(self, n: int) -> Float[np.ndarray, "two ..."]:
        if n < FEWEST_PROMPTS:
            return np.full((2, *self.shape), np.nan)
        drawn = self.weight > 0  # of very few prompts a resample may have none
        means = self.total[drawn] / self.weight[drawn, None]
        found: np.ndarray = np.quantile(means, [tail(n), 1 - tail(n)], axis=0)
        return found.reshape(2, *self.shape)


@lru_cache(maxsize=8)
def times_drawn(block: int) -> UInt8[np.ndarray, "row resample"]:
    """How often each row of a block is in each resample."""
    uniform = np.random.default_rng([1, block]).integers(0, len(_POISSON), (BLOCK, RESAMPLES), dtype=np.uint16)
    drawn: np.ndarray = _POISSON[uniform]
    return drawn


_POISSON = stats.poisson.ppf((np.arange(2**16) + 0.5) / 2**16, 1.0).astype(np.uint8)
"""Of a number of 16 bits, which is looked up here: a tenth of the time of numpy's own."""
