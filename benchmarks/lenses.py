"""The logit lens against transformer_lens, on the same weights in one run, at GPT-2-small shape and random weights.

    python benchmarks/lenses.py            (needs the extra `transformer-lens`)

Both read all half steps at all positions: top 5 tokens and entropy; ours also KL to the final distribution, the cross-entropy of the next
token and the layer from which a prediction stands. The shared numbers must agree. Prints times and peak memory.
"""

import os
from importlib.metadata import version

os.environ["TQDM_DISABLE"] = "1"

import torch
from measure import THREADS, best, both_models, peak
from rich.console import Console
from rich.table import Table
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import logit_lens

import analyses
import interp


def compare(model: interp.Transformer, bridge: TransformerBridge) -> Table:
    title = f"transformer-lens {version('transformer-lens')}, torch {torch.__version__}; {THREADS} threads"
    table = Table(
        "tokens",
        "time, of theirs",
        "ours (s)",
        "theirs (s)",
        "peak, of theirs",
        "ours (MB)",
        "theirs (MB)",
        title=title,
    )
    for length in (64, 512):
        tokens = torch.randint(0, model.config.d_vocab, (1, length), generator=torch.Generator().manual_seed(0))

        def ours(tokens: torch.Tensor = tokens) -> object:
            return analyses.logit_lens(model, tokens)

        def theirs(tokens: torch.Tensor = tokens) -> object:
            return logit_lens(bridge, tokens, incl_mid=True, positions=None, top_k=5)

        (mine, seconds), (peer, peer_seconds) = best(ours, 30), best(theirs, 30)
        entropy = torch.from_numpy(mine["entropy"].to_numpy())[0]
        difference = float((entropy - peer.readout.entropy.reshape(entropy.shape)).abs().max())
        assert difference < 1e-4, difference
        memory, peer_memory = peak(ours), peak(theirs)
        table.add_row(
            str(length), f"{seconds / peer_seconds:.2f}", f"{seconds:.2f}", f"{peer_seconds:.2f}",
            f"{memory / peer_memory:.2f}", f"{memory:.0f}", f"{peer_memory:.0f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    with both_models() as models:
        Console(width=150).print(compare(*models))
