"""Tasks with known answers: pairs of prompts that differ in one respect, and the token that decides between them.

Each task splits its material in two by a fixed rule. The embedded model trains on sentences from one half;
`Task.sample` draws from the other half only, so its accuracy on a sample is held out.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from interp.errors import InterpError, is_known, nearest
from interp.tokenizer import Tokenizer
from interp.zoo.lexicon import CAPITALS, EVENTS, MEN, NAMES, PLACES, PLURALS, THINGS, WOMEN
from interp.zoo.stories import name_pair


@dataclass(frozen=True)
class Pair:
    """A clean prompt with its right answer, and a corrupt prompt of equal token length for which `wrong` is right.

    Answers are single tokens with their leading space. `also` are further right answers of the clean prompt. `cluster` is the template that
    both were made from, where they were: pairs of one template are not independent (`clusters=` of `analyses.cascade.driven`).
    """

    clean: str
    corrupt: str
    answer: str
    wrong: str
    also: tuple[str, ...] = ()
    cluster: str | None = None


Draw = Callable[[random.Random, bool], Pair]


@dataclass(frozen=True)
class Drawn:
    """Pairs that suit a tokenizer.

    Args:
        pairs: as many as were asked for, or as were found.
        unsuited: for each reason why others do not suit, what it was about them, once for each pair.
    """

    pairs: list[Pair]
    unsuited: dict[str, list[str]]

    @property
    def tried(self) -> int:
        """How many pairs were looked at."""
        return len(self.pairs) + sum(map(len, self.unsuited.values()))

    def why(self, most: int | None = 4) -> str:
        """The reasons, with how often and at most so many of what they were about; None is all."""
        return "; ".join(
            f"{len(about)} because {reason} ({_some(about, most)})" for reason, about in self.unsuited.items()
        )


def _some(about: list[str], most: int | None) -> str:
    different = list(dict.fromkeys(about))
    rest = len(different) - len(different[:most])
    return ", ".join(different[:most]) + (f" and {rest} more" if rest else "")


@dataclass(frozen=True)
class Task:
    """A task: what it asks, and how to draw a pair, from the held-out half or from the half used in training.

    `otherwise` draws the same question for tokenizers that no pair of the first form suits.
    """

    name: str
    description: str
    draw: Draw
    otherwise: Draw | None = None

    def sample(self, n: int, seed: int = 0, tokenizer: Tokenizer | None = None) -> list[Pair]:
        """`n` pairs from the held-out half; the same seed gives the same pairs.

        Args:
            tokenizer: leave out pairs whose prompts differ in length, or whose answers are several tokens, in this tokenizer.
                Without one they suit the embedded model's.

        Raises:
            InterpError: fewer than one pair asked for, or hardly any pair suits the tokenizer.
        """
        drawn = self.suiting(n, seed, tokenizer)
        if len(drawn.pairs) < n:
            raise InterpError(
                f"task {self.name}: only {len(drawn.pairs)} of {drawn.tried} pairs suit this tokenizer; {n} were asked for: "
                f"{drawn.why()}."
            )
        return drawn.pairs

    def suiting(self, n: int, seed: int = 0, tokenizer: Tokenizer | None = None) -> Drawn:
        """As `sample`, but where fewer pairs suit, those; and why the others did not. Raises InterpError for fewer than one asked for."""
        if n < 1:
            raise InterpError(f"task {self.name}: need at least one pair, asked for {n}.")
        drawn = self._drawn(self.draw, n, seed, tokenizer)
        if drawn.pairs or self.otherwise is None:
            return drawn
        other = self._drawn(self.otherwise, n, seed, tokenizer)
        return other if other.pairs else drawn

    def stream(self, n: int, seed: int = 0, tokenizer: Tokenizer | None = None) -> Iterator[Pair]:
        """The pairs of `sample` one after the other: they need not fit into memory together.

        Raises InterpError as `sample` does, where too few suit after the last that does.
        """
        if n < 1:
            raise InterpError(f"task {self.name}: need at least one pair, asked for {n}.")
        found = 0
        unsuited: dict[str, int] = {}
        for draw in (self.draw, self.otherwise):
            if draw is None or found:
                break
            for pair, reason in self._looked_at(draw, n, seed, tokenizer):
                if reason is None:
                    found += 1
                    yield pair
                else:
                    unsuited[reason[0]] = unsuited.get(reason[0], 0) + 1
        if found < n:
            why = "; ".join(f"{count} not because {reason}" for reason, count in unsuited.items())
            raise InterpError(f"task {self.name}: only {found} pairs suit this tokenizer; {n} were asked for: {why}.")

    def _drawn(self, draw: Draw, n: int, seed: int, tokenizer: Tokenizer | None) -> Drawn:
        pairs: list[Pair] = []
        unsuited: dict[str, list[str]] = {}
        for pair, reason in self._looked_at(draw, n, seed, tokenizer):
            if reason is None:
                pairs.append(pair)
            else:
                unsuited.setdefault(reason[0], []).append(reason[1])
        return Drawn(pairs, unsuited)

    def _looked_at(
        self, draw: Draw, n: int, seed: int, tokenizer: Tokenizer | None
    ) -> Iterator[tuple[Pair, tuple[str, str] | None]]:
        """Pairs, and why one does not suit, until so many suit or fifty times as many were drawn."""
        rng = random.Random(f"{self.name} {seed}")
        left = n
        for _ in range(50 * n):
            pair = draw(rng, True)
            reason = None if tokenizer is None else _unsuited(pair, tokenizer)
            left -= reason is None
            yield pair, reason
            if not left:
                return

    def training_sentence(self, rng: random.Random) -> str:
        """A prompt with its answer, from the half used in training."""
        pair = self.draw(rng, False)
        return f"{pair.clean}{pair.answer}."


def _unsuited(pair: Pair, tokenizer: Tokenizer) -> tuple[str, str] | None:
    """Why a pair does not suit a tokenizer, and what it is about it; None where it does."""
    clean, corrupt = tokenizer.encode(pair.clean), tokenizer.encode(pair.corrupt)
    if len(clean) != len(corrupt):
        words = zip(pair.clean.split(), pair.corrupt.split(), strict=False)
        return "the prompts are of different length", next((f"{a}/{b}" for a, b in words if a != b), pair.clean)
    for text in (pair.answer, pair.wrong):
        whole = tokenizer.encode(pair.clean + text)
        if whole[: len(clean)] != clean:
            return "an answer runs together with the end of the prompt", repr(pair.clean.split()[-1] + text)
        if len(whole) != len(clean) + 1:
            return "an answer is several tokens", repr(text)
    return None


IOI_TEMPLATES = (
    "When {A} and {B} went to the {place}, {S} gave a {thing} to",
    "After {A} and {B} came to the {place}, {S} handed a {thing} to",
    "Then {A} and {B} met at the {place}, and {S} sent a {thing} to",
    "{A} and {B} were at the {place}. {S} showed a {thing} to",
    "While {A} and {B} were in the {place}, {S} sold a {thing} to",
)
CAPITAL_TEMPLATES = (
    "The capital of {country} is",
    "The capital city of {country} is",
    "In the school book, the capital of {country} is called",
    "They went to {country} and saw its capital,",
    "The teacher asked for the capital of {country}. The answer was",
)
YEAR_TEMPLATES = (
    "The {event} lasted from the year {century}{year} to the year {century}",
    "The {event} went on from {century}{year} to {century}",
)
CENTURIES, FIRST_YEARS = range(11, 20), range(2, 98)
LONGEST = 10  # years that an event of the training text lasts
FIRST_TENS = range(9)
ATTRACTOR_TEMPLATES = (
    "The {subject} near the {attractor}",
    "The {subject} behind the {attractor}",
    "The {subject} next to the {attractor}",
    "The {subject} with the {attractor}",
)
PRONOUN_TEMPLATES = (
    "{name} went to the {place} because",
    "{name} lost a {thing} at the {place}, and then",
    "When {name} saw the {thing},",
    "{name} sat in the {place} and said that",
)


def may_meet(first: str, second: str) -> bool:
    """Whether two people may stand in one training text. One pair in ten may not: those are kept for the tests."""
    low, high = sorted((NAMES.index(first), NAMES.index(second)))
    return (31 * low + 17 * high) % 10 != 0


def _is_held_out(*parts: object) -> bool:
    """A fixed fifth of all combinations of the parts, by their spelling."""
    return sum(map(ord, " ".join(map(str, parts)))) % 5 == 0


def _draw(held_out: bool, make: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Draw until the combination lies in the wanted half."""
    while True:
        parts = make()
        if _is_held_out(*parts) == held_out:
            return parts


