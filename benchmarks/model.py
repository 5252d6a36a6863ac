"""Forward, caching, decoding, loading and import against their peers, in one run: at GPT-2-small shape and random weights, and on
smollm2-135m, a pretrained model in a GGUF file, where `interp get` has got it.

    python benchmarks/model.py            (needs the extra `transformer-lens` for its column)
    python benchmarks/model.py --only smollm2-135m

Prints the median of paired ratios: our time over the peer's, each pair measured back to back. Below 1 is faster than the peer.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch
import transformers
from rich.console import Console
from rich.table import Table

import analyses
import interp
from interp.loading import save_directory
from interp.loading.packaged import find, need
from interp.zoo import DEFAULT_PAIR

SHAPE = {"n_layers": 12, "d_model": 768, "n_heads": 12, "d_head": 64, "d_mlp": 3072, "n_ctx": 1024, "d_vocab": 50257}
THREADS, PRETRAINED = 2, "smollm2-135m"


def seconds(run: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median of paired ratios, and both median times in milliseconds; the first pair warms up and the order alternates."""
    pairs = []
    for number in range(repeats + 1):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        times = {run: seconds(run) for run in order}
        pairs.append((times[ours], times[theirs]))
    pairs = pairs[1:]
    return median(a / b for a, b in pairs), 1e3 * median(a for a, _ in pairs), 1e3 * median(b for _, b in pairs)


def tokens(batch: int, length: int, vocabulary: int = SHAPE["d_vocab"]) -> torch.Tensor:
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(0))


def forward(ours: interp.Transformer, theirs: torch.nn.Module, repeats: int) -> list[tuple]:
    rows = []
    for batch, length in ((1, 16), (8, 64), (1, 512)):
        ids = tokens(batch, length, ours.config.d_vocab)
        difference = float((ours(ids) - theirs(ids).logits).abs().max())
        assert difference < 1e-3, difference
        rows.append(
            (
                f"forward {batch}x{length}",
                "transformers",
                1.0,
                *ratio(lambda x=ids: ours(x), lambda x=ids: theirs(x), repeats),
            )
        )
    return rows


def caching(ours: interp.Transformer, lens: object | None, repeats: int) -> list[tuple]:
    ids = tokens(8, 64)
    rows = [
        (
            "run_with_cache, everything, 8x64",
            "own forward",
            1.25,
            *ratio(lambda: ours.run_with_cache(ids), lambda: ours(ids), repeats),
        )
    ]
    if lens is not None:
        found = ratio(lambda: ours.run_with_cache(ids), lambda: lens.run_with_cache(ids), repeats)
        rows.append(("run_with_cache, everything, 8x64", "transformer-lens", 1.0, *found))
    return rows


def decoding(ours: interp.Transformer, theirs: torch.nn.Module, repeats: int) -> list[tuple]:
    rows = []
    for batch in (1, 8):
        ids = tokens(batch, 16, ours.config.d_vocab)

        def mine(ids: torch.Tensor = ids) -> torch.Tensor:
            return ours.generate(ids, max_new_tokens=64, temperature=0.0, stop=[])

        def peer(ids: torch.Tensor = ids) -> torch.Tensor:
            options = {"max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False, "pad_token_id": 0}
            return theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)

        same = float((mine() == peer()).float().mean())
        rows.append(
            (f"greedy, 64 tokens, batch {batch} ({same:.0%} equal)", "transformers", 1.0, *ratio(mine, peer, repeats))
        )
    return rows


LOAD = """
import time, json
from pathlib import Path
{imports}
import torch
torch.set_num_threads(2)
# The high-water mark of this process alone: getrusage's starts from the parent's.
peak = lambda: next(int(x.split()[1]) for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
before = peak()
start = time.perf_counter()
model = {load}
elapsed = time.perf_counter() - start
after = peak()
print(json.dumps([elapsed, after / 1024, (after - before) / 1024]))
"""


def fresh(code: str) -> list[float]:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def loading(ours: str, imports: str, theirs: str, weights: float, repeats: int, bar: float) -> list[tuple]:
    """Time and memory of two calls, each in a process of its own; `weights` in MB."""
    mine, peer = LOAD.format(imports="import interp", load=ours), LOAD.format(imports=imports, load=theirs)
    pairs = [(fresh(mine), fresh(peer)) for _ in range(repeats)]
    rows = []
    for column, name in enumerate(("loading, time (ms)", "loading, peak memory of the process (MB)")):
        scale = 1e3 if column == 0 else 1
        left, right = (scale * median(pair[side][column] for pair in pairs) for side in (0, 1))
        rows.append((name, "transformers", bar, left / right, left, right))
    above = median(a[2] for a, _ in pairs)
    return [
        *rows,
        ("loading, peak memory above the imports (MB)", "the weights", 1.25, above / weights, above, weights),
    ]


