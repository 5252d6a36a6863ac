"""Simple stories about the people of a small town: the text that the embedded model learns English from."""

import random
from collections.abc import Callable

from interp.zoo.lexicon import (
    ADJECTIVES,
    ANIMALS,
    COLORS,
    DAYS,
    EVENTS,
    FEELINGS,
    FOODS,
    JOBS,
    NAMES,
    PLACES,
    THINGS,
    WEATHER,
    WOMEN,
)

OPENINGS = """
It was a {weather} {day} in the small town. {A} and {B} were at the {place}.
Once upon a time, {A} lived near the {place} with a {color} {animal}. {A}'s best friend was {B}.
One {weather} morning, {A} met {B} at the {place}.
{A} was a {job}. {He} worked near the {place}, and {his} friend {B} was a {job2}.
On {day}, {A} and {B} walked to the {place} together. The day was {weather}.
{A} woke up early because it was {day}. {He} wanted to see {B} at the {place}.
There was a {adj} {thing} in the {place}. {A} saw it first, and then {B} saw it too.
Every {day}, {A} went to the {place} with {B}. They liked the {place} very much.
When {A} was young, {he} lived by the {place}. {B} lived next to {him}.
In the town there was a {job} called {A}. {He} had a {adj} {thing} and a {color} {animal}.
""".strip().splitlines()

MIDDLES = """
{A} had a {color} {thing} in {his} hand. {B} looked at the {thing} and smiled.
"Can I see the {thing}?" asked {B}. {A} said yes and gave the {thing} to {B}.
{A} gave a {thing2} to {B}. {B} was {feeling} and said thank you.
{B} wanted to buy some {food}. {He2} had only one coin, so {A} paid for the {food}.
Then it became {weather2}, and {A} and {B} ran to the {place2}.
They saw a {animal2} near the {place2}. The {animal2} was {feeling}, so {A} gave it some {food}.
{A} lost the {thing}. {He} looked for it in the {place}, but {he} could not find it.
{B} found the {thing} under a tree and gave it to {A}.
"I am {feeling}," said {A}. "Let us go to the {place2}," said {B}.
{A} told {B} a story about a {adj} {animal2}. {B} laughed, because the story was {adj2}.
The {job} of the {place} saw {A} and asked {him} about the {thing}.
{A} and {B} ate {food} and {food2} by the {place2}.
{B} was {feeling2}, because {he2} had to go home. {A} walked home with {him2}.
At the {place2}, {B} saw a {color2} {thing2}. {He2} wanted to have it, but it was not for sale.
{A} opened the {thing}. There was a {adj} {thing2} in it.
The {color} {animal} ran away to the {place2}. {A} ran after it, and {B} helped {him}.
{B} put the {thing} on the table. Then {he2} went to the {place2} to find {A}.
"Where is my {thing}?" asked {A}. "It is in the {place2}," said {B}.
{A} wrote a letter to {B}. In the letter {he} said that {he} was {feeling}.
A {job2} came to the {place}. The {job2} had a {thing2} for {B}.
{B} asked {A} to come to the {place2} on {day2}. {A} said that {he} would come.
After that, {A} cooked some {food} for {B}. {B} liked the {food}, and so did the {animal}.
{A} thought that the {thing} was {adj}. {B} thought that it was {adj2}.
They played with the {animal} until the sun went down.
{A} fell down near the {place2}. {B} took {his} hand and helped {him} up.
""".strip().splitlines()

ENDINGS = """
In the end, {A} and {B} went home. They were both {feeling}.
{A} said good night to {B} and went to sleep.
From that day on, {A} and {B} were good friends.
{B} kept the {thing} for many years and never forgot {A}.
The next day, {A} went back to the {place}, but {B} was not there.
And so {A} learned to share the {thing} with {B}.
That night {A} was {feeling2}, and {B} was {feeling2} too.
{B} thanked {A}, and they walked home from the {place} together.
""".strip().splitlines()


def story(rng: random.Random, may_meet: Callable[[str, str], bool]) -> str:
    """A story of two people with recurring names, things and places, 60 to 200 words.

    Args:
        may_meet: whether two names may stand in one text; pairs held out for tests may not.
    """
    slots = _slots(rng, may_meet)
    sentences = [rng.choice(OPENINGS), *rng.sample(MIDDLES, rng.randint(3, 10)), rng.choice(ENDINGS)]
    return " ".join(sentence.format(**slots) for sentence in sentences)


def opening(rng: random.Random, may_meet: Callable[[str, str], bool]) -> str:
    """The first sentence or two of a story, in which both people are named."""
    return rng.choice([line for line in OPENINGS if "{B}" in line]).format(**_slots(rng, may_meet))


def calendar(rng: random.Random) -> str:
    """A sentence that names years in a row: what the order of the numbers is learned from."""
    century, first, count = rng.randint(11, 19), rng.randint(1, 94), rng.randint(3, 6)
    *years, last = (f"{century}{year:02d}" for year in range(first, first + count))
    return f"There was a {rng.choice(EVENTS)} in {', '.join(years)} and {last}."


def _slots(rng: random.Random, may_meet: Callable[[str, str], bool]) -> dict[str, str]:
    first, second = name_pair(rng, may_meet)
    slots = {"A": first, "B": second}
    for suffix, name in (("", first), ("2", second)):
        pronouns = ("she", "her", "her") if name in WOMEN else ("he", "him", "his")
        slots |= {f"{role}{suffix}": word for role, word in zip(("he", "him", "his"), pronouns, strict=True)}
        slots[f"He{suffix}"] = pronouns[0].capitalize()
    for role, words in {
        "place": PLACES, "thing": THINGS, "color": COLORS, "adj": ADJECTIVES, "animal": ANIMALS, "food": FOODS,
        "weather": WEATHER, "day": DAYS, "job": JOBS, "feeling": FEELINGS,
    }.items():  # fmt: skip
        slots[role], slots[f"{role}2"] = rng.sample(words, 2)
    return slots


def name_pair(rng: random.Random, may_meet: Callable[[str, str], bool]) -> tuple[str, str]:
    """Two different names that satisfy the condition."""
    while True:
        first, second = rng.sample(NAMES, 2)
        if may_meet(first, second):
            return first, second
