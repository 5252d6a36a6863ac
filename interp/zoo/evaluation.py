"""What the embedded model can do on what it never saw."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from interp.finite import not_finite
from interp.model import Transformer
from interp.tokenizer import PAD
from interp.zoo.lexicon import NAMES
from interp.zoo.stories import opening
from interp.zoo.tasks import TASKS, Drawn, Pair, Task, held_out_years, may_meet, task

SAMPLES, SEED = 400, 11
AT_ONCE = 64  # prompts in a batch
REPEAT_LENGTHS = (25, 50)
CONTINUED, TEMPERATURE = 100, 0.7


@dataclass(frozen=True)
class Score:
    """What a model makes of a task's pairs.

    Args:
        drawn: the pairs, and why others did not suit the tokenizer.
        first: for each pair, whether after its clean prompt a right answer is the most probable of all tokens.
        above: whether its answer is more probable than the wrong one.
    """

    drawn: Drawn
    first: tuple[bool, ...]
    above: tuple[bool, ...]


@torch.no_grad()
def last_logits(model: Transformer, prompts: Sequence[str]) -> torch.Tensor:
    """Logits [prompt, vocab] after the last token of each prompt. Raises ResultError where they are no numbers."""
    found = []
    for start in range(0, len(prompts), AT_ONCE):
        tokens = model.to_tokens(list(prompts[start : start + AT_ONCE]))
        real = tokens != PAD
        stream = model.run_blocks(model.embed(tokens), real=None if bool(real.all()) else real)
        last = stream[torch.arange(len(tokens), device=tokens.device), real.sum(1) - 1]
        logits = model.unembed(last[:, None])[:, 0]  # the vocabulary is wide, and only these are wanted
        if not bool(torch.isfinite(logits).all()):
            raise not_finite(model, tokens, "evaluation: the logits after a prompt")
        found.append(logits)
    return torch.cat(found)


def score(model: Transformer, task: Task, pairs: int, seed: int = SEED) -> Score:
    """A task's score by both measures, on pairs that suit the model's tokenizer; fewer than asked for where not so many do."""
    drawn = task.suiting(pairs, seed, model.need_tokenizer())
    return Score(drawn, *_hits(model, drawn.pairs)) if drawn.pairs else Score(drawn, (), ())


def accuracy(model: Transformer, pairs: Sequence[Pair]) -> float:
    """Share of pairs after whose clean prompt a right answer is the most probable of all tokens."""
    return sum(_hits(model, pairs)[0]) / len(pairs)


def _hits(model: Transformer, pairs: Sequence[Pair]) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """After which clean prompts a right answer leads, and after which the answer is above the wrong one."""
    logits = last_logits(model, [pair.clean for pair in pairs])
    first, above = [], []
    for row, leading, pair in zip(logits, logits.argmax(-1).tolist(), pairs, strict=True):
        answer, wrong = model.to_single_token(pair.answer), model.to_single_token(pair.wrong)
        first.append(leading in (answer, *_single(model, pair.also)))
        above.append(bool(row[answer] > row[wrong]))
    return tuple(first), tuple(above)


def _single(model: Transformer, texts: Sequence[str]) -> list[int]:
    """The ids of those texts that are one token."""
    encoded = [model.need_tokenizer().encode(text, inside=True) for text in texts]
    return [ids[0] for ids in encoded if len(ids) == 1]


def later_year_mass(model: Transformer, prompts: Sequence[str]) -> float:
    """Mean probability, after prompts of `greater_than`, of all two-digit years above the first (Hanna et al. 2023)."""
    ids = torch.tensor([model.to_single_token(f"{year:02d}") for year in range(100)])
    total = 0.0
    for start in range(0, len(prompts), SAMPLES):
        some = prompts[start : start + SAMPLES]
        first = torch.tensor([int(re.findall(r"\d\d(\d\d) to", prompt)[0]) for prompt in some])
        later = torch.arange(100) > first[:, None]
        total += float((last_logits(model, some).softmax(-1)[:, ids] * later).sum())
    return total / len(prompts)


@torch.no_grad()
def repeat_accuracy(
    model: Transformer, lengths: Sequence[int] = REPEAT_LENGTHS, rows: int = 100, seed: int = SEED
) -> float:
    """Accuracy on the second half of uniformly random ids repeated once, over several lengths of the half.

    They follow the BOS token where the model was trained with one. The second half's first token is left out: nothing says yet that
    the string repeats (Olsson et al. 2022).
    """
    bos = model.need_tokenizer().bos
    generator = torch.Generator().manual_seed(seed)
    right = total = 0
    for length in lengths:
        half = torch.randint(1, model.config.d_vocab, (rows, length), generator=generator)
        begin = [] if bos is None else [torch.full((rows, 1), bos)]
        tokens = torch.cat([*begin, half, half], dim=1).to(model.device)
        logits = model(tokens)[:, -length:-1]
        if not bool(torch.isfinite(logits).all()):
            raise not_finite(model, tokens, "evaluation: the logits of a repeated string")
        predicted = logits.argmax(-1)
        right += int((predicted == tokens[:, -length + 1 :]).sum())
        total += predicted.numel()
    return right / total


@torch.no_grad()
def known_heads(model: Transformer, length: int = 60, rows: int = 8, seed: int = SEED) -> dict[str, dict[str, float]]:
    """The attention, on random tokens repeated, of every head that does one of two things with a quarter of it or more.

    Returns:
        For `previous token` and `induction` (what followed the token's first occurrence), heads `L.H` with that attention, largest first.
    """
    generator = torch.Generator().manual_seed(seed)
    once = torch.stack(
        [torch.randperm(model.config.d_vocab - 1, generator=generator)[:length] + 1 for _ in range(rows)]
    )
    tokens = torch.cat([torch.zeros(rows, 1, dtype=torch.long), once, once], dim=1)
    _, cache = model.run_with_cache(tokens, "blocks.*.attn.hook_pattern")
    found: dict[str, dict[str, float]] = {}
    for kind, back, first in (("previous token", 1, 1), ("induction", length - 1, length + 1)):
        at = torch.arange(first, tokens.shape[1])
        scores = {
            f"{layer}.{head}": float(cache["pattern", layer][:, head, at, at - back].mean())
            for layer in range(model.config.n_layers)
            for head in range(model.config.n_heads)
        }
        strong = {name: score for name, score in scores.items() if score >= 0.25}
        found[kind] = dict(sorted(strong.items(), key=lambda item: -item[1]))
    return found


def continuations(
    model: Transformer, openings: Sequence[str], temperature: float = TEMPERATURE, seed: int = 0
) -> list[str]:
    """Each opening's continuation, up to its end or `CONTINUED` tokens."""
    read = (model.to_tokens(list(openings)) != PAD).sum(1).tolist()
    tokens = model.generate(list(openings), max_new_tokens=CONTINUED, temperature=temperature, seed=seed)
    ends = (PAD, *model.need_tokenizer().stops)
    return [
        model.need_tokenizer().decode([i for i in row[start:] if i not in ends])
        for row, start in zip(tokens.tolist(), read, strict=True)
    ]


def unmet_openings(count: int, seed: int = SEED) -> list[str]:
    """First sentences of stories about two people who never meet in the training text."""
    rng = random.Random(f"openings {seed}")
    return [opening(rng, lambda a, b: not may_meet(a, b)) for _ in range(count)]


def names_kept(model: Transformer, stories: int = 100, seed: int = SEED) -> float:
    """Of all people named in continuations of stories, the share that the opening introduced."""
    name = re.compile(rf"\b(?:{'|'.join(NAMES)})\b")
    openings = unmet_openings(stories, seed)
    kept = [
        named in name.findall(begun)
        for begun, continued in zip(openings, continuations(model, openings, seed=seed), strict=True)
        for named in name.findall(continued)
    ]
    return sum(kept) / max(1, len(kept))


def evaluate(model: Transformer) -> dict[str, float]:
    """Each task's accuracy on `SAMPLES` held-out pairs; for `greater_than` the mass on later years over its whole held-out
    half; random repeats; and the names kept in continuations."""
    figures = {}
    for name in TASKS:
        years = name == "greater_than"
        figures[name] = (
            later_year_mass(model, held_out_years()) if years else accuracy(model, task(name).sample(SAMPLES, SEED))
        )
    return figures | {"random repeats": repeat_accuracy(model), "names kept": names_kept(model)}