def patching(model: interp.Transformer, repeats: int) -> list[tuple]:
    """A whole grid against one plain forward pass for each of its cells."""
    pair, rows = DEFAULT_PAIR, []
    ids = model.to_tokens(pair.clean)
    for site, bar in (("resid_pre", 12), ("z", 6)):

        def patched(site: str = site) -> object:
            return analyses.activation_patching(
                model, pair.clean, pair.corrupt, answer=pair.answer, wrong=pair.wrong, site=site
            )

        cells = patched()["value"].size
        mine = 1e3 * median(seconds(patched) for _ in range(repeats))
        plain = 1e3 * cells * median(seconds(lambda: model(ids)) for _ in range(5 * repeats))
        across = ids.shape[1] if site == "resid_pre" else model.config.n_heads
        rows.append(
            (
                f"patching {site}, {model.config.n_layers} x {across}",
                "a forward pass a cell",
                1 / bar,
                mine / plain,
                mine,
                plain,
            )
        )
    return rows


def importing(repeats: int) -> list[tuple]:
    code = "import time; start = time.perf_counter(); import {0}; print([time.perf_counter() - start])"
    pairs = [(fresh(code.format("interp"))[0], fresh(code.format("torch"))[0]) for _ in range(repeats + 1)][1:]
    extra = median(a - b for a, b in pairs)
    mine, peer = (1e3 * median(pair[side] for pair in pairs) for side in (0, 1))
    return [(f"import interp: {extra:+.2f} s beyond torch (bar +0.3)", "import torch", None, mine / peer, mine, peer)]


def transformer_lens(theirs: torch.nn.Module, folder: str) -> object | None:
    """The bridge of TransformerLens 4 around the same weights; None where it is not installed."""
    try:
        version("transformer-lens")
    except PackageNotFoundError:
        return None
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(folder, hf_model=theirs)


def at_random(repeats: int) -> list[tuple]:
    """At GPT-2-small shape, from a checkpoint directory."""
    with tempfile.TemporaryDirectory() as folder:
        save_directory(interp.Transformer(interp.ModelConfig(**SHAPE)), Path(folder))
        ours = interp.load(folder)
        theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
        rows = forward(ours, theirs, repeats) + decoding(ours, theirs, max(2, repeats // 3))
        weights = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors")) / 2**20
        load = f"GPT2LMHeadModel.from_pretrained({folder!r})"
        rows += loading(
            f"interp.load({folder!r})",
            "from transformers import GPT2LMHeadModel",
            load,
            weights,
            max(3, repeats // 2),
            1.0,
        )
        return rows + importing(repeats) + caching(ours, transformer_lens(theirs, folder), repeats)


def pretrained(repeats: int) -> list[tuple]:
    """On a pretrained model in a GGUF file, which `transformers` reads too."""
    path = need(PRETRAINED)
    ours = interp.load(PRETRAINED)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).eval()
    rows = forward(ours, theirs, repeats) + decoding(ours, theirs, max(2, repeats // 3))
    weights = sum(p.numel() * p.element_size() for p in ours.parameters()) / 2**20
    load = f"AutoModelForCausalLM.from_pretrained({str(path.parent)!r}, gguf_file={path.name!r})"
    imports = "from transformers import AutoModelForCausalLM"
    del theirs
    rows += loading(f"interp.load({PRETRAINED!r})", imports, load, weights, 3, 0.7)
    return rows + patching(ours, max(3, repeats // 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=["random", PRETRAINED], help="one of the two")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    names = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    for what, measured in (("random", at_random), (PRETRAINED, pretrained)):
        if given.only not in (None, what):
            continue
        if what == PRETRAINED and find(PRETRAINED) is None:
            Console().print(f"{PRETRAINED} is not on this machine; interp get {PRETRAINED} gets it.")
            continue
        table = Table(
            "what", "against", "bar", "ratio", "ours", "theirs", title=f"{what}: {', '.join(names)}; {THREADS} threads"
        )
        for name, peer, bar, found, mine, other in measured(given.repeats):
            table.add_row(
                name, peer, "" if bar is None else f"{bar:.2f}", f"{found:.2f}", f"{mine:.1f}", f"{other:.1f}"
            )
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
