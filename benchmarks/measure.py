"""Time and memory of a call, and the models that benchmarks compare."""

import ctypes
import gc
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

import interp
from interp.loading import save_directory

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

SHAPE = {"n_layers": 12, "d_model": 768, "n_heads": 12, "d_head": 64, "d_mlp": 3072, "n_ctx": 1024, "d_vocab": 50257}
THREADS = 2


def timed(run: Callable[[], object]) -> tuple[object, float]:
    gc.collect()
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


def best(run: Callable[[], object], enough: float = 12.0, most: int = 7) -> tuple[object, float]:
    """The result and the shortest time of several runs, as many as fit into `enough` seconds; at least two, the first of which warms up."""
    found, first = timed(run)
    times = [timed(run)[1] for _ in range(max(1, min(most, int(enough / first))))]
    return found, min(first, *times)


def status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak(run: Callable[[], object]) -> float:
    """Peak resident memory while it runs, above that before, in MB."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else memory kept from an earlier run is not counted again
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


@contextmanager
def both_models(**shape: int) -> Iterator[tuple[interp.Transformer, "TransformerBridge"]]:
    """The same random weights at GPT-2-small shape, in this library and in transformer-lens."""
    from transformer_lens.model_bridge import TransformerBridge

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        save_directory(interp.Transformer(interp.ModelConfig(**(SHAPE | shape))), Path(folder))
        weights = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
        yield interp.load(folder), TransformerBridge.boot_transformers(folder, hf_model=weights)