def _ioi(rng: random.Random, held_out: bool) -> Pair:
    first, second = name_pair(rng, lambda a, b: may_meet(a, b) != held_out)
    giver, receiver = rng.sample((first, second), 2)
    slots = {"A": first, "B": second, "place": rng.choice(PLACES), "thing": rng.choice(THINGS)}
    template = rng.choice(IOI_TEMPLATES)
    clean, corrupt = (template.format(S=one, **slots) for one in (giver, receiver))
    return Pair(clean, corrupt, f" {receiver}", f" {giver}", cluster=template)


def _capitals(rng: random.Random, held_out: bool) -> Pair:
    template, country = _draw(held_out, lambda: (rng.choice(CAPITAL_TEMPLATES), rng.choice(list(CAPITALS))))
    other = rng.choice([c for c in CAPITALS if c != country])
    return Pair(
        template.format(country=country), template.format(country=other), f" {CAPITALS[country]}", f" {CAPITALS[other]}",
        cluster=template,
    )  # fmt: skip


def _greater_than(rng: random.Random, held_out: bool) -> Pair:
    event, century, year = _draw(
        held_out, lambda: (rng.choice(EVENTS), str(rng.choice(CENTURIES)), f"{rng.choice(FIRST_YEARS):02d}")
    )
    template = rng.choice(YEAR_TEMPLATES)
    return Pair(
        template.format(event=event, century=century, year=year),
        template.format(event=event, century=century, year="01"),
        f"{rng.randint(int(year) + 1, min(int(year) + LONGEST, 99)):02d}",
        f"{rng.randint(1, int(year)):02d}",
        tuple(f"{later:02d}" for later in range(int(year) + 1, 100)),
        template,
    )


