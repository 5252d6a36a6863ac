"""Circuits and heads: who moves the name, where a capital is looked up, what heads attend to."""

import numpy as np
from findings import LATE, MLP_WINDOW, PARTS, SCORES, Row
from findings_numbers import (
    Estimate,
    by_template,
    clusters,
    columns,
    command,
    counted,
    listed,
    mean,
    rows,
    share_of,
    table,
)
from jaxtyping import Float
from scipy import stats

from analyses.cascade.contrast import holm

HEADS = [f"{layer}.{head}" for layer in range(30) for head in range(9)]
LATE_HEADS = [name for name in HEADS if int(name.split(".")[0]) in LATE]
DIRECTIONS = ("denoising", "noising")
SHOWN_FOR, SHOWN_AGAINST, SHOWN_SCORES = 6, 3, 3
DEPTHS = (0, 5, 10, 15, 20, 22, 23, 24, 25, 27, 29)
TOP, LAYERS = 10, 30
TESTED = 0.05


def chosen() -> tuple[list[str], list[str]]:
    """The heads that move most towards and away from the right name, by the first pairs; they are judged on others."""
    first = np.mean([columns(rows("heads", direction=one), HEADS).mean(0) for one in DIRECTIONS], axis=0)
    order = np.argsort(first)
    return [HEADS[at] for at in order[::-1][:SHOWN_FOR]], [HEADS[at] for at in order[:SHOWN_AGAINST]]


def helping(forth: list[str]) -> list[str]:
    """Those of some heads whose effect is above 0 in both directions."""
    return [head for head in forth if all(judged(head, one)[0].low > 0 for one in DIRECTIONS)]


def fresh(direction: str) -> list[Row]:
    """Pairs by which no head was chosen."""
    used = {row["pair"] for row in rows("heads", direction=direction)}
    return [row for row in rows("heads-late", direction=direction) if row["pair"] not in used]


def judged(head: str, direction: str) -> tuple[Estimate, Estimate, Estimate, int]:
    """What a head moves over fresh pairs, its share of the difference between the prompts, the same over templates; of an early head over
    the pairs that chose it."""
    found = fresh(direction) if head in LATE_HEADS else rows("heads", direction=direction)
    moved = columns(found, [head])[:, 0]
    between = columns(found, ["clean", "corrupt"])
    return (
        mean(moved),
        share_of(moved, between[:, 0] - between[:, 1]),
        by_template(moved, clusters(found)),
        len(found),
    )


def tested(name: str, heads: list[str], found: dict[str, list[Row]]) -> list[str]:
    """Heads whose effect is told from 0 in both directions, with one sign: t-tests over pairs, Holm-corrected over all of them."""
    t, p = zip(
        *(stats.ttest_1samp(columns(found[one], heads), 0.0, axis=0) for one in DIRECTIONS),
        strict=True,
    )
    held = holm(np.concatenate(p)).reshape(2, -1) < TESTED
    alike = np.sign(t[0]) == np.sign(t[1])
    return [head for head, yes in zip(heads, held.all(0) & alike, strict=True) if yes]


def movers() -> list[str]:
    """Who moves the name."""
    forth, against = chosen()
    twin = {one: rows("heads-twin", direction=one) for one in DIRECTIONS}
    body = []
    for head in (*forth, *against):
        found = [judged(head, one) for one in DIRECTIONS]
        at_init = mean(np.mean([columns(twin[one], [head])[:, 0] for one in DIRECTIONS], axis=0)).say("+.3f")
        body.append(
            [f"**{head}**", *(f"{one[0]}" for one in found), found[0][1].say(".0%"), f"{found[0][2]}", found[0][3], at_init]
        )  # fmt: skip
    late = {one: fresh(one) for one in DIRECTIONS}
    sure = tested("heads-late", LATE_HEADS, late)
    whole = columns(rows("heads", direction="denoising"), ["clean", "corrupt"])
    gap = mean(whole[:, 0] - whole[:, 1])
    first = len(rows("heads", direction="denoising"))
    twin_gap = mean(np.abs(np.subtract(*columns(twin["denoising"], ["clean", "corrupt"]).T)))
    twin_sure = tested("heads-twin", HEADS, twin)
    twin_means = np.mean([columns(twin[one], HEADS).mean(0) for one in DIRECTIONS], axis=0)
    return [
        "### Who moves the name",
        "",
        "Prompts such as “When Mary and John went to the store, John gave a drink to”; in the corrupt one Mary gives. "
        f"The logit of the right name less that of the other changes by {gap.say('.1f')} between them ({first} pairs). A "
        "head's output `z`, at all positions, from the clean run is put into the corrupt one (denoising: does it "
        "suffice?), and from the corrupt run into the clean one (noising: is it needed?). Positive: it works for the "
        f"right name. The heads were chosen among all 270 by the first {first} pairs and are judged on others.",
        "",
        table(
            [
                "head",
                "denoising, logits",
                "noising, logits",
                "share of the difference, denoising",
                "denoising, over templates",
                "pairs",
                "random init, logits",
            ],
            body,
        ),
        "",
        f"- {moved_by(helping(forth), forth).capitalize()}",
        f"- {len(sure)} of the {len(LATE_HEADS)} heads of layers {LATE[0]} to {LATE[-1]} are told from 0 in both "
        f"directions with one sign ({len(late['denoising'])} pairs, t-tests, Holm-corrected over all of them): "
        f"{listed(sure) if sure else 'none'}. That is without choosing any.",
        f"- {_at_init(twin_gap, twin_sure, float(np.abs(twin_means).max()), len(twin['denoising']))}",
        f"- {_templates(forth, against)}",
        "",
        command("heads", "heads-late", "heads-twin"),
    ]


