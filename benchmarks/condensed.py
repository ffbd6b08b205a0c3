"""Condensed layers beside dense and sparse ones of other libraries, weights cold as in a whole network.

    python -m benchmarks.condensed [--threads 1 2] [--case linear convolution density] [--seconds N]

linear       768 -> 3072 and back at 90% constant fan-in, batch 1 and 197 tokens, arbitrary and block-balanced
             patterns, weights in float32 and in bfloat16; beside ONNX Runtime, torch dense, torch CSR and SciPy CSR
convolution  ResNet-50's shapes at 90%, batch 1, beside ONNX Runtime; the total counts each as often as the network
density      time of a linear layer against its density

Every contender goes round several copies of the layer with weights of their own, so that they do not stay in the
cache. Turns are interleaved; ratios are of medians in one run, against the faster of ONNX Runtime and torch dense, both
in float32; beside them, in `speedup_to_bf16_dense`, those to torch dense in bfloat16.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.results_file import write_results
from sparsefx.runtime.kernels.layers import CompressedRows, CondensedConv2d, CondensedLinear
from sparsefx.runtime.kernels.library import kernels_here
from sparsefx.runtime.latency.measure import Measurement, measure

_CACHE_MIB = 64  # of dense weights that a round goes through
_BLOCK = 32  # inputs; a block-balanced pattern has equally many non-zeros in each
_BURST = 0.03

Floats = NDArray[np.float32]
Row = dict[str, Any]
Run = Callable[[], object]


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


def linear_case(
    outputs: int, inputs: int, batch: int, density: float, threads: int, seconds: float, balanced: bool = False
) -> Row:
    copies = max(2, _CACHE_MIB * 2**20 // (4 * outputs * inputs))
    weights = [constant_fan_in(outputs, inputs, density, seed, balanced) for seed in range(copies)]
    x = np.random.default_rng(1).standard_normal((batch, inputs)).astype(np.float32)
    tensor = torch.from_numpy(x)
    torch.set_num_threads(threads)
    dense = [torch.from_numpy(w) for w in weights]
    csr = [w.to_sparse_csr() for w in dense]
    columns = np.ascontiguousarray(x.T)
    contenders: dict[str, Run] = {
        "ONNX Runtime": _in_turn(_matmul_session(w, batch, threads, x) for w in weights),
        "torch dense": _in_turn(_bind(torch.nn.functional.linear, tensor, w) for w in dense),
        "torch dense bf16": _in_turn(_bind(torch.nn.functional.linear, tensor.bfloat16(), w.bfloat16()) for w in dense),
        "torch CSR": _in_turn(_bind(torch.matmul, w, tensor.T) for w in csr),
    }
    for kernels, (precision, suffix) in itertools.product(kernels_here(), (("float32", ""), ("bfloat16", " bf16"))):
        options: dict[str, Any] = {"threads": threads, "kernels": kernels, "precision": precision}
        layers = (CondensedLinear(CompressedRows.of(w), **options) for w in weights)
        contenders[f"sparsefx {kernels}{suffix}"] = _in_turn(_bind(layer, x) for layer in layers)
    if threads == 1:
        contenders["SciPy CSR"] = _in_turn(_bind(scipy.sparse.csr_matrix(w).dot, columns) for w in weights)
    pattern = "block-balanced" if balanced else "constant fan-in"
    return _row(
        f"linear {inputs} -> {outputs}, batch {batch}, {1 - density:.0%} {pattern}", threads, contenders, seconds
    )


def convolution_case(
    inputs: int, outputs: int, kernel: int, stride: int, side: int, density: float, threads: int, seconds: float
) -> Row:
    copies = max(2, _CACHE_MIB * 2**20 // (4 * outputs * inputs * kernel**2 * 4))
    shape = (outputs, inputs, kernel, kernel)
    weights = [constant_fan_in(outputs, inputs * kernel**2, density, s).reshape(shape) for s in range(copies)]
    x = np.random.default_rng(1).standard_normal((1, inputs, side, side)).astype(np.float32)
    padding = (kernel // 2, kernel // 2)
    options: dict[str, Any] = {"stride": (stride, stride), "padding": padding, "pixels": (side // stride) ** 2}
    bias = np.zeros(outputs, np.float32)
    contenders = {
        "ONNX Runtime": _in_turn(_conv_session(w, bias, stride, threads, x) for w in weights),
        f"sparsefx {kernels_here()[0]}": _in_turn(
            _bind(
                CondensedConv2d(CompressedRows.of(w), w.shape[2:], bias, activation="relu", threads=threads, **options),
                x,
            )
            for w in weights
        ),
    }
    name = f"conv {kernel}x{kernel}/{stride} {inputs} -> {outputs}, {side}x{side}, {1 - density:.0%}"
    return _row(name, threads, contenders, seconds)


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


def linear_cases(threads: int, seconds: float) -> list[Row]:
    rows = []
    for (outputs, inputs), balanced in itertools.product(((3072, 768), (768, 3072)), (False, True)):
        rows.append(_printed(linear_case(outputs, inputs, 1, 0.1, threads, seconds, balanced)))
    for outputs, inputs in ((3072, 768), (768, 3072)):
        rows.append(_printed(linear_case(outputs, inputs, 197, 0.1, threads, seconds)))
    return rows


def density_cases(threads: int, seconds: float) -> list[Row]:
    return [
        _printed(linear_case(3072, 768, 1, density, threads, seconds))
        for density in (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
    ]


def convolution_cases(threads: int, seconds: float) -> list[Row]:
    rows, totals = [], dict[str, float]()
    for shape, count in resnet50_convolutions().items():
        rows.append(_printed(convolution_case(*shape, 0.1, threads, seconds)))
        for name, median in rows[-1]["median_us"].items():
            totals[name] = totals.get(name, 0.0) + count * median
    rows.append(_printed(_ratios({"case": "ResNet-50's convolutions in sum", "threads": threads, "median_us": totals})))
    return rows


def _row(case: str, threads: int, contenders: dict[str, Run], seconds: float) -> Row:
    results = measure(contenders, seconds=seconds, least_runs=7, warm_up=1, burst=_BURST)
    medians = {name: result.median * 1e6 for name, result in results.items()}
    return _ratios({"case": case, "threads": threads, "median_us": medians, "spread_us": _spreads(results)})


def _spreads(results: dict[str, Measurement]) -> dict[str, float]:
    return {name: result.spread * 1e6 for name, result in results.items()}


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


def _in_turn(runs: Iterable[Run]) -> Run:
    cycle = itertools.cycle(list(runs))
    return lambda: next(cycle)()


def _bind(function: Callable[..., object], *arguments: Any) -> Run:
    return lambda: function(*arguments)


def _matmul_session(weight: Floats, batch: int, threads: int, x: Floats) -> Run:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return _session(nodes, {"w": np.ascontiguousarray(weight.T)}, (batch, len(weight)), threads, x)


def _conv_session(weight: Floats, bias: Floats, stride: int, threads: int, x: Floats) -> Run:
    pads = [weight.shape[2] // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[stride, stride], pads=pads),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    shape = (1, len(weight), x.shape[2] // stride, x.shape[3] // stride)
    return _session(nodes, {"w": weight, "b": bias}, shape, threads, x)


def _session(nodes: list[Any], weights: dict[str, Floats], shape: tuple[int, ...], threads: int, x: Floats) -> Run:
    import onnxruntime

    value = helper.make_tensor_value_info
    ends = ([value("x", TensorProto.FLOAT, x.shape)], [value("y", TensorProto.FLOAT, shape)])
    constants = [numpy_helper.from_array(w, name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "layer", *ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return _bind(session.run, None, {"x": x})


_CASES = {"linear": linear_cases, "convolution": convolution_cases, "density": density_cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--case", nargs="*", default=list(_CASES), choices=list(_CASES))
    parser.add_argument("--seconds", type=float, default=3.0, help="of measurement for each case")
    options = parser.parse_args()
    rows = [
        row for threads in options.threads for case in options.case for row in _CASES[case](threads, options.seconds)
    ]
    write_results("condensed", rows)


if __name__ == "__main__":
    main()
