"""What exact effects of all edges cost, against plain forward passes, and what the approximations cost and are worth.

    python benchmarks/circuits.py               (smollm2-135m where `interp get` has got it; a quarter of an hour)
    python benchmarks/circuits.py --only small
    python benchmarks/circuits.py --only several

GPT-2-small shape with random weights, 16 tokens; then one pair of smollm2-135m with the whole of its edges; then several pairs with the
edges into three of its layers, so that the agreement has intervals. An edge's plain twin is one forward pass, timed on a sample.
"""

import argparse

import numpy as np
import torch
from measure import SHAPE, THREADS, best, peak, timed
from rich.console import Console
from rich.table import Table
from scipy import stats

import analyses
import interp
from analyses.circuits.edges import edges
from analyses.circuits.estimates import METHODS
from interp import ModelConfig, Transformer
from interp.loading.packaged import find
from interp.zoo import task

PRETRAINED = "smollm2-135m"
TIGHT = 256 * 2**20
PAIRS, LAYERS = 6, [5, 14, 23]


def agreement(exact: np.ndarray, estimate: np.ndarray) -> str:
    """Spearman's and Pearson's correlation over edges."""
    return f"{stats.spearmanr(exact, estimate).statistic:.3f} / {np.corrcoef(exact, estimate)[0, 1]:.3f}"


def methods_table(model: Transformer, asked: dict, exact: np.ndarray, title: str) -> Table:
    """Every approximation's time and agreement with the exact effects."""
    table = Table("method", "seconds", "Spearman / Pearson with the exact effects", title=title)
    for method in METHODS:
        found, seconds = timed(lambda m=method: analyses.edge_attribution(model, **asked, method=m, verify=0))
        table.add_row(method, f"{seconds:.1f}", agreement(exact, found["estimate"].mean("prompt").to_numpy()))
    return table


def small(console: Console) -> None:
    """At GPT-2-small shape."""
    model = Transformer(ModelConfig(**SHAPE), seed=0).requires_grad_(False).eval()
    draw = torch.Generator().manual_seed(0)
    one = {name: torch.randint(0, SHAPE["d_vocab"], (1, 16), generator=draw) for name in ("clean", "corrupt")}
    asked = {**one, "answer": 11, "wrong": 12}
    count = len(edges(model.config))
    forward = best(lambda: model(one["clean"]))[1]
    exact, seconds = timed(lambda: analyses.edge_patching(model, **asked, smallest_gap=0.0, progress=True))
    table = Table("", "seconds", "against", "ratio", "bar", title=f"GPT-2-small shape, 16 tokens, {THREADS} threads")
    table.add_row(
        f"all {count:,} edges", f"{seconds:.1f}", f"as many forward passes, {forward * 1e3:.1f} ms each: {forward * count:.0f} s",
        f"{forward * count / seconds:.1f} x faster", "10 x",
    )  # fmt: skip
    many = {name: torch.randint(0, SHAPE["d_vocab"], (32, 16), generator=draw) for name in ("clean", "corrupt")}

    def both_ways() -> None:
        weights = [*model.parameters()]
        with torch.enable_grad():
            stream = model.embed(many["clean"]).requires_grad_()
            logits = model.unembed(model.run_blocks(stream))[:, -1]
            torch.autograd.grad((logits[:, 11] - logits[:, 12]).sum(), stream)
        assert not any(weight.requires_grad for weight in weights)

    plain = best(both_ways)[1]
    scored = {**many, "answer": 11, "wrong": 12, "method": "eap", "verify": 0}
    eap = best(lambda: analyses.edge_attribution(model, **scored))[1]
    table.add_row(
        "EAP over 32 pairs", f"{eap:.2f}", f"one forward and one backward pass of the same batch: {plain:.2f} s",
        f"{eap / plain:.2f} x", "2.5 x",
    )  # fmt: skip
    console.print(table)
    last = {**asked, "layers": [11], "smallest_gap": 0.0}
    memory = Table("peak memory above the weights, MB", "default", f"max_bytes {TIGHT >> 20} MB")
    memory.add_row(
        "edges into layer 11",
        *(f"{peak(lambda b=b: analyses.edge_patching(model, **last, **b)):.0f}" for b in ({}, {"max_bytes": TIGHT})),
    )
    memory.add_row(
        "EAP over 32 pairs",
        *(
            f"{peak(lambda b=b: analyses.edge_attribution(model, **scored, **b)):.0f}"
            for b in ({}, {"max_bytes": TIGHT})
        ),
    )
    console.print(memory)
    console.print(methods_table(model, asked, exact["change"].mean("prompt").to_numpy(), "one pair, random weights"))