def moved_by(both: list[str], forth: list[str]) -> str:
    """Which of the chosen heads help in both directions."""
    if not both:
        return "None of the heads that were chosen as helpful helps in both directions."
    rest = [head for head in forth if head not in both]
    lead = both[0]
    share = judged(lead, "denoising")[1]
    said = f"heads {listed(both)} help in both directions; {lead} alone restores {share.say('.0%')} of the difference."
    return said + (
        f" {listed(rest)}, chosen with them, {'is' if len(rest) == 1 else 'are'} not told to in both." if rest else ""
    )


def _at_init(gap: Estimate, sure: list[str], largest: float, pairs: int) -> str:
    said = (
        f"At random initialisation the two prompts differ by {gap.say('.2f')} logits in size, and no head moves the name "
        f"by more than {largest:.3f} logits in the mean ({pairs} pairs)"
    )
    return f"{said}; " + (
        f"{counted(len(sure), 'head')} of 270 {'is' if len(sure) == 1 else 'are'} told from 0."
        if sure
        else "none of 270 is told from 0."
    )


def _templates(forth: list[str], against: list[str]) -> str:
    held = [head for head in (*forth, *against) if judged(head, "denoising")[2].told]
    count = len(set(clusters(rows("heads", direction="denoising"))))
    not_held = [head for head in (*forth, *against) if head not in held]
    said = f"The pairs are made from {count} templates. Over templates, each counted once, "
    said += f"the effect of {listed(held)} is told from 0" if held else "no head's effect is told from 0"
    return said + (f", that of {listed(not_held)} is not." if held and not_held else ".")


def _shares(name: str, part: str) -> list[Estimate]:
    """By layer, what places of a part restore of the difference between the prompts."""
    found = rows(name)
    moved = columns(found, [f"{part}{layer}" for layer in range(30)])
    gap = np.subtract(*columns(found, ["clean", "corrupt"]).T)
    there = np.isfinite(moved[:, 0])
    sign = np.sign(gap[there])
    return [share_of(sign * moved[there, layer], np.abs(gap[there])) for layer in range(30)]


def _crossings(name: str) -> list[int]:
    """Of each pair, the first layer that is entered by a stream whose last position restores more than the country's; 30 where "
    "none is."""
    found = rows(name)
    sign = np.sign(np.subtract(*columns(found, ["clean", "corrupt"]).T))[:, None]
    country, last = (sign * columns(found, [f"{part}{layer}" for layer in range(30)]) for part in ("country", "last"))
    layers: list[int] = (
        np.concatenate([last > country, np.ones((len(found), 1), dtype=bool)], axis=1).argmax(1).tolist()
    )
    return layers


def crossing(name: str) -> Estimate:
    """Their mean, over templates."""
    return by_template(np.array(_crossings(name)), clusters(rows(name)))


def ranks(name: str) -> Float[np.ndarray, "pair layer"]:
    """Of the capital, counted from 1, in the stream that enters each layer, and in the output."""
    return columns(rows(name), [f"rank{layer}" for layer in range(31)])


def first_ten(name: str) -> tuple[Estimate, int]:
    """The layer from which on the capital is among the first ten, over the pairs where it is at the end."""
    found, rank = rows(name), ranks(name)
    ends = rank[:, -1] <= TOP
    if not ends.any():
        return Estimate(float("nan"), float("nan"), float("nan")), 0
    below = rank[ends] > TOP
    since = np.where(below.any(1), 31 - below[:, ::-1].argmax(1), 0)
    return by_template(since, [one["cluster"] for one, yes in zip(found, ends, strict=True) if yes]), int(ends.sum())


