"""How often the verdict outside is right, false or undetermined on processes whose R and source are known.

python benchmarks/verdicts.py            a part of the grid, in a minute
python benchmarks/verdicts.py --whole    all of it, hours; keeps what it found as docs/data/verdicts.csv
python benchmarks/verdicts.py --table    puts the table of that file into docs/cascade.md
"""

import argparse
import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console

from analyses.cascade.driven import looping
from analyses.cascade.external import NEAR, Decided, decide_outside
from analyses.intervals import FEWEST_PROMPTS

DOCS = Path(__file__).parents[1] / "docs"
KEPT, PAGE = DOCS / "data" / "verdicts.csv", DOCS / "cascade.md"
BEGIN, END = "<!-- verdicts -->\n", "\n<!-- /verdicts -->"
RATIOS = (0.0, 0.5, 0.9, 0.97, 1.0, 1.03, 1.1, 1.5)
SOURCES = (0.0, 0.02, 0.08)
OFFSPRING = ("text", "poisson", "negative binomial", "pareto")
PROMPTS = (12, 32, 100)
COURSES = ("constant", "turns", "absorbed", "loops")
SEEDS, STEPS, LAGS, FALL = 8, 128, 32, 0.8
VARIATION = 0.5
"""How much prompts differ in what strikes them: coefficient of variation."""

CLUSTER, CORRELATION = 4, 0.5
MOST = 1_000_000
"""Changed tokens of a draw beyond which its explosion is certain and no more are counted."""

PLATEAU, ABSORBED = 0.3, 1 / 256
VERDICTS = ("piano string", "near-critical", "pile", "undetermined")


@dataclass(frozen=True)
class Cell:
    """One kind of process.

    Args:
        offspring: `text`, one token at a time, changed or not; or the law of the number of children.
        course: R constant; 1.1 and from three quarters on 0.9 (`turns`); a plateau left for good with 1/256 a step (`absorbed`); or two
            texts that each repeat themselves (`loops`).
    """

    ratio: float
    source: float
    offspring: str
    prompts: int
    clustered: bool
    course: str = "constant"


def cells() -> Iterator[Cell]:
    """The whole grid."""
    for offspring, clustered, prompts, source in product(OFFSPRING, (False, True), PROMPTS, SOURCES):
        for ratio in RATIOS:
            yield Cell(ratio, source, offspring, prompts, clustered)
        yield Cell(1.1, source, offspring, prompts, clustered, "turns")
    for course, clustered, prompts in product(("absorbed", "loops"), (False, True), PROMPTS):
        yield Cell(float("nan"), 0.0, "text", prompts, clustered, course)


def allowed(cell: Cell) -> set[str]:
    """The verdicts that are not false of a process that goes on like this for ever."""
    if cell.course == "turns":
        return {"piano string", "undetermined"}
    if cell.course == "absorbed":
        return {"piano string", "undetermined"}
    if cell.course == "loops":
        return {"undetermined"}
    near = {"near-critical"} if abs(cell.ratio - 1) <= NEAR else set()
    return {"undetermined", *near, *({"piano string"} if cell.ratio < 1 else {"pile"} if cell.ratio > 1 else set())}


def kernel() -> np.ndarray:
    """Influence falls as lag^-0.8 (arXiv 2606.29139)."""
    k = np.arange(1.0, LAGS + 1) ** -FALL
    return k / k.sum()


