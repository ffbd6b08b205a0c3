"""What compiling costs: time and memory for ResNet-50 at 224x224, and the analysis from ResNet-18 to ResNet-152.

    python -m benchmarks.cost [MODEL ...]

30% of the filters of every layer are zeroed. Every model is compiled and verified in a process of its own, whose
peak memory is the process's largest resident set, torch included. `analysis` is one run of the channel analysis on
the captured graph, the median of three, and `nodes` the length of that graph.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import warnings
from typing import Any

import torch

import sparsefx
import tests.torchvision_shim  # noqa: F401 - torchvision imports only after this
from benchmarks.child import run_in_child
from benchmarks.results_file import write_results
from sparsefx.passes.capture import capture
from sparsefx.passes.channels.analysis import analyse_channels
from sparsefx.passes.fold_batch_norm import FoldBatchNorm
from tests.zoo.alive import images
from tests.zoo.case import build
from tests.zoo.models import find_model

_MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_MASK = "filters 30%"
_SIZE = 224
_REPEATS = 3

Row = dict[str, Any]


def measure(name: str) -> Row:
    """Seconds of each stage and peak memory of one model."""
    model = build(find_model(name), _MASK)
    assert model is not None
    example = images(2, _SIZE, torch.Generator().manual_seed(1))
    start = time.perf_counter()
    compiled = sparsefx.compile(model, (example,))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    graph = capture(model, (example,))
    FoldBatchNorm()(graph)
    analysis = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        analyse_channels(graph)
        analysis.append(time.perf_counter() - start)
    totals, verification = compiled.report.totals, compiled.report.verification
    assert verification is not None
    return {
        "model": name,
        "seconds": seconds,
        "stages": compiled.report.seconds,
        "peak_gib": peak,
        "nodes": len(graph.graph.nodes),
        "channels": totals.channels_before,
        "analysis_seconds": statistics.median(analysis),
        "max_error": max(output["max_error"] for output in verification["outputs"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(_MODELS))
    warnings.simplefilter("ignore")
    names = parser.parse_args().models
    rows = []
    print(
        f"{'model':12s} {'seconds':>8s} {'peak GiB':>9s} {'analysis s':>11s} {'nodes':>6s} {'ms per node':>12s} stages"
    )
    for name in names:
        row = run_in_child(measure, name)
        rows.append(row)
        per_node = 1000 * row["analysis_seconds"] / row["nodes"]
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["stages"].items())
        figures = f"{row['seconds']:8.1f} {row['peak_gib']:9.2f} {row['analysis_seconds']:11.2f} {row['nodes']:6d}"
        print(f"{name:12s} {figures} {per_node:12.2f} {stages}", flush=True)
    print(f"written to {write_results('cost', rows)}")


if __name__ == "__main__":
    main()
