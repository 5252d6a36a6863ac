"""The cascade inside: what a disturbance does in the model and in its twin, and what makes it grow."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from findings import KINDS, Row
from findings_circuits import HEADS, LAYERS
from findings_numbers import (
    by_template,
    clusters,
    columns,
    command,
    counted,
    listed,
    mean,
    rows,
    table,
    units,
)
from jaxtyping import Float

from analyses.cascade.verdict import DIFFERENCES, MARGIN, agreed
from analyses.clusters import by_unit

REACHES = {"site": "on site", "all": "over all positions"}


def curves(tail: str, reach: str) -> tuple[Float[np.ndarray, "pair layer"], list[str]]:
    """ln Gamma by pair, and each pair's template, which of two kinds are not one."""
    found = _both("inside")
    there = {(row["kind"], row["pair"]) for row in found}
    own = [row for row in rows(f"inside{tail}") if (row["kind"], row["pair"]) in there]
    own.sort(key=lambda row: (row["kind"], int(row["pair"])))
    return columns(own, [f"{reach}{layer}" for layer in range(LAYERS + 1)]), clusters(own)


def _both(name: str) -> list[Row]:
    """Rows that are kept of the model and of its twin."""
    twin = {(row["kind"], row["pair"]) for row in rows(f"{name}-twin")}
    return [row for row in rows(name) if (row["kind"], row["pair"]) in twin]


@dataclass(frozen=True)
class Inside:
    """The four numbers of a subject, [pair] each, by reach."""

    whole: dict[str, np.ndarray]
    above: dict[str, np.ndarray]
    output: dict[str, np.ndarray]
    growth: dict[str, np.ndarray]
    templates: list[str]

    @property
    def verdict(self) -> tuple[str, str]:
        """From the slopes above the first block, each template counted once."""
        return agreed(
            {said: by_unit(self.above[reach], units(self.templates)) for reach, said in REACHES.items()},
            MARGIN / LAYERS,
        )


@cache
def inside(subject: str) -> Inside:
    """Of the model, its twin, or their difference by pair."""
    whole, above, output, growth = {}, {}, {}, {}
    templates: list[str] = []
    for reach in REACHES:
        own, templates = curves("-twin" if subject == "twin" else "", reach)
        if subject == "difference":
            own = own - curves("-twin", reach)[0]
        whole[reach], above[reach] = (_slope(own[:, first:]) for first in (0, 1))
        output[reach], growth[reach] = own[:, -1], np.diff(own, axis=1)
    return Inside(whole, above, output, growth, templates)


def _slope(values: Float[np.ndarray, "pair layer"]) -> Float[np.ndarray, " pair"]:
    x = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    slope: np.ndarray = values @ x / (x @ x)
    return slope


def within() -> list[str]:
    """Inside: the four numbers and the verdict."""
    body = []
    subjects = {"trained": "as trained", "twin": "random init", "difference": "difference by pair"}
    for reach, said in REACHES.items():
        for subject, name in subjects.items():
            one = inside(subject)
            numbers = (one.whole[reach], one.above[reach], one.output[reach], one.growth[reach][:, 0])
            body.append(
                [f"{name}, {said}", *(by_template(values, one.templates).say("+.3f") for values in numbers), _largest(one, reach)]
            )  # fmt: skip
    trained, twin, difference = (inside(subject) for subject in subjects)
    label, reason = difference.verdict
    pairs, of_units = len(trained.templates), len(set(units(trained.templates)))
    return [
        "### Inside",
        "",
        f"A small random change of the stream at one place, relative to the stream there: ln Γ, in nats, {pairs} prompts "
        f"of {counted(len(KINDS), 'kind')} ({', '.join(KINDS)}); each template counts once, which makes {of_units} "
        f"units. The margin of a slope that counts as none is ±{MARGIN / LAYERS:.4f} per layer.",
        "",
        table(
            [
                "",
                "slope from the injection on",
                "slope from one block above",
                "ln Γ at the output",
                "growth over the first block",
                "largest growth above it",
            ],
            body,
        ),
        "",
        f"- As trained **{_labelled(*trained.verdict)}**, at random initialisation {_labelled(*twin.verdict)}; what "
        f"training has made of the slope: **{DIFFERENCES[label]}**{f' ({reason})' if reason else ''}.",
        f"- {_place(difference)}",
        "",
        command("inside", "inside-twin"),
    ]


def verdict_within() -> str:
    """The verdicts of the model and its twin, and of their difference."""
    trained, twin, (label, reason) = inside("trained"), inside("twin"), inside("difference").verdict
    return (
        f"As trained **{_labelled(*trained.verdict)}**, at random initialisation {_labelled(*twin.verdict)}; what "
        f"training has made of the slope: **{_labelled(DIFFERENCES[label], reason)}**."
    )


