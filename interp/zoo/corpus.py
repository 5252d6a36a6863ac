"""What the embedded model is trained on: rows of token ids, made anew for each step from the step's number."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from interp.errors import TokenError
from interp.zoo.lexicon import ADJECTIVES, FEELINGS
from interp.zoo.stories import calendar, story
from interp.zoo.tasks import TASKS, may_meet

END_OF_TEXT = "<|endoftext|>"
IGNORE = -100
"""The target of places that are not learned from; what torch's cross-entropy ignores by default."""

# GPT-2's split, except that numbers go in twos: a year is its century and its two digits.
SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

SENTENCES = {"ioi": 5, "capitals": 3, "greater_than": 6, "calendar": 2, "agreement": 2, "gender": 2}  # kind: weight


@dataclass(frozen=True)
class Phase:
    """A stretch of training: how long, the shape of its batches, and what they are made of.

    Args:
        steps: batches.
        rows, length: their shape in rows and tokens.
        stories: share of the documents that are stories; the others are sentences of the tasks.
        repeats: share of the rows that repeat a random string of tokens.
    """

    steps: int
    rows: int
    length: int
    stories: float
    repeats: float


def document(rng: random.Random, stories: float) -> str:
    """A story with the given probability, else one to three sentences of one kind."""
    if rng.random() < stories:
        return story(rng, may_meet)
    kind = rng.choices(list(SENTENCES), list(SENTENCES.values()))[0]
    return " ".join(_sentence(kind, rng) for _ in range(rng.randint(1, 3)))


def _sentence(kind: str, rng: random.Random) -> str:
    """A sentence of a task, or years in a row; one that stops at its verb or pronoun gets an ending, so that the text is English."""
    if kind == "calendar":
        return calendar(rng)
    sentence = TASKS[kind].training_sentence(rng)
    if kind == "agreement":
        return f"{sentence[:-1]} {rng.choice(ADJECTIVES)}."
    if kind == "gender":
        return f"{sentence[:-1]} was {rng.choice(FEELINGS)}."
    return sentence


def train_tokenizer(size: int, documents: int, seed: int) -> Tokenizer:
    """A byte-level BPE (Sennrich et al. 2016) of at most `size` tokens, trained on the corpus; any Unicode text encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rng = random.Random(f"tokenizer {seed}")
    numbers = " ".join(f"{n:02d} x{n:02d}" for n in range(100))
    texts = [document(rng, 0.5) for _ in range(documents)] + [numbers] * 20
    pairs = [pair for task in TASKS.values() for pair in task.sample(200, seed=seed)]
    texts += [text for pair in pairs for text in (pair.clean, pair.answer)]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def batch(
    tokenizer: Tokenizer, phase: Phase, seed: int, step: int
) -> tuple[Int[Tensor, "rows length"], Int[Tensor, "rows length"]]:
    """Inputs and targets of one training step. Every row begins with the end-of-text token, which also parts documents.

    A share of the rows repeats a random string of tokens; the first time it cannot be predicted, so only the
    repeats are learned from.
    """
    rng = random.Random(f"rows {seed} {step}")
    end, size, length = _end(tokenizer), tokenizer.get_vocab_size(), phase.length
    tokens = torch.empty(phase.rows, length + 1, dtype=torch.long)
    targets = torch.empty(phase.rows, length, dtype=torch.long)
    stream = _text_stream(tokenizer, rng, phase.stories)
    for row in range(phase.rows):
        if rng.random() < phase.repeats:
            period = rng.randint(3, length // 2)
            once = [rng.randrange(end + 1, size) for _ in range(period)]
            tokens[row] = torch.tensor([end, *(once * (length // period + 1))][: length + 1])
            targets[row] = tokens[row, 1:]
            targets[row, :period] = IGNORE
        else:
            tokens[row] = torch.tensor([end, *(next(stream) for _ in range(length))])
            targets[row] = tokens[row, 1:]
    return tokens[:, :-1], targets


def _text_stream(tokenizer: Tokenizer, rng: random.Random, stories: float) -> Iterator[int]:
    while True:
        yield from tokenizer.encode(document(rng, stories)).ids
        yield _end(tokenizer)


def _end(tokenizer: Tokenizer) -> int:
    end = tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise TokenError(f"this tokenizer has no {END_OF_TEXT} token, which parts documents.")
    return end
