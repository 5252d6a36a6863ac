"""What the embedded model can do on what it never saw, and the card that says so."""

import re
from collections.abc import Sequence

import torch

from interp.model import Transformer
from interp.tokenizer import PAD
from interp.zoo.tasks import TASKS, Pair, task

SAMPLES, SEED = 400, 11
REPEAT_LENGTHS = (25, 50)


@torch.no_grad()
def last_logits(model: Transformer, prompts: Sequence[str]) -> torch.Tensor:
    """Logits [prompt, vocab] after the last token of each prompt."""
    tokens = model.to_tokens(list(prompts))
    last = (tokens != PAD).sum(1) - 1
    logits: torch.Tensor = model(tokens)
    return logits[torch.arange(len(tokens), device=tokens.device), last]


def accuracy(model: Transformer, pairs: Sequence[Pair]) -> float:
    """Share of pairs after whose clean prompt the answer is the most probable of all tokens."""
    predicted = last_logits(model, [pair.clean for pair in pairs]).argmax(-1)
    answers = torch.tensor([model.to_single_token(pair.answer) for pair in pairs], device=predicted.device)
    return float((predicted == answers).float().mean())


def later_year_mass(model: Transformer, pairs: Sequence[Pair]) -> float:
    """Mean probability, after the clean prompts of `greater_than`, of all two-digit years above the first (Hanna et al. 2023)."""
    probabilities = last_logits(model, [pair.clean for pair in pairs]).softmax(-1)
    ids = torch.tensor([model.to_single_token(f"{year:02d}") for year in range(100)])
    first = torch.tensor([int(re.findall(r"\d\d(\d\d) to", pair.clean)[0]) for pair in pairs])
    later = torch.arange(100) > first[:, None]
    return float((probabilities[:, ids] * later).sum(1).mean())


@torch.no_grad()
def repeat_accuracy(
    model: Transformer, lengths: Sequence[int] = REPEAT_LENGTHS, rows: int = 100, seed: int = SEED
) -> float:
    """Accuracy on the second half of uniformly random ids repeated once, over several lengths of the half.

    The second half's first token is left out: nothing says yet that the string repeats (Olsson et al. 2022).
    """
    generator = torch.Generator().manual_seed(seed)
    right = total = 0
    for length in lengths:
        half = torch.randint(1, model.config.d_vocab, (rows, length), generator=generator)
        begin = model.to_tokens(torch.full((rows, 1), model.to_single_token("<|endoftext|>")))
        tokens = torch.cat([begin, half, half], dim=1)
        predicted = model(tokens)[:, length + 1 : -1].argmax(-1)
        right += int((predicted == tokens[:, length + 2 :]).sum())
        total += predicted.numel()
    return right / total


def evaluate(model: Transformer) -> dict[str, float]:
    """Each task's figure on `SAMPLES` held-out pairs: accuracy; for `greater_than` the mass on later years; and random repeats."""
    figures = {}
    for name in TASKS:
        pairs = task(name).sample(SAMPLES, SEED)
        figures[name] = later_year_mass(model, pairs) if name == "greater_than" else accuracy(model, pairs)
    return figures | {"random repeats": repeat_accuracy(model)}


def card(model: Transformer, losses: Sequence[float]) -> str:
    """The model card, in Markdown: what it is, what it was trained on, and its figures."""
    config, figures = model.config, evaluate(model)
    count = sum(p.numel() for p in model.parameters())
    described = {name: entry.description for name, entry in TASKS.items()}
    lengths = " and ".join(map(str, REPEAT_LENGTHS))
    described["random repeats"] = f"Random token ids, {lengths} of them, repeated: the second half."
    kinds = {"greater_than": "probability on later years"}
    rows = "\n".join(
        f"| {name} | {described[name]} | {kinds.get(name, 'accuracy')} | {value:.1%} |"
        for name, value in figures.items()
    )
    final = sum(losses[-200:]) / len(losses[-200:])
    return f"""# {model.name}

A GPT-2-style transformer that comes with the package, so that everything works offline. It knows a small town and little else.

- Architecture: {config.n_layers} layers, {config.n_heads} heads of {config.d_head}, width {config.d_model}, MLP {config.d_mlp}, context
  {config.n_ctx}, {count:,} parameters, learned positions, pre-norm, tied unembedding, {config.activation}.
- Tokenizer: byte-level BPE of {config.d_vocab} tokens trained on the same text; any Unicode encodes. Numbers split in twos, so
  a year is its century and its two digits. A text begins with `<|endoftext|>`, as in training.
- Training text: made by `interp/zoo/` (`stories.py`, `tasks.py`, `corpus.py`): stories of two people with recurring names,
  sentences that hold the tasks below, and rows of random tokens repeated, which teach induction.
- Training: `make model`; {len(losses)} steps of AdamW, seeded; cross-entropy over the last 200 steps {final:.3f} nats per token
  learned from. The loss of every step is in `training.json`. A fifth of each task's combinations (a tenth of the name
  pairs) is kept out of the text.

| task | | measure | held out |
|---|---|---|---|
{rows}

Held-out figures are over {SAMPLES} pairs. Accuracy asks for the one right token to lead all {config.d_vocab}.

Its training text holds no facts beyond the capitals and no writing of any other kind: on other text its predictions mean little.
"""
