"""Composition of all pairs of heads against transformer_lens, and what the other measurements of heads take, at GPT-2-small shape.

    python benchmarks/heads.py            (needs the extra `transformer-lens`)

The scores must agree to 1e-4. Prints times and peak memory.
"""

import os
from importlib.metadata import version

os.environ["TQDM_DISABLE"] = "1"

import torch
from measure import THREADS, best, both_models, peak
from rich.console import Console
from rich.table import Table
from transformer_lens.model_bridge import TransformerBridge

import analyses
import interp


def compare(model: interp.Transformer, bridge: TransformerBridge) -> Table:
    title = f"transformer-lens {version('transformer-lens')}, torch {torch.__version__}; {THREADS} threads"
    table = Table("composition, three ways", "seconds", "peak (MB)", title=title)

    def theirs() -> dict[str, torch.Tensor]:
        return {way: bridge.all_composition_scores(way).scores for way in ("Q", "K", "V")}

    def ours() -> object:
        return analyses.composition(model)

    (mine, seconds), (peer, peer_seconds) = best(ours, 20), best(theirs, 20)
    for way, scores in peer.items():
        found = torch.from_numpy(mine["composition"].sel(way=way).to_numpy())
        above = ~found.isnan()
        difference = float((found - scores.reshape(found.shape))[above].abs().max())
        assert difference < 1e-4, (way, difference)
    table.add_row("ours", f"{seconds:.2f}", f"{peak(ours):.0f}")
    table.add_row("theirs", f"{peer_seconds:.2f}", f"{peak(theirs):.0f}")
    table.add_row("ours, of theirs", f"{seconds / peer_seconds:.2f}", "")
    return table


def alone(model: interp.Transformer) -> Table:
    table = Table("alone", "seconds", "peak (MB)")
    tokens = torch.randint(0, model.config.d_vocab, (1, 512), generator=torch.Generator().manual_seed(0))
    for name, run in (
        ("all scores of all heads, one sequence of 2 x 100", lambda: analyses.head_table(model, count=1)),
        ("patterns, scores and weighted patterns of 512 tokens", lambda: analyses.attention_patterns(model, tokens)),
    ):
        table.add_row(name, f"{best(run, 15)[1]:.2f}", f"{peak(run):.0f}")
    return table


if __name__ == "__main__":
    with both_models() as (ours_, theirs_):
        console = Console(width=120)
        console.print(compare(ours_, theirs_))
        console.print(alone(ours_))
