"""What was found, in sentences: all of them for the terminal, and the few that a page begins with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import xarray as xr

from analyses.report.cascade_sentences import external_sentence, gain_sentence, internal_sentence
from analyses.report.circuit import circuit_sentence
from analyses.report.sentences import (
    attribution_sentence,
    detectors_sentence,
    heads_sentence,
    lens_sentence,
    patching_sentence,
    stream_sentence,
)
from analyses.report.steps import made_of

LEAD = 5
"""Sentences that a page begins with."""


@dataclass(frozen=True)
class Finding:
    """A sentence, and where its figure stands.

    Args:
        say: makes the sentence of the results that it needs.
        needs: the names of these results; the figure is that of the first.
        rank: the lower, the sooner it is among those that a page begins with.
    """

    say: Callable[..., str]
    needs: tuple[str, ...]
    rank: int


FINDINGS = (
    Finding(lens_sentence, ("lens",), 0),
    Finding(patching_sentence, ("patching",), 2),
    Finding(heads_sentence, ("heads", "methods"), 5),
    Finding(circuit_sentence, ("circuit_edges", "circuit_faithfulness"), 4),
    Finding(detectors_sentence, ("head_table",), 7),
    Finding(attribution_sentence, ("attribution",), 6),
    Finding(stream_sentence, ("stream",), 9),
    Finding(gain_sentence, ("gain",), 8),
    Finding(internal_sentence, ("verdict",), 1),
    Finding(external_sentence, ("external",), 3),
)
"""In the order of the page."""


def summary(results: Mapping[str, xr.Dataset]) -> list[str]:
    """One sentence for each finding of a report; where its result was left out, why."""
    lines = (
        made_of(results, one.needs, lambda one=one: one.say(*(results[name] for name in one.needs)))  # type: ignore[misc]
        for one in FINDINGS
    )
    return [str(line) for line in lines if line is not None]


def lead(results: Mapping[str, xr.Dataset]) -> list[tuple[str, str]]:
    """The sentences that a page begins with, each with the name of the figure that shows it, in the order of the page."""
    there = [one for one in FINDINGS if all(name in results for name in one.needs)]
    first = sorted(there, key=lambda one: one.rank)[:LEAD]
    return [(one.say(*(results[name] for name in one.needs)), one.needs[0]) for one in there if one in first]
