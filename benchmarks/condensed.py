"""Condensed layers beside dense and sparse ones of other libraries, weights cold as in a whole network.

    python -m benchmarks.condensed [--threads 1 2] [--case linear density convolution] [--seconds N]

linear       768 -> 3072 and back at 90%, batch 1 and 197 tokens, any constant fan-in and block-balanced patterns,
             float32 and bfloat16; beside ONNX Runtime, torch dense and CSR, SciPy CSR, and OpenVINO where installed
density      time of a linear layer against its density, also as a picture with the limits of the machine
convolution  ResNet-50's shapes at 90%, batch 1, beside ONNX Runtime; the total counts each as often as the network

Linear layers stand in a chain, 768 -> 3072 -> 768 and so on, with weights of their own, 64 MiB in all, so that they do
not stay in the cache. Turns of the contenders are interleaved; ratios are of medians in one run, against the faster of
ONNX Runtime and torch dense.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders import linear_contenders
from benchmarks.density_plot import draw
from benchmarks.results_file import RESULTS, write_results
from sparsefx.runtime import custom_op_library
from sparsefx.runtime.latency.measure import measure
from sparsefx.runtime.onnxruntime.layer_models import LayerForm, Window
from sparsefx.runtime.onnxruntime.layer_times import time_layers

_WIDE, _NARROW = 3072, 768
_CACHE_MIB = 64  # of dense weights that a round goes through
_BLOCK = 32  # inputs; a block-balanced pattern has equally many non-zeros in each
_BURST = 0.06  # seconds of a turn: threads of the contender before have gone to sleep by its second half
_DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)

Floats = NDArray[np.float32]
Row = dict[str, Any]


def constant_fan_in(outputs: int, inputs: int, density: float, seed: int, balanced: bool = False) -> Floats:
    """A seeded random pattern with the same number of non-zeros in every row, or in every block of every row."""
    random = np.random.default_rng(seed)
    block = _BLOCK if balanced else inputs
    weight = np.zeros((outputs, inputs), np.float32)
    for start in range(0, inputs, block):
        fan_in = max(1, round(min(block, inputs - start) * density))
        places = random.random((outputs, min(block, inputs - start))).argpartition(fan_in - 1)[:, :fan_in]
        np.put_along_axis(weight, places + start, random.standard_normal(places.shape).astype(np.float32), 1)
    return weight


def linear_case(batch: int, density: float, threads: int, seconds: float, balanced: bool = False) -> Row:
    """A chain of layers, up and down in turn; times are per layer."""
    sizes = [(_WIDE, _NARROW), (_NARROW, _WIDE)] * (_CACHE_MIB * 2**20 // (8 * _WIDE * _NARROW))
    weights = [constant_fan_in(*size, density, seed, balanced) for seed, size in enumerate(sizes)]
    for weight in weights:
        weight /= np.sqrt((weight != 0).sum(1).mean())  # numbers stay as large as they are all along the chain
    x = np.random.default_rng(1).standard_normal((batch, _NARROW)).astype(np.float32)
    contenders = linear_contenders(weights, x, threads)
    results = measure(contenders, seconds=seconds, least_runs=7, warm_up=1, burst=_BURST)
    pattern = "block-balanced" if balanced else "constant fan-in"
    row = {
        "case": f"linear 768 <-> 3072, batch {batch}, {1 - density:.0%} {pattern}",
        "threads": threads,
        "density": density,
        "weights": _WIDE * _NARROW,
        "median_us": {name: r.median * 1e6 / len(weights) for name, r in results.items()},
        "spread_us": {name: r.spread * 1e6 / len(weights) for name, r in results.items()},
    }
    return _ratios(row)


def resnet50_convolutions() -> dict[tuple[int, int, int, int, int], int]:
    """(inputs, outputs, kernel, stride, side): how often, without the stem."""
    counts: dict[tuple[int, int, int, int, int], int] = {}
    inputs, side = 64, 56
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            own = [(inputs, width, 1, 1, side), (width, width, 3, stride, side)]
            if block == 0:
                own.append((inputs, 4 * width, 1, stride, side))
            side //= stride
            own.append((width, 4 * width, 1, 1, side))
            for shape in own:
                counts[shape] = counts.get(shape, 0) + 1
            inputs = 4 * width
    return counts


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, side: int) -> LayerForm:
    weight = constant_fan_in(outputs, inputs * kernel**2, 0.1, 0).reshape(outputs, inputs, kernel, kernel)
    window = Window((stride, stride), (kernel // 2, kernel // 2))
    return LayerForm(weight, (1, inputs, side, side), window, False, "relu")


def linear_cases(threads: int, seconds: float) -> list[Row]:
    cases = ((1, False), (1, True), (197, False))
    return [_printed(linear_case(batch, 0.1, threads, seconds, balanced)) for batch, balanced in cases]


def density_cases(threads: int, seconds: float) -> list[Row]:
    rows = [_printed(linear_case(1, density, threads, seconds)) for density in _DENSITIES]
    if threads == 1:
        draw(rows, RESULTS / "condensed_density.png")
    return rows


def convolution_cases(threads: int, seconds: float) -> list[Row]:
    """All shapes in one session in each form; times are of the layers' own nodes."""
    counts = resnet50_convolutions()
    times = time_layers([_convolution(*shape) for shape in counts], threads, custom_op_library())
    rows, totals = [], {"ONNX Runtime": 0.0, "sparsefx": 0.0}
    for (shape, count), time in zip(counts.items(), times, strict=True):
        inputs, outputs, kernel, stride, side = shape
        medians = {"ONNX Runtime": time.dense * 1e6, "sparsefx": time.condensed * 1e6}
        case = f"conv {kernel}x{kernel}/{stride} {inputs} -> {outputs}, {side}x{side}, 90%"
        rows.append(_printed(_ratios({"case": case, "threads": threads, "median_us": medians})))
        for name, median in medians.items():
            totals[name] += count * median
    rows.append(_printed(_ratios({"case": "ResNet-50's convolutions in sum", "threads": threads, "median_us": totals})))
    return rows


def _ratios(row: Row) -> Row:
    """How many times faster each is than the faster dense one, and than the one in bfloat16 where that is there."""
    medians = row["median_us"]
    bases = {"speedup": ("ONNX Runtime", "torch dense"), "speedup_to_bf16_dense": ("torch dense bf16",)}
    for column, names in bases.items():
        dense = [medians[name] for name in names if name in medians]
        if dense:
            row = {**row, column: {name: min(dense) / median for name, median in medians.items()}}
    return row


def _printed(row: Row) -> Row:
    figures = "  ".join(f"{name} {us:.1f} us {row['speedup'][name]:.2f}x" for name, us in row["median_us"].items())
    print(f"{row['case']}, {row['threads']} thread{'s' * (row['threads'] > 1)}: {figures}", flush=True)
    return row


_CASES = {"linear": linear_cases, "density": density_cases, "convolution": convolution_cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--case", nargs="*", default=list(_CASES), choices=list(_CASES))
    parser.add_argument("--seconds", type=float, default=5.0, help="of measurement for each case")
    options = parser.parse_args()
    rows = [
        row for threads in options.threads for case in options.case for row in _CASES[case](threads, options.seconds)
    ]
    write_results("condensed", rows)


if __name__ == "__main__":
    main()
