"""Numbers of the page of findings, from the rows that are kept: means with intervals, in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from findings import Row, kept
from jaxtyping import Float, Int

from analyses.clusters import by_unit, units_of
from analyses.intervals import bootstrap_mean, careful_interval, ratio_interval


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.say("+.2f")

    @property
    def told(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def say(self, form: str = ".2f") -> str:
        """The number and its interval."""
        if np.isnan(self.value):
            return "–"
        return f"{self.value:{form}}" + ("" if np.isnan(self.low) else f" ({self.low:{form}} to {self.high:{form}})")


def mean(per_pair: np.ndarray) -> Estimate:
    """Over pairs, by `bootstrap_mean`."""
    values = np.asarray(per_pair, dtype=float)
    low, high = bootstrap_mean(values)
    return Estimate(float(values.mean()), float(low), float(high))


def by_template(per_pair: np.ndarray, clusters: Sequence[str]) -> Estimate:
    """Over templates, each counted once, by `careful_interval`; a pair without a template counts for itself."""
    values = by_unit(np.asarray(per_pair, dtype=float), units(clusters))
    low, high = careful_interval(values)
    return Estimate(float(values.mean()), float(low), float(high))


def share_of(above: np.ndarray, below: np.ndarray) -> Estimate:
    """The sum of the one over that of the other, over pairs."""
    low, high = ratio_interval(above, below)
    return Estimate(float(above.sum() / below.sum()), float(low), float(high))


def units(clusters: Sequence[str]) -> Int[np.ndarray, " prompt"]:
    """The units of replication of prompts: their template, or themselves."""
    return units_of([name or None for name in clusters], len(clusters))


_read = cache(kept)


def rows(name: str, **where: str) -> list[Row]:
    """What is kept of a measurement with these keys."""
    return [row for row in _read(name) if all(row[key] == value for key, value in where.items())]


def columns(found: Sequence[Row], names: Sequence[str]) -> Float[np.ndarray, "row column"]:
    """Numbers of some columns; NaN where there is none."""
    return np.array([[float(row[name] or "nan") for name in names] for row in found])


def clusters(found: Sequence[Row]) -> list[str]:
    """The templates of rows."""
    return [row["cluster"] for row in found]


def table(head: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in body])


def command(*names: str) -> str:
    """The commands that measured what stands above."""
    said = ", ".join(f"`python docs/findings.py measure {name}`" for name in names)
    return f"*Measured by {said}.*"


def listed(words: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(number: int, of: str) -> str:
    """So many of them."""
    return f"{number} {of}{'' if number == 1 else 's'}"