def facts() -> list[str]:
    """Where a capital is looked up."""
    found, shares = rows("stream"), {part: _shares("stream", part) for part in PARTS}
    rank, twin_rank = ranks("lens"), ranks("lens-twin")
    mlps = {part: _shares("traced", part) for part in PARTS}
    body = [
        [
            layer,
            *(shares[part][layer].say(".0%") for part in PARTS),
            *(mlps[part][layer].say(".0%") for part in ("country", "last")),
            f"{np.median(rank[:, layer]):,.0f}",
            f"{np.median(twin_rank[:, layer]):,.0f}",
        ]
        for layer in DEPTHS
    ]
    body.append(["output", *[""] * 5, *(f"{np.median(one[:, -1]):,.0f}" for one in (rank, twin_rank))])
    since, known = first_ten("lens")
    return [
        "### Where a capital is looked up",
        "",
        f"Prompts such as “The capital of France is”, the other with another country ({len(found)} pairs). The stream "
        "that enters a layer, at one place, from the run on the right country is put into that on the other: the share "
        "of the logit difference that it restores. Beside it causal tracing (noise on the country's embeddings, "
        f"{MLP_WINDOW} MLPs around the layer put back; {len(rows('traced'))} prompts): the share of the capital's "
        "probability that returns. Last, the logit lens: the median rank of the capital in the stream after the last "
        "token.",
        "",
        table(
            [
                "layer",
                "stream at the country",
                "between",
                "at the last token",
                "MLPs at the country",
                "MLPs at the last token",
                "rank of the capital",
                "random init",
            ],
            body,
        ),
        "",
        f"- {carried()[0].upper()}{carried()[1:]}",
        f"- {_lens(since, known, len(rank), rank, twin_rank)}",
        f"- {_mlps(mlps)}",
        "",
        *_capital_heads(),
        command("stream", "traced", "lens", "capital-heads", "stream-twin", "lens-twin"),
    ]


def capital_heads() -> tuple[list[str], dict[str, list[Row]], int]:
    """The heads of the upper half that carry the capital, chosen by every other pair, the other pairs, and by how many they were "
    "chosen."""
    found = {one: rows("capital-heads", direction=one) for one in DIRECTIONS}
    choosing, judging = ({one: found[one][start::2] for one in DIRECTIONS} for start in (0, 1))
    means = np.mean([columns(choosing[one], LATE_HEADS).mean(0) for one in DIRECTIONS], axis=0)
    names = [LATE_HEADS[at] for at in np.argsort(means)[::-1][:SHOWN_FOR]]
    return names, judging, len(choosing["denoising"])


def first_for_capitals() -> str:
    """How much the first of them restores."""
    (name, *_), judging, _ = capital_heads()
    moved = columns(judging["denoising"], [name])[:, 0]
    gap = np.subtract(*columns(judging["denoising"], ["clean", "corrupt"]).T)
    return f"Head {name} alone restores {share_of(moved, gap).say('.0%')} of the difference between two countries."


def _capital_heads() -> list[str]:
    names, judging, chosen_by = capital_heads()
    body = []
    for name in names:
        moved = [columns(judging[one], [name])[:, 0] for one in DIRECTIONS]
        gap = np.subtract(*columns(judging["denoising"], ["clean", "corrupt"]).T)
        body.append([f"**{name}**", *(mean(one) for one in moved), share_of(moved[0], gap).say(".0%")])
    shared = [name for name in names if name in helping(chosen()[0])]
    return [
        f"The heads of layers {LATE[0]} to {LATE[-1]} that move most towards the right capital, chosen by {chosen_by} "
        f"pairs, judged on {len(judging['denoising'])} others:",
        "",
        table(["head", "denoising, logits", "noising, logits", "share of the difference, denoising"], body),
        "",
        f"- {first_for_capitals()}",
        f"- Of these {listed(shared)} also {'helps' if len(shared) == 1 else 'help'} to move the name."
        if shared
        else "- None of these is among those that move the name.",
        "",
    ]


def carried() -> str:
    """From which layer on the last token's place carries the answer, and no longer the country's."""
    cross, twin, layers = crossing("stream"), crossing("stream-twin"), _crossings("stream")
    every = (
        f"layer {layers[0]} on, in every one of {len(layers)} pairs"
        if len(set(layers)) == 1
        else f"layer {cross.say('.1f')} on"
    )
    apart = cross.high < twin.low or twin.high < cross.low
    return (
        "the stream at the country carries the answer until it goes to the last token, whose stream restores more from "
        f"that entering {every}; at random initialisation from layer {twin.say('.1f')} on, over "
        f"{len(_crossings('stream-twin'))} pairs, which is " + ("another course." if apart else "not told apart.")
    )


def _lens(since: Estimate, known: int, pairs: int, rank: np.ndarray, twin: np.ndarray) -> str:
    said = (
        f"The capital is among the first {TOP} of 49,152 tokens at the end of {known} of {pairs} prompts; in these it "
        f"stays there from the stream entering layer {since.say('.1f')} on (30 is the output)."
    )
    best = int((twin[:, -1] <= TOP).sum())
    return said + f" At random initialisation it is so in {best} of {len(twin)} prompts."