def decided(cell: Cell, rng: np.random.Generator, *, seeds: int = SEEDS, steps: int = STEPS) -> Decided:
    """The verdict on one experiment."""
    units = np.arange(cell.prompts) // CLUSTER if cell.clustered else np.arange(cell.prompts)
    if cell.course == "loops":
        tokens = np.stack([np.tile(np.arange(length), steps // length + 1)[:steps] + 50 * length for length in (5, 7)])
        texts = np.broadcast_to(tokens[:, None, None], (2, cell.prompts, seeds, steps))
        damage = np.ones((cell.prompts, seeds, steps))
        return decide_outside(damage, 0.05 * damage, kernel(), units, looping=float(looping(texts).mean()))
    if cell.course == "absorbed":
        left = rng.geometric(ABSORBED, (cell.prompts, seeds, 1))
        damage = (rng.random((cell.prompts, seeds, steps)) < PLATEAU) & (np.arange(steps) < left)
        first = np.broadcast_to(kernel_until(steps), damage.shape)
        return decide_outside(damage.astype(float), first, kernel(), units)
    damage, source = spreading(cell, rng, seeds, steps)
    return decide_outside(damage, source, kernel(), units, counts=cell.offspring != "text")


def kernel_until(steps: int) -> np.ndarray:
    """What the disturbance itself does at each step: one child in the mean."""
    return np.pad(kernel(), (0, max(0, steps - LAGS)))[:steps]


def spreading(
    cell: Cell, rng: np.random.Generator, seeds: int = SEEDS, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Damage and source, [prompt, seed, time]. Prompts differ, by a factor, in how hard the disturbance and its source strike; those of a
    cluster share half of the factor's variance."""
    own = rng.standard_normal(cell.prompts)
    if cell.clustered:
        shared = rng.standard_normal(-(-cell.prompts // CLUSTER)).repeat(CLUSTER)[: cell.prompts]
        own = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
    spread = np.sqrt(np.log(1 + VARIATION**2))
    factor = np.exp(spread * own - spread**2 / 2)[:, None, None]
    source = np.broadcast_to(factor * (kernel_until(steps) + cell.source), (cell.prompts, seeds, steps))
    damage, waiting = np.zeros(source.shape), np.zeros(source.shape)  # children that are due
    w = kernel()
    total = np.zeros(source.shape[:2])
    for time in range(steps):
        ratio = 0.9 if cell.course == "turns" and time >= 3 * steps // 4 else cell.ratio
        if cell.offspring in ("text", "poisson"):
            lags = np.arange(1, min(time, LAGS) + 1)
            rate = source[..., time] + ratio * (damage[..., time - lags] * w[lags - 1]).sum(-1)
            born = rng.poisson(rate)
            damage[..., time] = np.minimum(born, 1) if cell.offspring == "text" else born
        else:
            damage[..., time] = waiting[..., time] + rng.poisson(source[..., time])
            _bear(damage[..., time], waiting, time, ratio, cell.offspring, w, rng)
        total += damage[..., time]
        damage[..., time] = np.where(total > MOST, damage[..., time - 1], damage[..., time])
    return damage, source


def _bear(
    born: np.ndarray, waiting: np.ndarray, time: int, ratio: float, law: str, w: np.ndarray, rng: np.random.Generator
) -> None:
    """Children of those born now, put where they are due."""
    at = np.nonzero(born)
    count = born[at].astype(np.int64)
    if not len(count) or ratio == 0:
        return
    if law == "negative binomial":
        size = 0.1 * count
        children = rng.negative_binomial(size, 0.1 / (0.1 + ratio))
    else:  # Lomax of index 1.5 with that mean, then Poisson
        mean = rng.pareto(1.5, int(count.sum())) * ratio * 0.5
        children = rng.poisson(np.add.reduceat(mean, np.concatenate([[0], count.cumsum()[:-1]])))
    laid = rng.multinomial(children, w)  # [parent, lag]
    room = waiting.shape[-1] - time - 1
    for lag in range(min(LAGS, room)):
        waiting[(*at, np.full(len(count), time + 1 + lag))] += laid[:, lag]


@dataclass(frozen=True)
class Outcome:
    """How often each verdict came in so many experiments of a cell, and how often the 95 % interval of R held it."""

    ratio: float
    source: float
    offspring: str
    prompts: int
    clustered: bool
    course: str
    experiments: int
    piano_string: int
    near_critical: int
    pile: int
    undetermined: int
    covered: int

    def false(self) -> float:
        """The share of false verdicts."""
        cell = Cell(self.ratio, self.source, self.offspring, self.prompts, self.clustered, self.course)
        wrong = (said for said in VERDICTS if said not in allowed(cell))
        return sum(getattr(self, said.replace(" ", "_").replace("-", "_")) for said in wrong) / self.experiments


def outcome(cell: Cell, experiments: int, seed: int = 0, *, seeds: int = SEEDS, steps: int = STEPS) -> Outcome:
    """Of one cell; its experiments depend on the cell and the seed alone."""
    said: Counter[str] = Counter()
    covered = 0
    for number in range(experiments):
        rng = np.random.default_rng([seed, number, *repr(cell).encode()])
        found = decided(cell, rng, seeds=seeds, steps=steps)
        said[found.verdict] += 1
        low, high = found.r.interval()
        covered += bool(low <= cell.ratio <= high)
    return Outcome(
        **asdict(cell), experiments=experiments, covered=covered,
        **{one.replace(" ", "_").replace("-", "_"): said[one] for one in VERDICTS},
    )  # fmt: skip


def write(outcomes: list[Outcome], path: Path) -> None:
    """Keep what was found."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Outcome)])
        writer.writeheader()
        writer.writerows(asdict(one) for one in outcomes)


def read(path: Path = KEPT) -> list[Outcome]:
    """What was kept."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Outcome(
                float(row["ratio"]), float(row["source"]), row["offspring"], int(row["prompts"]), row["clustered"] == "True",
                row["course"], *(int(row[field.name]) for field in fields(Outcome)[6:]),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def main() -> None:
    """Run, or show what was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--experiments", type=int, default=100)
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS)
    given = parser.parse_args()
    if given.table:
        PAGE.write_text(pasted(PAGE.read_text(encoding="utf-8"), read()), encoding="utf-8")
        return
    wanted = [cell for cell in cells() if cell.prompts in given.prompts] if given.whole else list(quick())
    console = Console(width=140, stderr=True)
    found = []
    for number, cell in enumerate(wanted):
        found.append(outcome(cell, given.experiments if given.whole else 20))
        if given.whole and number % 20 == 19:
            console.print(f"{number + 1} of {len(wanted)}")
            write(found, KEPT)
    if given.whole:
        write(found, KEPT)
    print(table(found))  # noqa: T201


def quick() -> Iterator[Cell]:
    """The cells that tell most, at the smallest number of prompts that has clusters enough."""
    for ratio, source in product((0.0, 0.5, 1.0, 1.5), (0.0, 0.08)):
        yield Cell(ratio, source, "text", 32, True)
    for offspring in OFFSPRING[1:]:
        yield from (Cell(ratio, 0.02, offspring, 32, False) for ratio in (0.5, 1.0, 1.1))
    yield from (Cell(float("nan"), 0.0, "text", 32, False, course) for course in ("absorbed", "loops"))
    yield Cell(1.1, 0.0, "text", 32, False, "turns")


def table(outcomes: list[Outcome]) -> str:
    """Markdown: for each process, at each number of prompts, how often the verdict is right, and the most false calls of any cell in it."""
    numbers = sorted({one.prompts for one in outcomes})
    groups: dict[tuple[str, str, str], dict[int, list[Outcome]]] = {}
    for one in outcomes:
        ratio = "" if np.isnan(one.ratio) else f"{one.ratio:g}"
        groups.setdefault((one.course, one.offspring, ratio), {}).setdefault(one.prompts, []).append(one)
    lines = [
        "| process | offspring | R | " + " | ".join(f"{n} prompts" for n in numbers) + " |",
        "|---" * (3 + len(numbers)) + "|",
    ]
    for (course, offspring, ratio), by_number in groups.items():
        shown = []
        for n in numbers:
            there = by_number.get(n, [])
            right = (
                np.mean([1 - one.undetermined / one.experiments - one.false() for one in there]) if there else np.nan
            )
            worst = max((one.false() for one in there), default=np.nan)
            shown.append(f"{abs(right):.0%} right, {worst:.0%} false" if there else "")
        lines.append(f"| {course} | {offspring} | {ratio} | {' | '.join(shown)} |")
    return "\n".join(lines)


def pasted(page: str, outcomes: list[Outcome]) -> str:
    """The page with the table of these outcomes between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}{about(outcomes)}\n\n{table(outcomes)}{END}{rest.partition(END)[2]}"


def about(outcomes: list[Outcome]) -> str:
    """What was run, how many false calls there are at most, and how often the intervals held R."""
    told = [
        one
        for one in outcomes
        if one.course == "constant" and not (one.clustered and one.prompts // CLUSTER < FEWEST_PROMPTS)
    ]
    experiments = sorted({one.experiments for one in outcomes})
    total, false = sum(one.experiments for one in outcomes), sum(one.false() * one.experiments for one in outcomes)
    piles = sum(one.pile for one in outcomes if one.ratio == 0)
    coverage = {
        law: sum(one.covered for one in told if one.offspring == law) / sum(one.experiments for one in told if one.offspring == law)
        for law in OFFSPRING if any(one.offspring == law for one in told)
    }  # fmt: skip
    covers = ", ".join(f"{share:.0%} ({law})" for law, share in coverage.items())
    return (
        f"Of {total:,} experiments, {' or '.join(map(str, experiments))} in each of {len(outcomes)} cells, {false / total:.1%} are called "
        f"falsely; R = 0 is called a pile {piles} times. The 95 % interval of R holds it in {covers}."
    )


if __name__ == "__main__":
    main()
