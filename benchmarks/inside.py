"""What the cascade inside and the report cost on real shapes, each command in a process of its own, nothing kept from before.

    python benchmarks/inside.py      (smollm2-135m where `interp get` has got it; five minutes)

Seconds from start to end, imports and drawing included, and the peak of the process' memory, beside what is asked for.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measure import SHAPE, THREADS, best
from rich.console import Console
from rich.table import Table

import interp
from analyses import cascade
from interp import ModelConfig, Transformer
from interp.loading.packaged import find
from interp.zoo import DEFAULT_PAIR

PRETRAINED = "smollm2-135m"
RUN = """
import json, resource, sys, time
sys.argv = json.loads(sys.argv[1])
start = time.perf_counter()
from analyses.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("\\n" + json.dumps([time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def command(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds and MB of one command, by a process that finds nothing of a twin."""
    environment = os.environ | {"CRITICALPILE_TWINS": str(folder / "twins"), "OMP_NUM_THREADS": str(THREADS)}
    asked = json.dumps(["interp", *words, "--out", str(folder / "page.html"), "--force"])
    done = subprocess.run(
        [sys.executable, "-c", RUN, asked], env=environment, capture_output=True, text=True, check=True
    )
    shutil.rmtree(folder / "twins", ignore_errors=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print each beside its bar."""
    torch.set_num_threads(THREADS)
    pair = DEFAULT_PAIR
    table = Table("", "seconds", "bar", "peak MB", "bar", title=f"{THREADS} threads")
    console = Console(width=110)

    def row(what: str, seconds: float, bar: float, memory: float | None = None, most: float | None = None) -> None:
        shown = ("" if memory is None else f"{memory:,.0f}", "" if most is None else f"{most:,.0f}")
        table.add_row(what, f"{seconds:.1f}", f"{bar:g}", *shown)
        console.print(f"{what}: {seconds:.1f} s")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shape = Transformer(ModelConfig(**SHAPE), tokenizer=interp.load().tokenizer, name="shape", seed=1)
        interp.save_directory(shape, folder / "shape")
        del shape
        inside = ("cascade", "inside", pair.clean, "--model")
        row(
            "cascade inside, one prompt, GPT-2-small shape, with its twin",
            command(folder, *inside, str(folder / "shape"))[0],
            25,
        )
        if find(PRETRAINED) is not None:
            row(f"cascade inside, one prompt, {PRETRAINED}, with its twin", command(folder, *inside, PRETRAINED)[0], 45)
            whole = ("report", pair.clean, "--corrupt", pair.corrupt, "--answer", pair.answer, "--wrong", pair.wrong)
            seconds, memory = command(folder, *whole, "--model", PRETRAINED)
            row(f"report, clean and corrupt, all sections, {PRETRAINED}", seconds, 150, memory, 3000)
            model = interp.load(PRETRAINED)
            assert model.to_tokens(pair.clean).shape[1] in (14, 15)
            spectrum, seconds = best(lambda: cascade.jacobian_spectrum(model, pair.clean, k=None))
            assert spectrum.sizes["singular"] == model.config.d_model
            row(f"Jacobian spectrum, {PRETRAINED}, all {model.config.d_model} values", seconds, 3)
            row(f"light cone, {PRETRAINED}, one prompt", best(lambda: cascade.light_cone(model, pair.clean))[1], 4)
    console.print(table)


if __name__ == "__main__":
    main()
