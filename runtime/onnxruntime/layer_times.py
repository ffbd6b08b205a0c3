"""What sparse layers take in ONNX Runtime, dense and condensed, in an engine's own setting.

The layers of a network stand in one session, one after the other, so that weights are cold and threads are those of
an engine. Times are read from ONNX Runtime's profile: those of a layer's own nodes, without the changes of layout
around it, which most layers of a whole network are spared.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.layers import CompressedRows
from .condensed import DOMAIN, node_attributes, node_name, to_gaps
from .session import OnnxRuntimeSession

_TURNS, _RUNS = 3, 4  # sessions take turns; a turn's first run finds the other session's threads still spinning
_LAYOUT = ("ReorderInput", "ReorderOutput")
_OPSET, _IR_VERSION = 17, 9


@dataclass(frozen=True)
class Window:
    """How a convolution's kernel moves over the image; padding is (height, width), on both sides."""

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


@dataclass(frozen=True, eq=False)
class LayerForm:
    """A layer with what is fused into it. `weight` has its zeros in; `window` is that of a 2-d convolution."""

    weight: NDArray[np.float32]
    input_shape: tuple[int, ...]
    window: Window | None
    residual: bool
    activation: str

    @property
    def output_shape(self) -> tuple[int, ...]:
        if self.window is None:
            return (*self.input_shape[:-1], len(self.weight))
        window, sizes = self.window, []
        for axis in (0, 1):
            reach = window.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
            sizes.append((self.input_shape[2 + axis] + 2 * window.padding[axis] - reach) // window.stride[axis] + 1)
        return (self.input_shape[0], len(self.weight), *sizes)

    @property
    def bytes(self) -> int:
        """Of the dense layer and of what it reads and writes."""
        return 4 * (self.weight.size + int(np.prod(self.input_shape)) + 2 * int(np.prod(self.output_shape)))


@dataclass(frozen=True)
class LayerTime:
    """Median seconds of one layer's two forms."""

    dense: float
    condensed: float


def time_layers(
    layers: Sequence[LayerForm], threads: int, library: Path, precision: str = "float32"
) -> list[LayerTime]:
    """Time every layer in both forms, in turn; `library` has the condensed operators, `precision` is of their weights.

    Raises TargetError where ONNX Runtime refuses one of them.
    """
    with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
        sessions = [
            _Session(layers, _dense_nodes, threads, None, Path(folder) / "dense"),
            _Session(layers, _condensed_nodes, threads, library, Path(folder) / "condensed", precision),
        ]
        for _ in range(_TURNS):
            for session in sessions:
                session.turn()
        dense, condensed = (session.times() for session in sessions)
    return [LayerTime(*pair) for pair in zip(dense, condensed, strict=True)]


class _Session:
    """All layers in one form, profiled."""

    def __init__(
        self,
        layers: Sequence[LayerForm],
        nodes_of: Any,
        threads: int,
        library: Path | None,
        file: Path,
        precision: str = "float32",
    ) -> None:
        import onnx

        file.write_bytes(_model(layers, nodes_of).SerializeToString())
        self._count = len(layers)
        self._session = OnnxRuntimeSession(file, threads, library, precision=precision, profile=file)
        random = np.random.default_rng(0)
        shapes = [tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in onnx.load(str(file)).graph.input]
        self._inputs = [random.standard_normal(shape, np.float32) for shape in shapes]

    def turn(self) -> None:
        for _ in range(_RUNS):
            self._session.run(self._inputs)

    def times(self) -> list[float]:
        runs = np.zeros((self._count, _TURNS * _RUNS))
        seen: dict[str, int] = {}
        for event in json.loads(self._session.end_profile().read_text()):
            name = event.get("name", "")
            layer = re.search(r"layer(\d+)_.*_kernel_time$", name)
            if layer and event["args"]["op_name"] not in _LAYOUT:
                run = seen[name] = seen.get(name, -1) + 1
                runs[int(layer[1]), run] += event["dur"] * 1e-6
        return [float(t) for t in np.median(runs.reshape(self._count, _TURNS, _RUNS)[:, :, 1:], axis=(1, 2))]


def _model(layers: Sequence[LayerForm], nodes_of: Any) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []
    inputs: list[Any] = []
    outputs: list[Any] = []  # a corner of each result: whole ones would be written to new memory every time
    for i, layer in enumerate(layers):
        name = f"layer{i}"
        made, constants, read = nodes_of(name, layer)
        nodes += made
        weights += [numpy_helper.from_array(value, key) for key, value in constants.items()]
        inputs += [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in read.items()]
        corner, bounds = f"after_{i}", [f"after_{i}_begin", f"after_{i}_end"]
        nodes.append(helper.make_node("Slice", [f"{name}_y", *bounds], [corner], corner))
        axes = len(layer.output_shape)
        weights += [numpy_helper.from_array(np.full(axes, k), bound) for k, bound in enumerate(bounds)]
        outputs.append(helper.make_tensor_value_info(corner, TensorProto.FLOAT, [1] * axes))
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)]
    graph = helper.make_graph(nodes, "layers", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


_Parts = tuple[list[Any], dict[str, NDArray[Any]], dict[str, tuple[int, ...]]]  # nodes, constants, shapes of inputs


def _dense_nodes(name: str, layer: LayerForm) -> _Parts:
    from onnx import helper

    steps = _dense_layer(name, layer)
    nodes, last = steps[0], f"{name}_sum"
    if layer.residual:
        added = _residual(name, layer, steps)
        nodes.append(helper.make_node("Add", [last, added], [f"{name}_total"], f"{name}_add"))
        last = f"{name}_total"
    then = "Relu" if layer.activation == "relu" else "Identity"
    nodes.append(helper.make_node(then, [last], [f"{name}_y"], f"{name}_then"))
    return steps


def _dense_layer(name: str, layer: LayerForm) -> _Parts:
    from onnx import helper

    x, w, b, y = (f"{name}_{part}" for part in ("x", "w", "b", "sum"))
    constants = {b: np.zeros(len(layer.weight), np.float32)}
    inputs = {x: layer.input_shape}
    if layer.window is not None:
        constants[w] = layer.weight
        window = layer.window
        options: dict[str, Any] = {"strides": window.stride, "pads": window.padding * 2, "dilations": window.dilation}
        return [helper.make_node("Conv", [x, w, b], [y], y, group=window.groups, **options)], constants, inputs
    constants[w] = np.ascontiguousarray(layer.weight.T)
    if len(layer.input_shape) == 2:
        return [helper.make_node("Gemm", [x, w, b], [y], y)], constants, inputs
    product = f"{name}_product"
    made = [helper.make_node("MatMul", [x, w], [product], product), helper.make_node("Add", [product, b], [y], y)]
    return made, constants, inputs


def _residual(name: str, layer: LayerForm, parts: _Parts) -> str:
    """What is added: for a convolution from another one, so that it has the layout that convolutions like."""
    from onnx import helper

    nodes, constants, inputs = parts
    if layer.window is None:
        inputs[f"{name}_r"] = layer.output_shape
        return f"{name}_r"
    image, weight, result = (f"before_{name}{part}".replace("layer", "") for part in ("_x", "_w", ""))
    batch, channels, height, width = layer.output_shape
    inputs[image] = (batch, 1, height, width)
    constants[weight] = np.ones((channels, 1, 1, 1), np.float32)
    nodes.append(helper.make_node("Conv", [image, weight], [result], result))
    return result


def _condensed_nodes(name: str, layer: LayerForm) -> _Parts:
    from onnx import helper

    matrix = CompressedRows.of(layer.weight)
    shape = list(layer.weight.shape)
    values, gaps = to_gaps(matrix.values, matrix.columns, matrix.starts, shape)
    x, r = f"{name}_x", f"{name}_r"
    constants: dict[str, NDArray[Any]] = {
        f"{name}_values": values,
        f"{name}_gaps": gaps,
        f"{name}_b": np.zeros(len(layer.weight), np.float32),
    }
    inputs = {x: layer.input_shape, **({r: layer.output_shape} if layer.residual else {})}
    window = layer.window
    if window is None:
        attributes = node_attributes(shape)
    else:
        pixels = int(np.prod(layer.output_shape[2:]))
        attributes = node_attributes(shape, window.stride, window.padding, window.dilation, window.groups, pixels)
    kind = "CondensedLinear" if window is None else "CondensedConv2d"
    operands = [x, *constants, *([r] if layer.residual else [])]
    operator = node_name(kind, layer.residual, layer.activation)
    node = helper.make_node(operator, operands, [f"{name}_y"], f"{name}_y", domain=DOMAIN, **attributes)
    return [node], constants, inputs
