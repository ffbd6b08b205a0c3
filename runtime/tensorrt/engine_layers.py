"""The layers of a TensorRT engine as a latency table knows them: which nodes of the ONNX file each of them runs.

The engine inspector tells of every layer its kind, sizes, and the ONNX nodes fused into it, as "[ONNX Layer: name]", or
"[ONNX Layer: name | call (function)]" inside a function; of an engine with detailed profiling. A layer into which
several operators are fused counts for its main one, the layer of the model with the most multiplications; all that runs
a part of a condensed one counts for it. Written from the documented format, and from what TensorRT-RTX's parser notes;
read with a stand-in only, since the inspector needs a GPU.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..latency.node import EngineNode
from ..onnxruntime.condensed import DOMAIN
from ..onnxruntime.engine_nodes import attributes, places, settings
from .condensed import LINEAR_NAME, condensed_node

_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_INSIDE, _FUNCTION = " | ", " ("  # in front of the node that calls a function, and behind it
_FUSED = " + "  # between names, in the name of a layer without metadata
_CONVOLUTIONS = ("Conv", "ConvTranspose")  # channels on axis 1
_PRODUCTS = ("Gemm", "MatMul")  # on the last
_CONSTANTS = ("Constant", "Identity")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class EngineLayer:
    """What the inspector tells: the layer's name and kind, names of ONNX nodes, elements and formats on both sides."""

    name: str
    kind: str
    nodes: tuple[str, ...]
    width: tuple[int, int]
    formats: str


def read_layers(information: str) -> dict[str, EngineLayer]:
    """The inspector's JSON, by the names of layers. Those of an engine without details are names alone."""
    told = json.loads(information)["Layers"]
    layers = (layer_called(layer) if isinstance(layer, str) else _read(layer) for layer in told)
    return {layer.name: layer for layer in layers}


def layer_called(name: str) -> EngineLayer:
    """A layer of which the name alone is known: fused nodes stand in it one after the other."""
    return EngineLayer(name, "layer", tuple(name.split(_FUSED)), (0, 0), "")


