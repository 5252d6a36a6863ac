"""What the cascade outside costs: coupled texts against plain generation, and exact disagreement against a softmax and a sort.

python benchmarks/cascade.py
"""

import os

os.environ["TQDM_DISABLE"] = "1"

import torch
from measure import THREADS, best
from rich.console import Console
from rich.table import Table

import interp
from analyses.cascade import Swap
from analyses.cascade.agreement import disagreement
from analyses.cascade.coupled import couple
from interp.zoo import task

PROMPTS, SEEDS, STEPS, VOCAB = 64, 8, 128, 50257


def main() -> None:
    """Print both ratios."""
    model = interp.load("smalltown")
    prompts = [pair.clean for pair in task("ioi").sample(PROMPTS, 0, model.tokenizer)]
    twice = [prompt for prompt in prompts for _ in range(2 * SEEDS)]
    pairs, coupled = best(lambda: couple(model, prompts, Swap(), seeds=SEEDS, steps=STEPS), 2)
    _, plain = best(lambda: model.generate(twice, max_new_tokens=STEPS, stop=[]), 2)
    tokens = 2 * PROMPTS * SEEDS * STEPS
    table = Table(
        "",
        "seconds",
        "tokens per second",
        title=f"{PROMPTS} prompts x {SEEDS} seeds x {STEPS} steps, twice; {THREADS} threads",
    )
    table.add_row("coupled, with h, KL and TV at each step", f"{coupled:.1f}", f"{tokens / coupled:,.0f}")
    table.add_row("generate, as many texts", f"{plain:.1f}", f"{tokens / plain:,.0f}")
    table.add_row("ratio", "", f"{plain / coupled:.2f}")
    console = Console(width=110)
    console.print(table)
    assert pairs.tokens.shape == (2, PROMPTS, SEEDS, STEPS)
    generator = torch.Generator().manual_seed(0)
    first = 3 * torch.randn(VOCAB, generator=generator)
    second = first + 0.1 * torch.randn(VOCAB, generator=generator)
    _, one = best(lambda: first.softmax(-1).sort(), 50)
    _, exact = best(lambda: disagreement(first.log_softmax(-1), second.log_softmax(-1)), 50)
    console.print(
        f"h of {VOCAB:,} tokens {1000 * exact:.2f} ms; one softmax and sort {1000 * one:.2f} ms; ratio {exact / one:.2f}"
    )


if __name__ == "__main__":
    main()
