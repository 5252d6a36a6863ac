"""The cascade outside: what a changed word does to the text, in the model, its twin and the small model, and where it commits."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from findings import DRAWS, HORIZON, KINDS, STEPS, SWAPPED, TEMPERATURES, Row
from findings_circuits import LAYERS
from findings_numbers import (
    Estimate,
    by_template,
    columns,
    command,
    listed,
    mean,
    rows,
    table,
    units,
)
from jaxtyping import Float, Int

from analyses.cascade.commitment import ROLES
from analyses.cascade.driven import driven_share, survivors
from analyses.cascade.external import Decided, decide_outside
from analyses.clusters import by_unit
from analyses.intervals import FEWEST_PROMPTS, share_interval

ORDER = sorted(TEMPERATURES)
OTHERS = {
    "-twin": "SmolLM2's random twin",
    "-smalltown": "smalltown",
    "-smalltown-twin": "smalltown's random twin",
}
PLACES = (0, 5, 10, 15, 20, 25, 29)


@dataclass(frozen=True, eq=False)
class Texts:
    """Coupled texts of one model at one temperature, of one kind or all."""

    damage: Float[np.ndarray, "prompt seed time"]
    source: Float[np.ndarray, "prompt seed time"]
    looping: float
    units: Int[np.ndarray, " prompt"]
    kernel: Float[np.ndarray, " lag"]

    @property
    def decided(self) -> Decided:
        """The verdict and what it rests on."""
        return decide_outside(self.damage, self.source, self.kernel, self.units, looping=self.looping)

    @property
    def ratio(self) -> Estimate:
        """R."""
        found = self.decided.r
        return Estimate(found.ratio, *map(float, found.interval()))

    @property
    def survival(self) -> Estimate:
        """Share of draws that still differ in the last quarter."""
        alive = survivors(self.damage)[0]
        each = by_unit(alive, self.units)
        return Estimate(float(each.mean()), *map(float, share_interval(each)))

    @property
    def left(self) -> float:
        """Damage there of those that do."""
        return survivors(self.damage)[1]

    @property
    def driven(self) -> Estimate:
        """Share of late damage that the beginning alone would make."""
        value, bounds = driven_share(self.damage, -np.expm1(-self.source), self.units)
        return Estimate(value, *map(float, bounds))


@cache
def texts(tail: str, temperature: float, kind: str | None = None) -> Texts | None:
    """What is kept; None where nothing is. Of one kind each prompt is a unit, of all kinds together each template."""
    found = [row for row in rows(f"outside{tail}", temperature=f"{temperature:g}") if kind in (None, row["kind"])]
    lags = rows(f"influence{tail}", temperature=f"{temperature:g}")
    if not found or not lags:
        return None
    first = found[::DRAWS]
    shape = (len(first), DRAWS, STEPS)
    k = columns(lags, [f"lag{lag}" for lag in range(1, HORIZON + 1)]).mean(0)
    return Texts(
        np.array([list(map(int, row["damage"])) for row in found], dtype=float).reshape(shape),
        np.array([list(map(float, row["source"].split())) for row in found]).reshape(shape),
        float(np.mean([int(row["loops"]) for row in found])),
        units(["" if kind else row["cluster"] for row in first]),
        k / k.sum(),
    )


def _line(one: Texts) -> list[str]:
    decided = one.decided
    return [
        one.survival.say(".0%"), f"{one.left:.0%}" if np.isfinite(one.left) else "–", one.ratio.say(".2f"), one.driven.say(".0%"),
        f"{one.looping:.0%}", decided.verdict + (f": {decided.reason}" if decided.reason else ""),
    ]  # fmt: skip


HEAD = ["still differ at the end", "their tokens changed", "R", "driven share", "looping", "verdict"]


def beyond() -> list[str]:
    """Outside, at five temperatures."""
    whole = [(t, one) for t in ORDER if (one := texts("", t))]
    by_kind = [(kind, t, one) for kind in KINDS for t in ORDER if (one := texts("", t, kind))]
    lines = [
        "### Outside",
        "",
        f"Each pair's two prompts are continued on the same noise, {DRAWS} draws of {STEPS} tokens; of plain text "
        f"(stories of a small town, from their second sentence on) token {-SWAPPED} from the end is the most probable "
        "other. R is how many tokens a changed token changes; the driven share is what the changed beginning alone "
        "would change, along one text, of what is changed in the last half (above 100 % where damage keeps other damage "
        "from happening). How a token's influence falls with the lag is measured on texts of all kinds at that "
        f"temperature, and taken as known. All is of {STEPS} tokens, and nothing is claimed of longer texts. All four "
        "kinds together, prompts of one template as one unit:",
        "",
        table(
            ["T", "prompts", "units", *HEAD],
            [[f"{t:g}", len(one.damage), int(one.units.max()) + 1, *_line(one)] for t, one in whole],
        ),
        "",
        *(f"- {said}" for said in said_beyond(whole)),
        "",
        "By kind, with intervals over prompts: for `ioi` and `capitals`, whose prompts come from five templates, they "
        "hold for more prompts of the same templates only, and the package gives no verdict over fewer than "
        f"{FEWEST_PROMPTS} templates.",
        "",
        table(
            ["kind", "T", "prompts", *HEAD[:-1]],
            [[kind, f"{t:g}", len(one.damage), *_line(one)[:-1]] for kind, t, one in by_kind],
        ),
        "",
        *(f"- {said}" for said in _kinds_said(by_kind)),
        "",
        command("outside", "influence"),
    ]
    return lines


def said_beyond(whole: list[tuple[float, Texts]]) -> list[str]:
    """Verdicts, R and survival over the temperatures."""
    by_verdict: dict[str, list[str]] = {}
    for t, one in whole:
        by_verdict.setdefault(one.decided.verdict, []).append(f"{t:g}")
    said = [
        "; ".join(f"**{verdict}** at T = {listed(ts)}" for verdict, ts in by_verdict.items()).replace(
            "**undetermined**", "undetermined"
        )
        + "."
    ]
    above = [f"{t:g}" for t, one in whole if one.ratio.low > 1]
    below = [f"{t:g}" for t, one in whole if one.ratio.high < 1]
    covers = [f"{t:g}" for t, one in whole if one.ratio.low <= 1 <= one.ratio.high]
    parts = []
    if below:
        parts.append(f"below 1 with its whole interval at T = {listed(below)}")
    if above:
        parts.append(f"above 1 with its whole interval at T = {listed(above)}")
    if covers:
        parts.append(f"not told from 1 at T = {listed(covers)}")
    said.append(f"R is {'; '.join(parts)}.")
    survival = [one.survival for _, one in whole]
    said.append(
        f"Of the draws between {min(s.value for s in survival):.0%} and {max(s.value for s in survival):.0%} still differ at the end."
        + (
            " The intervals of all temperatures overlap: no course with temperature is claimed."
            if max(s.low for s in survival) <= min(s.high for s in survival)
            else " The intervals of some temperatures do not overlap."
        )
    )
    return said


def _kinds_said(by_kind: list[tuple[str, float, Texts]]) -> list[str]:
    said = []
    for t in (1.0,):
        there = {kind: one.survival for kind, at, one in by_kind if at == t}
        apart = [
            f"{a} and {b}"
            for n, a in enumerate(there)
            for b in list(there)[n + 1 :]
            if there[a].high < there[b].low or there[b].high < there[a].low
        ]
        said.append(
            f"At T = {t:g} the shares of draws that still differ are told apart for {listed(apart)}."
            if apart
            else f"At T = {t:g} the intervals of the shares that still differ overlap for every two kinds."
        )
    return said


def others() -> list[str]:
    """The twins and smalltown beside it."""
    body, missing = [], []
    for tail, said in OTHERS.items():
        there = [(t, one) for t in ORDER if (one := texts(tail, t))]
        body += [[said, f"{t:g}", len(one.damage), int(one.units.max()) + 1, *_line(one)] for t, one in there]
        if absent := [f"{t:g}" for t in ORDER if t not in dict(there)]:
            missing.append(f"{said} at T = {listed(absent)}")
    names = [f"outside{tail}" for tail in OTHERS]
    return [
        "### smalltown and the random twins",
        "",
        "The same measurement of all kinds together: the small model that comes with the package, on its own held-out "
        "pairs, and both architectures before training.",
        "",
        table(["model", "T", "prompts", "units", *HEAD], body),
        "",
        *(f"- {said}" for said in _compared()),
        f"- {beside_twin()}",
        *([f"- Not measured: {listed(missing)}."] if missing else []),
        "",
        command(*names, *(name.replace("outside", "influence") for name in names)),
    ]


def _compared() -> list[str]:
    said = []
    for tail, name in (("-smalltown", "smalltown"), ("-twin", "its random twin")):
        apart, alike = [], []
        for t in ORDER:
            own, other = texts("", t), texts(tail, t)
            if own and other:
                a, b = own.survival, other.survival
                (apart if a.low > b.high or b.low > a.high else alike).append((t, a.value, b.value))
        if apart:
            more = all(a > b for _, a, b in apart)
            word = "more" if more else "fewer" if all(a < b for _, a, b in apart) else "another share of"
            said.append(
                f"{word.capitalize()} draws of SmolLM2 still differ at the end than of {name} at "
                + listed([f"T = {t:g} ({a:.0%} against {b:.0%})" for t, a, b in apart])
                + "."
            )
        if alike:
            said.append(
                f"SmolLM2 and {name} are not told apart in that share at "
                + listed([f"T = {t:g} ({a:.0%}, {b:.0%})" for t, a, b in alike])
                + "."
            )
    return said


def beside_twin() -> str:
    """R and the driven share of the model beside those of its random twin, where both are measured."""
    said = []
    for t in ORDER:
        own, twin = texts("", t), texts("-twin", t)
        if own and twin:
            a, b = own.ratio, twin.ratio
            apart = a.low > b.high or b.low > a.high
            said.append(
                f"At T = {t:g} R is {a.say('.2f')}, at random initialisation {b.say('.2f')}{'' if apart else ', not told apart'}; "
                f"of what is changed late, {own.driven.say('.0%')} is driven by the beginning, at random initialisation "
                f"{twin.driven.say('.0%')}."
            )
    return " ".join(said)


def committing() -> list[str]:
    """Where branches commit."""
    found = [row for row in rows("commitment") if row["parted"] == "1"]
    named = [f"{row['kind']} {row['cluster']}" if row["cluster"] else "" for row in found]
    body = []
    for layer in PLACES:
        line: list[object] = [layer]
        for role in ("changed", "rest of the prompt", "generated", "last"):
            line.append(_restored(found, named, role, layer).say(".0%"))
        body.append([*line, _restored(found, named, "random", layer).say(".0%")])
    steps = mean(columns(found, ["step"])[:, 0])
    spread = by_template(columns(found, ["h, spread"])[:, 0], named)
    return [
        "### Where branches commit",
        "",
        f"At the first token in which the two texts differ (T = 1; {len(found)} of {len(rows('commitment'))} pairs part "
        f"within {STEPS} tokens, after {steps.say('.1f')} tokens alike), the stream of the clean text is put into the "
        "other at one place: the share of h, the probability that the draws differ, that it takes away, on average over "
        "places of a role. Templates count once.",
        "",
        table(["layer", *ROLES, "a random place"], body),
        "",
        f"- {_commits(found, named)}",
        f"- In a layer the share is spread over {spread.say('.1f')} places (participation ratio).",
        "",
        command("commitment"),
    ]


def _restored(found: list[Row], named: list[str], role: str, layer: int) -> Estimate:
    values = columns([{**row} for row in found], [f"h, {role}, {layer}"])[:, 0]
    there = np.isfinite(values)
    if there.sum() < FEWEST_PROMPTS:
        return Estimate(float("nan"), float("nan"), float("nan"))
    return by_template(values[there], [name for name, yes in zip(named, there, strict=True) if yes])


def _commits(found: list[Row], named: list[str]) -> str:
    over = []
    for row in found:
        changed, last = (
            np.array([float(row[f"h, {role}, {layer}"] or "nan") for layer in range(LAYERS)])
            for role in ("changed", "last")
        )
        over.append(float(np.argmax([*(last > changed), True])))  # fmt: skip
    layer = by_template(np.array(over), named)
    return (
        f"Up to layer {layer.say('.1f')} the changed words carry the branch, from there on the last token, which by then "
        "holds it (the first layer whose last place restores more than a changed one)."
    )


def unsure_outside() -> list[str]:
    """What is not significant."""
    lines = []
    for t in ORDER:
        one = texts("", t)
        if one and one.decided.verdict == "undetermined":
            lines.append(f"SmolLM2 outside at T = {t:g}: undetermined, {one.decided.reason}.")
    covers = [
        f"{kind} at T = {t:g} ({one.ratio.say('.2f')})"
        for kind in KINDS
        for t in ORDER
        if (one := texts("", t, kind)) and not (one.ratio.low > 1 or one.ratio.high < 1)
    ]
    if covers:
        lines.append(f"R of one kind of prompt alone is not told from 1: {listed(covers)}.")
    survival = {t: one.survival for t in ORDER if (one := texts("", t))}
    overlapping = [
        f"{a:g} and {b:g}"
        for a in survival
        for b in survival
        if a < b and survival[a].low <= survival[b].high and survival[b].low <= survival[a].high
    ]
    if overlapping:
        every = len(overlapping) == len(survival) * (len(survival) - 1) // 2
        where = "any two temperatures" if every else f"T = {'; '.join(overlapping)}"
        lines.append(f"The share of draws that still differ at {where}: intervals overlap.")
    for tail, name in OTHERS.items():
        held = [f"{t:g}" for t in ORDER if (one := texts(tail, t)) and one.decided.verdict == "undetermined"]
        if held:
            lines.append(f"Outside, {name} at T = {listed(held)}: undetermined.")
    return lines