class NodeGraph:
    """An ONNX file whose inputs have fixed sizes, as far as an engine's layers are described by it.

    `layers` are those of the model by the names of their nodes.
    """

    def __init__(self, model: Any, layers: Mapping[str, str]) -> None:
        self._layers = layers
        self._nodes = {node.name: node for node in model.graph.node}
        self._constants: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self._constants |= {n.output[0]: () for n in model.graph.node if n.op_type in _CONSTANTS and not n.input}
        self._shapes = self._constants | _shapes(model)
        self._results = {value.name for value in model.graph.output}
        self._readers: dict[str, set[str]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, set()).add(node.name)

    def describe(self, layer: EngineLayer) -> EngineNode:
        """A layer of the engine. One that runs no node of the file, such as a change of layout, goes by its kind."""
        nodes = [self._nodes[name] for name in layer.nodes if name in self._nodes]
        weighted = [node for node in nodes if self._is_layer(node)]
        if weighted:
            return self._of_layer(layer, nodes, max(weighted, key=self._work))
        if nodes and all(name in self._shapes for name in (*self._read(nodes), *self._written(nodes))):
            return self._of_others(layer, nodes)
        return EngineNode(layer.name, f"{layer.kind}, {layer.formats}", layer.width)

    def _is_layer(self, node: Any) -> bool:
        known = node.domain == DOMAIN or node.op_type in (*_CONVOLUTIONS, *_PRODUCTS)
        if not known or node.input[1] not in self._constants:
            return False
        return all(len(self._shapes.get(name, ())) > 1 for name in (node.input[0], node.output[0]))

    def _work(self, node: Any) -> int:
        """Multiplications: every weight is used at every place of the result, of a transposed one of the operand."""
        conv = _has_places(node)
        spread = self._shapes[node.input[0] if node.op_type == "ConvTranspose" else node.output[0]]
        at = math.prod((spread[0], *spread[2:]) if conv else spread[:-1])
        return int(at * math.prod(self._constants[node.input[1]]))

    def _of_layer(self, layer: EngineLayer, nodes: Sequence[Any], main: Any) -> EngineNode:
        axis = 1 if _has_places(main) else -1
        given, made = self._shapes[main.input[0]], self._shapes[main.output[0]]
        if main.domain == DOMAIN:
            return condensed_node(main.name, main.op_type, given, made, self._constants[main.input[1]][1])
        width = (given[axis], made[axis])
        parts = [_operators(nodes), settings(main, width), f"{places(given, axis)} to {places(made, axis)}", layer.kind]
        key = ", ".join(filter(None, parts))
        return EngineNode(layer.name, key, width, self._layers.get(main.name, main.name), width)

    def _of_others(self, layer: EngineLayer, nodes: Sequence[Any]) -> EngineNode:
        read, written = ([self._shapes[name] for name in side(nodes)] for side in (self._read, self._written))
        windows = [attributes(node) for node in nodes if any(a.name == "kernel_shape" for a in node.attribute)]
        ranks = "x".join(str(len(shape)) for shape in read)
        key = ", ".join([_operators(nodes), *windows, f"ranks {ranks}", layer.kind])
        return EngineNode(layer.name, key, (_elements(read), _elements(written)))

    def _read(self, nodes: Sequence[Any]) -> list[str]:
        """Values that come from elsewhere."""
        inside = {name for node in nodes for name in node.output}
        return list(dict.fromkeys(name for node in nodes for name in node.input if name and name not in inside))

    def _written(self, nodes: Sequence[Any]) -> list[str]:
        """Values that others read."""
        own = {node.name for node in nodes}
        values = [name for node in nodes for name in node.output if name]
        return [name for name in values if name in self._results or self._readers.get(name, set()) - own]


def fixed_sizes(model: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    """An ONNX model with these sizes of its inputs, in place; what it notes of values inside is inferred anew."""
    for value in model.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dimension.dim_value = size
    for value in model.graph.output:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.Clear()
    del model.graph.value_info[:]
    return model


def _read(layer: Any) -> EngineLayer:
    name = str(layer["Name"])
    sides = [layer.get(side, []) for side in ("Inputs", "Outputs")]
    formats = " to ".join(", ".join(str(t.get("Format/Datatype", "")) for t in side) for side in sides)
    named = dict.fromkeys(_in_file(found) for found in _ONNX_LAYER.findall(str(layer.get("Metadata", ""))))
    nodes = tuple(named) or layer_called(name).nodes
    read, written = (_elements(tuple(t.get("Dimensions", ())) for t in side) for side in sides)
    return EngineLayer(name, str(layer.get("LayerType", "layer")), nodes, (read, written), formats)


def _in_file(name: str) -> str:
    """The node of the file: of one inside a function the node that calls it."""
    return name.rpartition(_INSIDE)[2].rpartition(_FUNCTION)[0] if _INSIDE in name else name


def _has_places(node: Any) -> bool:
    """Whether channels are on axis 1, in front of the places of an image."""
    return node.op_type in _CONVOLUTIONS or (node.domain == DOMAIN and not node.op_type.startswith(LINEAR_NAME))


def _elements(shapes: Iterable[Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _operators(nodes: Sequence[Any]) -> str:
    return "+".join(node.op_type for node in nodes if node.op_type not in _CONSTANTS)


def _shapes(model: Any) -> dict[str, Shape]:
    """Shapes of all values that follow from those of the inputs."""
    import onnx

    found = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {}
    for value in (*found.input, *found.value_info, *found.output):
        sizes = value.type.tensor_type.shape.dim
        if all(size.HasField("dim_value") for size in sizes):
            shapes[value.name] = tuple(size.dim_value for size in sizes)
    return shapes
