"""Who runs a chain of linear layers: ONNX Runtime with and without our operators, torch, SciPy, OpenVINO."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch.nn.functional import linear

from sparsefx.runtime import custom_op_library
from sparsefx.runtime.kernels.layers import CompressedRows, CondensedLinear
from sparsefx.runtime.kernels.library import kernels_here
from sparsefx.runtime.onnxruntime.layer_models import LayerForm, condensed_model, dense_model
from sparsefx.runtime.onnxruntime.session import OnnxRuntimeSession

Floats = NDArray[np.float32]
Run = Callable[[], object]


def linear_contenders(weights: list[Floats], x: Floats, threads: int) -> dict[str, Run]:
    """By name; each run goes through the whole chain. x (batch, inputs of the first), weights (outputs, inputs)."""
    torch.set_num_threads(threads)
    layers = [LayerForm(w, (len(x), w.shape[1]), None, False, "none") for w in weights]
    contenders = {
        **_sessions(layers, x, threads),
        **_torch(weights, x),
        **_other_kernels(weights, x, threads),
        **_openvino(layers, x, threads),
    }
    if threads == 1:
        columns = np.ascontiguousarray(x.T)
        contenders["SciPy CSR"] = _chain([scipy.sparse.csr_matrix(w).dot for w in weights], columns)
    return contenders


def _sessions(layers: list[LayerForm], x: Floats, threads: int) -> dict[str, Run]:
    """ONNX Runtime, dense and with our operators."""
    library = custom_op_library()
    sessions = {
        "ONNX Runtime": (dense_model(layers), None, "float32"),
        "sparsefx": (condensed_model(layers), library, "float32"),
        "sparsefx bf16": (condensed_model(layers), library, "bfloat16"),
    }
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "layers.onnx"
        for name, (model, operators, precision) in sessions.items():
            file.write_bytes(_chained(model).SerializeToString())
            session = OnnxRuntimeSession(file, threads, operators, precision=precision)
            runs[name] = _bind(session.run, [x])
    return runs


def _chained(model: Any) -> Any:
    """Every layer reads what the one before has computed."""
    graph = model.graph
    for node in graph.node:
        for k, name in enumerate(node.input):
            layer, _, part = name.removeprefix("layer").partition("_")
            if part == "x" and int(layer) > 0:
                node.input[k] = f"layer{int(layer) - 1}_y"
    last = graph.output[-1]
    unread = [n for n in graph.node if n.output[0].startswith("after_") and n.output[0] != last.name]
    for node in unread:
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for constant in [c for c in graph.initializer if c.name not in read]:
        graph.initializer.remove(constant)
    del graph.input[1:], graph.output[:-1]
    return model


def _torch(weights: list[Floats], x: Floats) -> dict[str, Run]:
    tensor, dense = torch.from_numpy(x), [torch.from_numpy(w) for w in weights]
    return {
        "torch dense": _chain([_bind_last(linear, w) for w in dense], tensor),
        "torch dense bf16": _chain([_bind_last(linear, w.bfloat16()) for w in dense], tensor.bfloat16()),
        "torch CSR": _chain([_bind(torch.matmul, w.to_sparse_csr()) for w in dense], tensor.T.contiguous()),
    }


def _other_kernels(weights: list[Floats], x: Floats, threads: int) -> dict[str, Run]:
    """What slower processors run, from NumPy, on our own threads."""
    matrices = [CompressedRows.of(w) for w in weights]
    return {
        f"sparsefx {kernels}": _chain([CondensedLinear(m, threads=threads, kernels=kernels) for m in matrices], x)
        for kernels in kernels_here()[1:]
    }


def _openvino(layers: list[LayerForm], x: Floats, threads: int) -> dict[str, Run]:
    if importlib.util.find_spec("openvino") is None:
        return {}
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = core.read_model(_chained(dense_model(layers)).SerializeToString())
    return {"OpenVINO": _bind(core.compile_model(model, "CPU", settings).create_infer_request().infer, [x])}


def _chain(layers: Sequence[Callable[[Any], Any]], x: Any) -> Run:
    def run() -> None:
        y = x
        for layer in layers:
            y = layer(y)

    return run


def _bind(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    return lambda *more: function(*arguments, *more)


def _bind_last(function: Callable[..., Any], *arguments: Any) -> Callable[[Any], Any]:
    return lambda first: function(first, *arguments)
