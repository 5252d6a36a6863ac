"""Surveys against plain loops: rows a second, what workers and Ray cost, memory against the number of rows, and collecting activations.

    python benchmarks/survey.py [loop] [workers] [memory] [collect] [--rows N]      (needs the extra `scale`)

`loop`: patching heads over pairs of indirect objects of the embedded model, in one process, against a loop over the same calls, one pair
at a time. `workers`: the same with one and two workers of Ray Data, from the first shard's end to the last's, so that starting Ray, which
takes seconds whatever the data set, is apart; and beside one process of one thread, for one worker has the threads of all cores, two share
them. `memory`: peak memory of the process at 1,000 and 100,000 rows, of a small random model, so
that the latter takes minutes. `collect`: every stream of the embedded model and of smollm2-135m, against forward passes that keep
nothing, with and without logits. Run it on an idle machine.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

import analyses
import interp
from analyses.lenses.tuning import rows_of_text
from interp.loading.packaged import find
from interp.progress import progress_bar
from interp.zoo import task

HEADS, PRETRAINED = {"site": "z"}, "smollm2-135m"
SMALL = {"n_layers": 2, "n_heads": 2, "d_head": 8, "d_model": 16, "d_mlp": 32}
MEMORY = """
import sys, analyses, interp
from pathlib import Path
analyses.survey({model!r}, "task:ioi:{rows}", "activation_patching", out={out!r}, options={{"site": "z", "smallest_gap": 0.0}})
analyses.summarise({out!r})
print([line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")][0])
"""


def loop(console: Console, folder: Path, rows: int) -> None:
    model = interp.load()
    pairs = task("ioi").sample(min(rows, 200), 0, model.tokenizer)
    start = time.perf_counter()
    for pair in pairs:
        analyses.activation_patching(model, pair.clean, pair.corrupt, answer=pair.answer, wrong=pair.wrong, **HEADS)
    plain = len(pairs) / (time.perf_counter() - start)
    start = time.perf_counter()
    analyses.survey(model, f"task:ioi:{rows}", "activation_patching", out=folder / "here", options=HEADS)
    here = rows / (time.perf_counter() - start)
    console.print(
        f"one process: {here:.1f} rows/s, plain loop ({len(pairs)} of them): {plain:.1f} rows/s: {here / plain:.2f} x"
    )


def workers(console: Console, folder: Path, rows: int) -> None:
    rates = {}
    for number in (None, 1, 2):
        out = folder / f"workers-{number}"
        start = time.perf_counter()
        analyses.survey(
            "smalltown",
            f"task:ioi:{rows}",
            "activation_patching",
            out=out,
            options=HEADS,
            workers=number,
            shard_rows=rows // 20,
        )
        whole = time.perf_counter() - start
        ends = sorted(path.stat().st_mtime for path in (out / "shards").glob("*.json"))
        done = number or 1  # shards that end together with the first are not counted
        rates[number] = (len(ends) - done) * (rows // 20) / (ends[-1] - ends[done - 1])
        said = "one process" if number is None else f"{number} workers of Ray"
        console.print(f"{said}: {rates[number]:.1f} rows/s, {whole:.1f} s with all that starts")
    torch.set_num_threads(1)
    start = time.perf_counter()
    analyses.survey("smalltown", f"task:ioi:{rows // 5}", "activation_patching", out=folder / "thread", options=HEADS)
    thread = rows // 5 / (time.perf_counter() - start)
    torch.set_num_threads(os.cpu_count() or 1)
    console.print(
        f"two workers against one {rates[2] / rates[1]:.2f} x, against one process of one thread ({thread:.1f} rows/s) "
        f"{rates[2] / thread:.2f} x; Ray at one worker costs {rates[None] / rates[1] - 1:+.1%}"
    )


def memory(console: Console, folder: Path) -> None:
    from dataclasses import replace

    embedded = interp.load()
    model = interp.Transformer(replace(embedded.config, **SMALL), seed=0, tokenizer=embedded.tokenizer)
    interp.save_directory(model, folder / "small")
    peaks = []
    for rows in (1_000, 100_000):
        code = MEMORY.format(model=str(folder / "small"), rows=rows, out=str(folder / f"memory-{rows}"))
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        peaks.append(int(said.split()[-1]) / 1024)
        console.print(f"{rows:,} rows: peak {peaks[-1]:.0f} MB")
    console.print(f"{peaks[1] / peaks[0] - 1:+.1%}")


@torch.no_grad()
def collect(console: Console, folder: Path) -> None:
    for name, sentences, size in (("smalltown", 16_000, 64), (PRETRAINED, 400, 16)):
        if name == PRETRAINED and find(name) is None:
            console.print(f"{name} is not on this machine; interp get {name} gets it.")
            continue
        model = interp.load(name)
        pairs = task("ioi").sample(min(sentences, 4000), 0, model.tokenizer)
        text = folder / f"{name}.txt"
        text.write_text(" ".join(pair.clean for pair in pairs * (sentences // len(pairs))))
        analyses.collect(
            model, [pairs[0].clean], out=folder / f"first-{name}.zarr"
        )  # loads what is loaded once a process
        tokens = rows_of_text(model, text, 128)
        blocks, whole = (
            best_rate(tokens, size, run)
            for run in (lambda batch, m=model: m.run_blocks(m.embed(batch)), lambda batch, m=model: m(batch))
        )
        said = []
        for dtype in ("float16", None):
            start = time.perf_counter()
            analyses.collect(model, text, out=folder / f"{name}-{dtype}.zarr", length=128, dtype=dtype)
            rate = len(tokens) / (time.perf_counter() - start)
            said.append(f"in {dtype or 'float32'} {rate / whole:.0%} ({rate / blocks:.0%})")
        console.print(
            f"collect, {name}, {len(tokens)} rows of 128 tokens, against forward passes of {whole:.1f} rows/s (and their blocks alone, "
            f"{blocks:.1f}): {', '.join(said)}"
        )


@torch.no_grad()
def best_rate(tokens: torch.Tensor, size: int, run: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Rows a second, the best of three."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for batch in tokens.split(size):
            run(batch)
        seconds.append(time.perf_counter() - start)
    return len(tokens) / min(seconds)


if __name__ == "__main__":
    asked = [name for name in sys.argv[1:] if not name.startswith("--") and not name.isdecimal()]
    count = int(sys.argv[sys.argv.index("--rows") + 1]) if "--rows" in sys.argv else 10_000
    screen = Console(highlight=False)
    screen.print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as place, progress_bar(False):
        for name in asked or ["loop", "workers", "memory", "collect"]:
            if name in ("loop", "workers"):
                {"loop": loop, "workers": workers}[name](screen, Path(place), count)
            else:
                {"memory": memory, "collect": collect}[name](screen, Path(place))
