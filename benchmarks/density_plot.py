"""Time of a layer against its density, with what the machine's memory and arithmetic allow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

_BYTES = {"sparsefx": 4 + 4 / 6, "sparsefx bf16": 8 / 3}  # a non-zero with its index: six, or three, to a word or two
_SERIES = ("ONNX Runtime", "torch CSR", "SciPy CSR", "sparsefx", "sparsefx bf16")


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the rows of one layer on one thread; limits follow from its dense time and from a large product."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    density = [100 * row["density"] for row in rows]
    nonzeros = [row["weights"] * row["density"] for row in rows]
    read = max(
        4 * row["weights"] / min(row["median_us"]["ONNX Runtime"], row["median_us"]["torch dense"]) for row in rows
    )
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name in _SERIES:
        axes.plot(density, [row["median_us"].get(name) for row in rows], marker="o", markersize=3, label=name)
    for name, each in _BYTES.items():
        limit = [n * each / read for n in nonzeros]
        axes.plot(density, limit, linestyle=":", linewidth=1, label=f"bytes of {name} at {read / 1e3:.0f} GB/s")
    rate = multiply_adds_per_us()
    axes.plot(density, [n / rate for n in nonzeros], "k--", linewidth=1, label=f"{rate / 1e3:.0f} G multiply-adds/s")
    axes.set(
        xscale="log", yscale="log", xlabel="density (%)", ylabel="microseconds", title="768 <-> 3072, batch 1, 1 thread"
    )
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def multiply_adds_per_us(size: int = 1024, runs: int = 10) -> float:
    """What one thread reaches in a dense product."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    matrix = torch.randn(size, size)
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        torch.matmul(matrix, matrix)
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(threads)
    return size**3 / (best * 1e6)
