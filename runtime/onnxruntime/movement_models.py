"""ONNX models of channels that are gathered in front of a layer or put back behind one, to be timed.

Each movement stands as in a network: between convolutions in the engine's blocked layout, or in front of a product; and
beside it what there is without it. The layers around are as small as can be and do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GATHER, SCATTER = "gather", "scatter"
_OPSET, _IR_VERSION = 20, 9
_READER = 8  # output channels of the layer behind


@dataclass(frozen=True)
class Movement:
    """`kept` of the channels, the `axis` of a tensor of this shape, gathered; or scattered into a sum of this shape.

    With `constants` others than zero are added where nothing is scattered. The axis is 1, with places behind it, or the
    last.
    """

    kind: str
    shape: tuple[int, ...]
    axis: int
    kept: int
    constants: bool = False

    @property
    def full(self) -> int:
        return self.shape[self.axis]

    @property
    def last(self) -> bool:
        """Whether products are around rather than convolutions."""
        return self.axis == len(self.shape) - 1


def movement_model(movement: Movement, *, moved: bool) -> Any:
    """An ONNX model with the movement, or without it."""
    from onnx import TensorProto, helper, numpy_helper

    parts = _Parts(movement)
    (_gather if movement.kind == GATHER else _scatter)(parts, movement, moved)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in parts.inputs.items()]
    result = (*movement.shape[:-1], _READER) if movement.last else (movement.shape[0], _READER, *movement.shape[2:])
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)]
    constants = [numpy_helper.from_array(value, name) for name, value in parts.constants.items()]
    graph = helper.make_graph(parts.nodes, "movement", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


class _Parts:
    """Nodes, constants and inputs of a model; a node's name is that of its result."""

    def __init__(self, movement: Movement) -> None:
        self._movement = movement
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.inputs: dict[str, tuple[int, ...]] = {}

    def node(self, operator: str, operands: Sequence[str], result: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, operands, [result], result, **attributes))
        return result

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = value
        return name

    def source(self, name: str, channels: int) -> str:
        """A tensor of so many channels: an input, or what a convolution makes of an image."""
        movement = self._movement
        if movement.last:
            self.inputs[name] = (*movement.shape[:-1], channels)
            return name
        image, places = f"{name}_image", movement.shape[2:]
        self.inputs[image] = (movement.shape[0], 1, *places)
        weight = self.constant(f"{name}_weight", np.ones((channels, 1, *[1] * len(places)), np.float32))
        return self.node("Conv", [image, weight], name)

    def reader(self, operand: str, channels: int) -> None:
        """The layer behind, which makes the model's output."""
        places = len(self._movement.shape) - 2
        if self._movement.last:
            self.node("MatMul", [operand, self.constant("weight", np.ones((channels, _READER), np.float32))], "y")
        else:
            weight = np.ones((_READER, channels, *[1] * places), np.float32)
            self.node("Conv", [operand, self.constant("weight", weight)], "y")


def _gather(parts: _Parts, movement: Movement, moved: bool) -> None:
    x = parts.source("x", movement.full)
    if moved:
        x = parts.node("Gather", [x, parts.constant("indices", _some(movement))], "gathered", axis=movement.axis)
    parts.reader(x, movement.kept if moved else movement.full)


def _scatter(parts: _Parts, movement: Movement, moved: bool) -> None:
    stream = parts.source("stream", movement.full)
    x = parts.source("x", movement.kept if moved else movement.full)
    if moved and movement.constants:
        target = stream if movement.last else ""
        stream, x = _with_constants(parts, movement, target, stream, x)
    elif moved:
        x = x if movement.last else _placed(parts, movement, x)
    total = _added(parts, movement, stream, x) if moved and movement.last else parts.node("Add", [stream, x], "total")
    parts.reader(total if movement.last else parts.node("Relu", [total], "after"), movement.full)


def _with_constants(parts: _Parts, movement: Movement, target: str, stream: str, x: str) -> tuple[str, str]:
    ones = np.ones((movement.full, *[1] * (len(movement.shape) - 1 - movement.axis)), np.float32)
    constant = parts.constant("constants", ones)
    if target:
        return parts.node("Add", [stream, constant], "shifted"), x
    return stream, parts.node("Add", [_placed(parts, movement, x), constant], "shifted")


def _placed(parts: _Parts, movement: Movement, x: str) -> str:
    """As constant_pad_nd and index_select are lowered."""
    pads = np.zeros((2, len(movement.shape)), np.int64)
    pads[1, movement.axis] = 1
    padded = parts.node("Pad", [x, parts.constant("pads", pads.reshape(-1))], "padded")
    places = np.full(movement.full, movement.kept)
    places[_some(movement)] = np.arange(movement.kept)
    return parts.node("Gather", [padded, parts.constant("places", places)], "placed", axis=movement.axis)


def _added(parts: _Parts, movement: Movement, stream: str, x: str) -> str:
    """As index_add is lowered."""
    rank = len(movement.shape)
    order = [movement.axis, *(d for d in range(rank) if d != movement.axis)]
    back = [order.index(d) for d in range(rank)]
    rows = parts.constant("rows", _some(movement)[:, None])
    turned = [parts.node("Transpose", [name], f"{name}_turned", perm=order) for name in (stream, x)]
    added = parts.node("ScatterND", [turned[0], rows, turned[1]], "added", reduction="add")
    return parts.node("Transpose", [added], "total", perm=back)


def _some(movement: Movement) -> NDArray[np.int64]:
    """As many channels, spread at random."""
    chosen = np.random.default_rng(0).permutation(movement.full)[: movement.kept]
    return np.sort(chosen).astype(np.int64)
