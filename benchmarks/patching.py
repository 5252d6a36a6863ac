"""Activation patching against transformer_lens.patching, on the same weights in one run, at GPT-2-small shape and random weights.

    python benchmarks/patching.py            (needs the extra `transformer-lens`)

Each grid is patched by both; the results must agree to 1e-4 of a logit. Prints the ratio of times, the useful
floating-point rate of the sweep against a large matrix product, the peak memory above that before, and how time grows.
"""

import argparse
import os
from collections.abc import Callable
from importlib.metadata import version

os.environ["TQDM_DISABLE"] = "1"  # read at import: the peer draws a bar for each grid

import torch
from measure import SHAPE, THREADS, best, both_models, peak, timed
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

import analyses
import interp

ANSWER, WRONG = 11, 12
TIGHT = 64 * 2**20
GRIDS = (  # name, options of activation_patching, tokens, the peer's function, bar
    ("resid_pre, 12 x 16", {"site": "resid_pre"}, 16, patching.get_act_patch_resid_pre, 12),
    ("head z, 12 x 12, 16 tokens", {"site": "z"}, 16, patching.get_act_patch_attn_head_out_all_pos, 8),
    ("head z by position, 12 x 12 x 16", {"site": "z", "by_position": True}, 16, patching.get_act_patch_attn_head_out_by_pos, 12),
    ("resid_pre, 12 x 64", {"site": "resid_pre"}, 64, patching.get_act_patch_resid_pre, 6),
)  # fmt: skip


def pair(length: int, seed: int = 0, prompts: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and corrupt prompts that differ from the first token on, so that no position is spared."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, SHAPE["d_vocab"], (prompts, length), generator=generator) for _ in range(2))


def product_rate() -> float:
    """Floating-point operations a second of a large matrix product."""
    a, b = torch.randn(4096, 4096), torch.randn(4096, 4096)
    return 2 * 4096**3 / min(timed(lambda: a @ b)[1] for _ in range(5))


def ours(model: interp.Transformer, prompts: tuple[torch.Tensor, torch.Tensor], **options: object) -> torch.Tensor:
    # The peer has no normalised effect, so that baselines that are close together are no obstacle.
    found = analyses.activation_patching(model, *prompts, answer=ANSWER, wrong=WRONG, smallest_gap=0.0, **options)
    return torch.from_numpy(found["value"].to_numpy())


def theirs(bridge: TransformerBridge, prompts: tuple[torch.Tensor, torch.Tensor], function: Callable) -> torch.Tensor:
    clean, corrupt = prompts
    _, cache = bridge.run_with_cache(clean)
    return function(bridge, corrupt, cache, lambda logits: logits[0, -1, ANSWER] - logits[0, -1, WRONG])


def compare(model: interp.Transformer, bridge: TransformerBridge) -> Table:
    title = f"transformer-lens {version('transformer-lens')}, torch {torch.__version__}; {THREADS} threads"
    table = Table(
        "grid",
        "bar",
        "faster",
        "ours (s)",
        "theirs (s)",
        "forward alone (s)",
        "of mm rate",
        "peak (MB)",
        f"peak, {TIGHT >> 20} MB allowed",
        title=title,
    )
    rate = product_rate()
    for name, options, length, function, bar in GRIDS:
        prompts = pair(length)
        mine, seconds = best(lambda p=prompts, o=options: ours(model, p, **o))
        forward = min(timed(lambda p=prompts: model(p[1]))[1] for _ in range(5))
        peer, peer_seconds = timed(lambda p=prompts, f=function: theirs(bridge, p, f))
        if peer_seconds < 60:
            peer_seconds = min(peer_seconds, timed(lambda p=prompts, f=function: theirs(bridge, p, f))[1])
        peer = torch.as_tensor(peer)
        found = mine[0].movedim(-1, 1) if options.get("by_position") else mine[0]
        difference = float((found - peer.reshape(found.shape)).abs().max())
        assert difference < 1e-4, (name, difference)
        with FlopCounterMode(display=False) as counter:
            ours(model, prompts, **options)
        useful = counter.get_total_flops() / seconds / rate
        memory = peak(lambda p=prompts, o=options: ours(model, p, **o))
        bound = peak(lambda p=prompts, o=options: ours(model, p, **o, max_bytes=TIGHT))
        table.add_row(
            name, f"{bar} x", f"{peer_seconds / seconds:.1f} x", f"{seconds:.2f}", f"{peer_seconds:.1f}",
            f"{forward * mine.numel():.1f}", f"{useful:.0%}", f"{memory:.0f}", f"{bound:.0f}",
        )  # fmt: skip
    return table


def growth(model: interp.Transformer) -> Table:
    table = Table(
        "layers", "positions", "prompts", "cells", "seconds", "ms per cell", title="How time grows (resid_pre)"
    )
    for layers, positions, prompts in ((3, 16, 1), (6, 16, 1), (12, 16, 1), (12, 32, 1), (12, 64, 1), (12, 16, 4)):
        chosen = list(range(0, 12, 12 // layers))
        both = pair(positions, 1, prompts)
        seconds = timed(lambda p=both, c=chosen: ours(model, p, site="resid_pre", layers=c))[1]
        cells = layers * positions * prompts
        table.add_row(*map(str, (layers, positions, prompts, cells)), f"{seconds:.2f}", f"{1e3 * seconds / cells:.1f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--growth-only", action="store_true", help="skip the comparison")
    only = parser.parse_args().growth_only
    console = Console(width=150)
    with both_models() as (model, bridge):
        if not only:
            console.print(compare(model, bridge))
        console.print(growth(model))


if __name__ == "__main__":
    main()