def _labelled(label: str, reason: str) -> str:
    return label + (f" ({reason})" if reason else "")


def _largest(one: Inside, reach: str) -> str:
    by_block = one.growth[reach][:, 1:].mean(0)
    at = int(by_block.argmax()) + 1
    return f"block {at}: {by_template(one.growth[reach][:, at], one.templates).say('+.3f')}"


def _place(difference: Inside) -> str:
    output = {reach: by_template(difference.output[reach], difference.templates) for reach in REACHES}
    words = {
        reach: "more" if one.low > 0 else "less" if one.high < 0 else "not told apart" for reach, one in output.items()
    }
    return (
        "At the output, against the stream, of a disturbance is left: "
        + "; ".join(
            f"{REACHES[reach]} {word} than at random initialisation ({output[reach].say('+.2f')} nats)"
            if word != "not told apart"
            else f"{REACHES[reach]} not told apart from random initialisation ({output[reach].say('+.2f')} nats)"
            for reach, word in words.items()
        )
        + "."
    )


PARTS = [*HEADS, *(f"mlp{layer}" for layer in range(LAYERS))]
"""Entries of the ledger."""

ABOVE = [part for part in PARTS if not part.startswith("0.") and part != "mlp0"]


def _entries(tail: str) -> tuple[list[Row], list[Row]]:
    """The first half of the pairs of each kind, by which parts are chosen, and the others."""
    found = rows(f"ledger{tail}")
    return [row for row in found if int(row["pair"]) % 2 == 0], [row for row in found if int(row["pair"]) % 2]


def growing() -> list[str]:
    """Which components make a disturbance grow: the ledger."""
    choosing, judging = _entries("")
    order = np.argsort(columns(choosing, ABOVE).mean(0))
    grow, damp = [ABOVE[at] for at in order[::-1][:5]], [ABOVE[at] for at in order[:5]]
    twin = rows("ledger-twin")
    body = [
        [_part(name), mean(columns(judging, [name])[:, 0]).say("+.3f"), mean(columns(twin, [name])[:, 0]).say("+.3f")]
        for name in (*grow, *damp)
    ]
    sums = []
    for said, tail in (("as trained", ""), ("random init", "-twin")):
        found = rows(f"ledger{tail}")
        k, of_stream = (columns(found, [f"{one}{layer}" for layer in range(LAYERS)]) for one in ("k", "stream"))
        heads, mlps = (
            columns(found, names).sum(1) for names in ([n for n in HEADS if n[:2] != "0."], [f"mlp{n}" for n in range(1, LAYERS)])
        )  # fmt: skip
        sums.append(
            [said, *(mean(one).say("+.2f") for one in (k.sum(1), k[:, 0], heads, mlps, k.sum(1) - of_stream.sum(1)))]
        )
    sure = [
        name
        for name in (*grow, *damp)
        if mean(columns(judging, [name])[:, 0]).told
    ]  # fmt: skip
    return [
        "### What makes it grow",
        "",
        f"The two prompts of a pair differ in one word (indirect objects, plain text; {len(rows('ledger'))} pairs, "
        f"{len(twin)} at random initialisation). ln G of the difference, from the embedding to the output, splits "
        "exactly over heads and MLPs (nats).",
        "",
        table(["", "ln G", "of it block 0", "heads above", "MLPs above", "ln G less the stream's own growth"], sums),
        "",
        f"Above block 0, the parts that make it grow and shrink most, chosen by half of the pairs, judged on the other {len(judging)}:",
        "",
        table(["part", "entry as trained", "random init"], body),
        "",
        f"- {_told_parts(sure, [*grow, *damp])}",
        "",
        command("ledger", "ledger-twin"),
    ]


def _part(name: str) -> str:
    return f"MLP {name[3:]}" if name.startswith("mlp") else f"head {name}"


def _told_parts(sure: list[str], all_of: list[str]) -> str:
    rest = [name for name in all_of if name not in sure]
    said = (
        f"Told from 0 on pairs by which they were not chosen: {listed([_part(n) for n in sure]) if sure else 'none'}."
    )
    return said + (f" Not told from 0: {listed([_part(n) for n in rest])}." if rest else "")


def unsure_inside() -> list[str]:
    """What is not significant."""
    lines = []
    for subject, said in (("trained", "as trained"), ("difference", "trained less twin")):
        label, reason = inside(subject).verdict
        if reason:
            lines.append(f"Inside, {said}: {label}, {reason}.")
    for reach, said in REACHES.items():
        one = inside("difference")
        if not (found := by_template(one.above[reach], one.templates)).told:
            lines.append(
                f"Inside, the slope {said} from one block above, trained less twin: {found.say('+.4f')}, not told from 0."
            )
    return lines
