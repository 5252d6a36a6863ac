"""Rows times weights against weights times rows, turned back or left as they are, in float32 on the CPU (`interp/linear.py`).

python benchmarks/products.py
"""

from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from interp.linear import linear

SHAPES = ((1536, 576), (576, 1536), (3072, 768), (49152, 576))
REPEATS, TOGETHER = 9, 20_000_000


def milliseconds(shape: tuple[int, int], rows: int) -> list[float]:
    """Median time of one product each way; as many weights in turn as do not fit the cache."""
    weights = [torch.randn(shape) for _ in range(max(1, TOGETHER // (shape[0] * shape[1])))]
    x = torch.randn(rows, shape[1])
    ways = (
        lambda w: F.linear(x, w),
        lambda w: (w @ x.mT).mT.contiguous(),
        lambda w: linear(x, w, any_layout=True),
    )
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(REPEATS):
        for way, found in zip(ways, times, strict=True):
            start = perf_counter()
            for weight in weights:
                way(weight)
            found.append(1e3 * (perf_counter() - start) / len(weights))
    return [median(found) for found in times]


if __name__ == "__main__":
    torch.set_num_threads(2)
    table = Table(
        "weights",
        "rows",
        "rows x weights (ms)",
        "turned back",
        "left as it is",
        title=f"torch {torch.__version__}, 2 threads",
    )
    with torch.inference_mode():
        for shape in SHAPES:
            for rows in (2, 8, 16, 64, 128, 512):
                first, *others = milliseconds(shape, rows)
                table.add_row(
                    f"{shape[0]} x {shape[1]}", str(rows), f"{first:.2f}", *(f"{t / first:.2f} x" for t in others)
                )
    Console().print(table)
