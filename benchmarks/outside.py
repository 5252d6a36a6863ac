"""What the cascade outside costs on a pretrained model: every measurement but the sweep of temperatures, by its step.

    python benchmarks/outside.py [--model smollm2-135m] [--prompts 32] [--seeds 8] [--steps 128]

Prompts are pairs of every task in turn. The bar is 20 minutes at the defaults, on two idle cores.
"""

import argparse
import time

import torch
from measure import THREADS, peak
from rich.console import Console
from rich.table import Table

import interp
from analyses.cascade import Replace
from analyses.report.outside import outside_steps
from analyses.report.steps import Results, run_steps
from interp.zoo import every_task

LEFT_OUT = ("temperature",)


def main() -> None:
    """Print each step's seconds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    for name, default in (("prompts", 32), ("seeds", 8), ("steps", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    model = interp.load(asked.model)
    pairs = every_task(asked.prompts, 0, model.tokenizer)
    results, seconds, console = Results(), {}, Console(width=100)

    def timed(name: str, run: object) -> object:
        start = time.perf_counter()
        try:
            return run()
        finally:
            seconds[name] = time.perf_counter() - start
            console.print(f"{name}: {seconds[name]:.1f} s")

    steps = outside_steps(
        model, [pair.clean for pair in pairs], Replace([pair.corrupt for pair in pairs]), results,
        seeds=asked.seeds, steps=asked.steps, temperature=1.0,
    )  # fmt: skip
    steps = [step for step in steps if step[0] not in LEFT_OUT]
    memory = peak(lambda: run_steps(steps, results, title="outside", progress=True, keep=timed))
    assert not results.left_out, results.left_out
    table = Table(
        "step", "seconds", title=f"{asked.model}, {len(pairs)} x {asked.seeds} x {asked.steps}; {THREADS} threads"
    )
    for name, took in seconds.items():
        table.add_row(name, f"{took:.1f}")
    table.add_row("all", f"{sum(seconds.values()):.1f}")
    console.print(table, f"peak memory above the weights: {memory:,.0f} MB")


if __name__ == "__main__":
    main()
