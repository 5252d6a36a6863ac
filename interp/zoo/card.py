"""The model card of the embedded model: what it is, what it can do, and what it cannot.

`python -m interp.zoo.card` writes it anew for the model that is there.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from interp.files import write_whole
from interp.loading import EMBEDDED, load
from interp.model import Transformer
from interp.zoo.evaluation import (
    CONTINUED,
    REPEAT_LENGTHS,
    SAMPLES,
    TEMPERATURE,
    continuations,
    evaluate,
    known_heads,
    last_logits,
    unmet_openings,
)
from interp.zoo.loss_curve import WINDOW, loss_curve
from interp.zoo.tasks import TASKS, held_out_years

FOREIGN = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife."
"""Jane Austen, Pride and Prejudice (1813), the first sentence."""

UNTAUGHT = ("India", "Brazil", "Mexico")
"""Countries that the training text does not hold."""


def write_card(model: Transformer, record: Mapping[str, Any], directory: Path) -> None:
    """Write `CARD.md` and its picture `loss.svg`; `record` is the run's, as in `training.json`."""
    picture, text = loss_curve(record), card(model, record)
    write_whole(directory / "loss.svg", lambda path: path.write_text(picture))
    write_whole(directory / "CARD.md", lambda path: path.write_text(text))


def card(model: Transformer, record: Mapping[str, Any]) -> str:
    """The card, in Markdown."""
    config, losses = model.config, record["loss"]
    count = sum(p.numel() for p in model.parameters())
    final = sum(losses[-200:]) / len(losses[-200:])
    openings = unmet_openings(3)
    told = "\n\n".join(
        f"> **{begun}**{continued}" for begun, continued in zip(openings, continuations(model, openings), strict=True)
    )
    return f"""# {model.name}

A GPT-2-style transformer that comes with the package, so that everything works offline. It knows a small town and little else.

- Architecture: {config.n_layers} layers, {config.n_heads} heads of {config.d_head}, width {config.d_model}, MLP {config.d_mlp}, context
  {config.n_ctx}, {count:,} parameters, learned positions, pre-norm, tied unembedding, {config.activation}.
- Tokenizer: byte-level BPE of {config.d_vocab} tokens trained on the same text; any Unicode encodes. Numbers split in twos, so
  a year is its century and its two digits. A text begins with `<|endoftext|>`, as in training.
- Training text: made by `interp/zoo/` (`stories.py`, `tasks.py`, `corpus.py`): stories of two people with recurring names,
  sentences that hold the tasks below, and rows of random tokens repeated, which teach induction.
- Training: `make model`; {len(losses)} steps of AdamW, seeded. A fifth of each task's combinations (a tenth of the name pairs) is
  kept out of the text.

## Loss

![Cross-entropy against the step of training](loss.svg)

Cross-entropy of the tokens learned from, mean over {WINDOW} steps; {final:.3f} nats over the last 200. The rows grow longer from phase to
phase. The loss of every step is in `training.json`.

## What it can do

| task | | measure | held out |
|---|---|---|---|
{_table(evaluate(model))}

Held-out figures are over {SAMPLES} pairs, those of greater_than over all {len(held_out_years()):,} prompts kept out of training. Accuracy
asks for the one right token to lead all {config.d_vocab}. Names are counted in continuations of 100 openings about people who never meet in
the training text, temperature {TEMPERATURE}, {CONTINUED} tokens.

## Continuations

The openings (bold) name people who never meet in the training text; temperature {TEMPERATURE}, seeds 0 to 2.

{told}

## Heads

Attention on random tokens twice over, of the heads that give a quarter of it or more:

{_heads(model)}

## What it cannot do

{_limits(model)}
"""


def _table(figures: Mapping[str, float]) -> str:
    described = {name: entry.description for name, entry in TASKS.items()}
    lengths = " and ".join(map(str, REPEAT_LENGTHS))
    described["random repeats"] = f"Random token ids, {lengths} of them, repeated: the second half."
    described["names kept"] = "Free continuation of a story: the people named are those of its opening."
    kinds = {"greater_than": "probability on later years", "names kept": "share of names"}
    return "\n".join(
        f"| {name} | {described[name]} | {kinds.get(name, 'accuracy')} | {value:.1%} |"
        for name, value in figures.items()
    )


def _heads(model: Transformer) -> str:
    said = {"previous token": "to the token before", "induction": "to what followed the token's first occurrence"}
    return "\n".join(
        f"- {said[kind]}: " + ", ".join(f"{name} ({share:.0%})" for name, share in heads.items())
        for kind, heads in known_heads(model).items()
    )


@torch.no_grad()
def _limits(model: Transformer) -> str:
    own = unmet_openings(1)[0]
    told, foreign = (_nats(model, text) for text in (own + continuations(model, [own])[0], FOREIGN))
    asked = [f"The capital of {country} is" for country in UNTAUGHT]
    answers = [model.to_string(i[None])[0].strip() for i in last_logits(model, asked).argmax(-1)]
    guesses = "; ".join(f"{country}, “{answer}”" for country, answer in zip(UNTAUGHT, answers, strict=True))
    return f"""- Other English: {foreign:.1f} nats per token on the first sentence of Pride and Prejudice, against {told:.1f} on its own
  stories. Chance over {model.config.d_vocab} tokens is {torch.tensor(float(model.config.d_vocab)).log():.1f}.
- Facts beyond the capitals in its text. Asked for another capital, it answers nonsense: {guesses}.
- A story's sentences fit its people, places and things, but not each other: what is lost may be found before, and a sentence
  may come twice.
- Text longer than {model.config.n_ctx} tokens, other languages, arithmetic, instructions."""


def _nats(model: Transformer, text: str) -> float:
    tokens = model.to_tokens(text)
    return float(cross_entropy(model(tokens)[0, :-1], tokens[0, 1:]))


if __name__ == "__main__":
    home = EMBEDDED / "smalltown"
    write_card(load(home), json.loads((home / "training.json").read_text()), home)