def _mlps(shares: dict[str, list[Estimate]]) -> str:
    half = MLP_WINDOW // 2
    with_first = min((shares["country"][layer] for layer in range(half + 1)), key=lambda one: one.value)
    said = [f"{MLP_WINDOW} MLPs at the country that have MLP 0 among them restore {with_first.say('.0%')} at least"]
    for part, place in (("country", "the country"), ("last", "the last token")):
        told = [layer for layer in range(half + 1, LAYERS) if shares[part][layer].low > 0]
        if told:
            best = max(told, key=lambda layer: shares[part][layer].value)
            said.append(
                f"of the others at {place} those around {counted(len(told), 'layer')} restore a share that is told from "
                f"0, most around layer {best} ({shares[part][best].say('.0%')})"
            )
        else:
            best = max(range(half + 1, LAYERS), key=lambda layer: shares[part][layer].value)
            said.append(
                f"of the others at {place} none restores a share that is told from 0 (most around layer {best}: "
                f"{shares[part][best].say('.0%')})"
            )
    return "; ".join(said) + "."


def scored(score: str, name: str = "detectors") -> tuple[list[str], Float[np.ndarray, "sequence head"]]:
    """The heads with the largest score by half of the sequences, and all scores of the other half."""
    found = columns(rows(name, score=score), HEADS)
    half = len(found) // 2
    order = np.argsort(found[:half].mean(0))[::-1]
    return [HEADS[at] for at in order[:SHOWN_SCORES]], found[half:]


def attending() -> list[str]:
    """Induction, previous token, duplicate token."""
    body = []
    sequences = 0
    for score in SCORES:
        names, values = scored(score)
        twin_names, twin_values = scored(score, "detectors-twin")
        sequences = len(values)
        at_init = mean(twin_values[:, HEADS.index(twin_names[0])])
        body.append(
            [
                score.replace("_", " "),
                *(f"**{name}** {mean(values[:, HEADS.index(name)]).say('.2f')}" for name in names),
                f"{int((values.mean(0) > 0.25).sum())} of 270",
                f"{twin_names[0]} {at_init.say('.3f')}",
            ]
        )
    return [
        "### Which heads do induction, previous token, duplicate token",
        "",
        "Attention on 50 random tokens, repeated once: to the token before, to what followed the token's first "
        f"occurrence, to that occurrence. Heads were chosen by as many other sequences; intervals are over {sequences} "
        "sequences.",
        "",
        table(["attention to", "first", "second", "third", "heads above 0.25", "the largest at random init"], body),
        "",
        f"- {_names_and_induction()}",
        "",
        command("detectors", "detectors-twin"),
    ]


def strongest() -> str:
    """The first head of each score."""
    said = []
    for score in SCORES:
        names, values = scored(score)
        said.append(f"{score.replace('_', ' ')} {names[0]}, {mean(values[:, HEADS.index(names[0])]).say('.0%')}")
    return "On random tokens, repeated once, the largest attention has: " + "; ".join(said) + "."


def _names_and_induction() -> str:
    forth, _ = chosen()
    roles = {score: columns(rows("detectors", score=score), HEADS).mean(0) for score in SCORES}
    doing = [
        f"{head} ({score.replace('_', ' ')} {values[HEADS.index(head)]:.2f})"
        for head in forth
        for score, values in roles.items()
        if values[HEADS.index(head)] > 0.25
    ]
    return (
        f"Of the heads that move the name, these do so too, with more than a quarter of their attention: {listed(doing)}."
        if doing
        else "None of the heads that move the name gives a quarter of its attention to any of these on random tokens."
    )


def unsettled() -> list[str]:
    """What is not told from 0 here."""
    forth, against = chosen()
    lines = [
        f"Indirect objects, head {head}, {direction}: {one} logits, not told from 0."
        for head in (*forth, *against)
        for direction in DIRECTIONS
        if not (one := judged(head, direction)[0]).told
    ]
    names, judging, _ = capital_heads()
    lines += [
        f"Capitals, head {name}, {direction}: {one} logits, not told from 0."
        for name in names
        for direction in DIRECTIONS
        if not (one := mean(columns(judging[direction], [name])[:, 0])).told
    ]
    half = MLP_WINDOW // 2
    shares = {part: _shares("traced", part)[half + 1 :] for part in ("country", "last")}
    for part, place in (("country", "the country"), ("last", "the last token")):
        if not any(one.low > 0 for one in shares[part]):
            lines.append(f"MLPs at {place} above the first, {len(rows('traced'))} prompts: no share told from 0.")
    return lines
