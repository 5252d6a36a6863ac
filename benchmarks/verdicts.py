"""How often the external verdict is right, false or undetermined on branching processes whose ratio is known.

python benchmarks/verdicts.py
"""

from collections import Counter

import numpy as np
from rich.console import Console
from rich.table import Table

from analyses.cascade.external import decide_outside

RATIOS = (0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.5)
PROMPTS = (20, 50, 200)
SEEDS, STEPS, VARIATION, LARGEST = 8, 128, 0.5, 2000


def branching(
    ratio: float, prompts: int, rng: np.random.Generator, *, bounded: bool, seeds: int = SEEDS, steps: int = STEPS
) -> np.ndarray:
    """Sizes of the generations of Poisson branching processes, [prompt, seed, generation].

    Prompts differ in how many children the first has, by a factor whose coefficient of variation is 0.5. The population is held below
    2,000, as a text can hold only so many changed tokens; bounded, only whether any is alive is seen, as of one token at a time.
    """
    factor = rng.gamma(1 / VARIATION**2, VARIATION**2, size=(prompts, 1))
    alive = rng.poisson(np.broadcast_to(factor * ratio, (prompts, seeds)))
    generations = []
    for _ in range(steps):
        generations.append(np.minimum(alive, 1) if bounded else alive)
        alive = np.minimum(rng.poisson(ratio * alive), LARGEST)
    return np.stack(generations, axis=-1).astype(float)


def truth(ratio: float) -> str:
    """What an endless process of that ratio is."""
    return "near-critical" if ratio == 1 else "piano string" if ratio < 1 else "pile"


def main(experiments: int = 200) -> None:
    """Print the table, and the share of false verdicts."""
    console, rng = Console(width=120), np.random.default_rng(0)
    for bounded in (False, True):
        table = Table(
            "ratio",
            *(f"{n} prompts" for n in PROMPTS),
            title=f"{'alive or not' if bounded else 'counts'}, {experiments} experiments each",
        )
        worst = 0.0
        for ratio in RATIOS:
            cells = []
            for prompts in PROMPTS:
                said = Counter(
                    decide_outside(branching(ratio, prompts, rng, bounded=bounded)).verdict for _ in range(experiments)
                )
                false = (
                    sum(count for verdict, count in said.items() if verdict not in (truth(ratio), "undetermined"))
                    / experiments
                )
                worst = max(worst, false)
                cells.append(f"{said[truth(ratio)] / experiments:.0%} right, {false:.1%} false")
            table.add_row(f"{ratio:g}", *cells)
        console.print(table)
        console.print(f"most false verdicts in a cell: {worst:.1%}")


if __name__ == "__main__":
    main()