def _later_ten(rng: random.Random, held_out: bool) -> Pair:
    """The same where every digit is a token: the first of the two. The year ends in 9, so that no later one begins with the same digit."""
    event, century, ten = _draw(
        held_out, lambda: (rng.choice(EVENTS), str(rng.choice(CENTURIES)), str(rng.choice(FIRST_TENS)))
    )
    template = rng.choice(YEAR_TEMPLATES)
    later = [str(digit) for digit in range(int(ten) + 1, 10)]
    return Pair(
        template.format(event=event, century=century, year=f"{ten}9"),
        template.format(event=event, century=century, year="01"),
        later[0],
        str(rng.randint(0, int(ten))),
        tuple(later[1:]),
        template,
    )


def held_out_years() -> list[str]:
    """Every prompt of `greater_than` that is kept out of training: its whole held-out half."""
    return [
        template.format(event=event, century=century, year=f"{year:02d}")
        for template in YEAR_TEMPLATES
        for event in EVENTS
        for century in CENTURIES
        for year in FIRST_YEARS
        if _is_held_out(event, century, f"{year:02d}")
    ]


def _agreement(rng: random.Random, held_out: bool) -> Pair:
    subject, attractor = _draw(held_out, lambda: tuple(rng.sample(list(PLURALS), 2)))
    template = rng.choice(ATTRACTOR_TEMPLATES)
    singular, plural = (subject, " is"), (PLURALS[subject], " are")
    (right, answer), (other, wrong) = rng.sample((singular, plural), 2)
    attractor = PLURALS[attractor] if answer == " is" else attractor
    clean, corrupt = (template.format(subject=noun, attractor=attractor) for noun in (right, other))
    return Pair(clean, corrupt, answer, wrong, cluster=template)


def _gender(rng: random.Random, held_out: bool) -> Pair:
    template, name = _draw(held_out, lambda: (rng.choice(PRONOUN_TEMPLATES), rng.choice(NAMES)))
    slots = {"place": rng.choice(PLACES), "thing": rng.choice(THINGS)}
    female = name in WOMEN
    other = rng.choice(MEN if female else WOMEN)
    answer, wrong = (" she", " he") if female else (" he", " she")
    clean, corrupt = (template.format(name=one, **slots) for one in (name, other))
    return Pair(clean, corrupt, answer, wrong, cluster=template)


def _induction(rng: random.Random, held_out: bool) -> Pair:
    words = rng.sample(INDUCTION_WORDS, rng.randint(8, 24))
    other = rng.choice([w for w in INDUCTION_WORDS if w not in words])
    asked = rng.randrange(2, len(words))
    changed = [*words[:asked], other, *words[asked + 1 :]]
    clean, corrupt = ("".join(f" {w}" for w in first + words[:asked]) for first in (words, changed))
    return Pair(clean, corrupt, f" {words[asked]}", f" {other}")


INDUCTION_WORDS = sorted({*PLACES, *THINGS, *EVENTS, *CAPITALS, *CAPITALS.values(), *NAMES, *PLURALS})

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("ioi", "Indirect object identification (Wang et al. 2022): who gets the gift? The name named once.", _ioi),
        Task("capitals", "Recall of a fact: the capital of a country.", _capitals),
        Task(
            "induction",
            "Random words, repeated (Olsson et al. 2022): what came after this word the first time?",
            _induction,
        ),
        Task(
            "greater_than",
            "A later year (Hanna et al. 2023): two digits above those of the first year, or the first of them.",
            _greater_than,
            _later_ten,
        ),
        Task("agreement", "Verb number across an attractor noun of the other number (Linzen et al. 2016).", _agreement),
        Task("gender", "The pronoun that fits a name.", _gender),
    )
}


def task(name: str) -> Task:
    """The task of that name. Raises InterpError for an unknown one."""
    if not is_known(name, TASKS):
        raise InterpError(f"unknown task {name!r}. {nearest(name, TASKS)}")
    return TASKS[name]