def pretrained(console: Console) -> None:
    """One pair of the pretrained model."""
    model = interp.load(PRETRAINED)
    pair = task("ioi").sample(1, 0, model.tokenizer)[0]
    asked = {name: [getattr(pair, name)] for name in ("clean", "corrupt", "answer", "wrong")}
    count = len(edges(model.config))
    tokens = model.to_tokens(asked["clean"])
    forward = best(lambda: model(tokens))[1]
    found: list = []
    memory = peak(lambda: found.append(timed(lambda: analyses.edge_patching(model, **asked, progress=True))))
    exact, seconds = found[0]
    table = Table(
        "", "seconds", "bar", "against forward passes", "peak MB", title=f"{PRETRAINED}, {tokens.shape[1]} tokens"
    )
    table.add_row(
        f"all {count:,} edges, one pair", f"{seconds:.0f}", "600", f"{forward * count / seconds:.1f} x", f"{memory:.0f}"
    )
    console.print(table)
    console.print(methods_table(model, asked, exact["change"].mean("prompt").to_numpy(), PRETRAINED))


def several(console: Console) -> None:
    """Several pairs of the pretrained model, the edges into some layers: how far each approximation agrees, with 95 % intervals."""
    model = interp.load(PRETRAINED)
    pairs = task("ioi").sample(PAIRS, 0, model.tokenizer)
    asked = {name: [getattr(pair, name) for pair in pairs] for name in ("clean", "corrupt", "answer", "wrong")}
    exact, seconds = timed(lambda: analyses.edge_patching(model, **asked, layers=LAYERS, progress=True))
    names = exact["edge"].to_numpy()
    console.print(f"{len(names):,} edges into layers {LAYERS}, {PAIRS} pairs: {seconds:.0f} s")
    truth = exact["change"].to_numpy()
    draws = np.random.default_rng(0).integers(0, PAIRS, (200, PAIRS))
    table = Table("method", "seconds", "Spearman", "Pearson", title=f"{PRETRAINED}, over the means of {PAIRS} pairs")
    for method in METHODS:
        found, seconds = timed(lambda m=method: analyses.edge_attribution(model, **asked, method=m, verify=0))
        estimate = found["estimate"].sel(edge=names).to_numpy()
        cells = []
        for correlation in (lambda a, b: stats.spearmanr(a, b).statistic, lambda a, b: np.corrcoef(a, b)[0, 1]):
            drawn = [correlation(truth[d].mean(0), estimate[d].mean(0)) for d in draws]
            low, high = np.quantile(drawn, [0.025, 0.975])
            cells.append(f"{correlation(truth.mean(0), estimate.mean(0)):.3f} ({low:.3f} to {high:.3f})")
        table.add_row(method, f"{seconds:.0f}", *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=["small", "pretrained", "several"], help="one of the three")
    only = parser.parse_args().only
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    console = Console(width=130)
    if only in (None, "small"):
        small(console)
    if only != "small" and find(PRETRAINED) is None:
        console.print(f"{PRETRAINED} is not here: interp get {PRETRAINED}")
        return
    if only in (None, "pretrained"):
        pretrained(console)
    if only in (None, "several"):
        several(console)


if __name__ == "__main__":
    main()
