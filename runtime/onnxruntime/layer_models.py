"""Single layers as ONNX models, dense and condensed, to be timed.

Nodes and results of layer number i have names that begin with "layer{i}_".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.layers import CompressedRows
from .condensed import DOMAIN, node_attributes, node_name, to_gaps

_OPSET, _IR_VERSION = 20, 9
_LARGE = 2**16  # bytes of a result

_Parts = tuple[list[Any], dict[str, NDArray[Any]], dict[str, tuple[int, ...]]]  # nodes, constants, shapes of inputs


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


def dense_model(layers: Sequence[LayerForm]) -> Any:
    """An ONNX model in which the layers stand beside each other, as dense ones."""
    return _model(layers, _dense_nodes)


def condensed_model(layers: Sequence[LayerForm]) -> Any:
    """The same with condensed operators, which need the library of kernels."""
    return _model(layers, _condensed_nodes)


def _model(layers: Sequence[LayerForm], nodes_of: Callable[[str, LayerForm], _Parts]) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []
    inputs: list[Any] = []
    outputs: list[Any] = []
    for i, layer in enumerate(layers):
        name = f"layer{i}"
        made, constants, read = nodes_of(name, layer)
        nodes += made
        weights += [numpy_helper.from_array(value, key) for key, value in constants.items()]
        inputs += [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in read.items()]
        result, shape = f"{name}_y", list(layer.output_shape)
        if 4 * np.prod(shape) > _LARGE:
            result, shape, cut, bounds = _corner(i, shape)
            nodes.append(cut)
            weights += bounds
        outputs.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, shape))
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)]
    graph = helper.make_graph(nodes, "layers", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _corner(i: int, shape: list[int]) -> tuple[str, list[int], Any, list[Any]]:
    """One number of a large result: all of it would be written to new memory in every run."""
    from onnx import helper, numpy_helper

    name, bounds = f"after_{i}", [f"after_{i}_begin", f"after_{i}_end"]
    node = helper.make_node("Slice", [f"layer{i}_y", *bounds], [name], name)
    constants = [numpy_helper.from_array(np.full(len(shape), k), bound) for k, bound in enumerate(bounds)]
    return name, [1] * len(shape), node, constants


def _dense_nodes(name: str, layer: LayerForm) -> _Parts:
    from onnx import helper

    steps = _dense_layer(name, layer)
    nodes, last = steps[0], f"{name}_sum"
    if layer.residual:
        added = _residual(name, layer, steps)
        nodes.append(helper.make_node("Add", [last, added], [f"{name}_total"], f"{name}_add"))
        last = f"{name}_total"
    then = {"none": "Identity", "relu": "Relu", "gelu": "Gelu"}[layer.activation]
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
