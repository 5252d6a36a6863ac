"""Figures of the cascade, each beside that of the same architecture before training."""

from collections.abc import Callable, Mapping

import xarray as xr

from analyses.plots.together import NULL, draw_with_twin
from analyses.report.cascade_sentences import BEFORE, before_training
from analyses.report.section import Shown
from analyses.report.steps import left_out

Read = Mapping[str, Callable[[xr.Dataset], str]]
"""How to read what depends on what was found, by the name of the result."""


def beside_twins(results: Mapping[str, xr.Dataset], shown: Mapping[str, str], read: Read) -> list[Shown]:
    """Each figure that there is a result for, and how to read it; then the same at random initialisation, on its scales. Where a result
    was left out, that stands in the figure's place.

    Args:
        shown: each figure's result, in the order in which they are shown, and how to read it where `read` does not say.
    """
    drawn: list[Shown] = []
    lacking = {one.name: one for one in left_out(results)}
    for name, plain in shown.items():
        null = f"{name}{NULL}"
        there = [one for one in (name, null) if one in results]
        if name == "gain":
            there = there if there[:1] == [name] else []  # its figure has the twin and the theory in it
        figures = draw_with_twin(there[0], results) if there else {}
        own = read[name](results[name]) if name in read and name in results else plain
        again = before_training(results[name], results[null]) if len(figures) == 2 else BEFORE
        for one, said in ((name, own), (null, again), *([("theory", "")] if name == "gain" else [])):
            if one in figures:
                drawn.append(Shown(one, figures[one], said))
            elif one in lacking:
                drawn.append(Shown(one, lacking[one]))
    return drawn
