"""An engine's operators and what each takes in its place: ONNX Runtime's profile beside the graph that it runs."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine import Array
from ..latency.node import EngineNode
from .session import OnnxRuntimeSession

_LAYERS = ("Conv", "FusedConv", "ConvTranspose")  # channels on axis 1
_PRODUCTS = ("Gemm", "FusedGemm", "MatMul", "FusedMatMul")  # on the last
END = "_kernel_time"  # of the events that tell an operator's time
_SUFFIXES = ("_nchwc", "_nhwc")
_PREFIX = "fused "
_WITHOUT_MEANING = ("auto_pad", "group", "channels", "activation_params")  # of a layer's time, or said by its sizes


class ProfiledEngine:
    """An ONNX file that keeps the time of every operator in every run. `layers` as EngineTemplate has them."""

    def __init__(self, model: Path, threads: int, folder: Path, layers: Mapping[str, str]) -> None:
        self._optimized = folder / "optimized.onnx"
        self.session = OnnxRuntimeSession(model, threads, profile=folder / "profile", optimized=self._optimized)
        self._model, self._layers = model, layers

    def run(self, inputs: list[Array]) -> None:
        self.session.run(inputs)

    def finish(self) -> list[tuple[EngineNode, list[float]]]:
        """Every operator with its seconds in every run, in the order in which they run; ends the profile."""
        times: dict[str, list[float]] = defaultdict(list)
        shapes: dict[str, Any] = {}
        for event in json.loads(self.session.end_profile().read_text()):
            name = event.get("name", "")
            if name.endswith(END):
                name = name.removesuffix(END)
                times[name].append(event["dur"] * 1e-6)
                shapes[name] = event["args"]
        nodes = {node.name: node for node in _load(self._optimized).graph.node}
        channels = _channels(_load(self._model))
        return [(_describe(nodes[n], shapes[n], self._layers, channels), times[n]) for n in times if n in nodes]


def plain_name(name: str) -> str:
    """An operator's name without what changes of layout add to it."""
    name = name.removeprefix(_PREFIX)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def engine_nodes(
    model: Path, threads: int, folder: Path, layers: Mapping[str, str], inputs: list[Array]
) -> list[EngineNode]:
    """The operators of an engine: it is built, and run once to learn their sizes."""
    engine = ProfiledEngine(model, threads, folder, layers)
    engine.run(inputs)
    return [node for node, _ in engine.finish()]


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(str(path), load_external_data=False)


def _channels(model: Any) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of convolutions, by every name of the layer's node, as the model has them."""
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in sizes:
            weight = sizes[node.input[1]]
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            found[node.output[0]] = found[node.name] = (weight[1] * group, weight[0])
    for node in model.graph.node:
        if node.op_type in ("Relu", "Clip") and node.input[0] in found:
            found[node.output[0]] = found[node.name] = found[node.input[0]]
    return found


def _describe(
    node: Any, args: Mapping[str, Any], layers: Mapping[str, str], channels: Mapping[str, tuple[int, int]]
) -> EngineNode:
    inputs, outputs = ([next(iter(t.items())) for t in args[f"{side}put_type_shape"]] for side in ("in", "out"))
    name = plain_name(node.name)
    layer = layers.get(name)
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    if node.op_type in _LAYERS or (node.op_type in _PRODUCTS and _is_layer(node, inputs)):
        axis = 1 if node.op_type in _LAYERS else -1
        given, made = inputs[0][1], outputs[0][1]
        width = (given[axis], made[axis])
        parts = [operator, _settings(node, width), *_fused(node), f"{_places(given, axis)} to {_places(made, axis)}"]
        return EngineNode(
            node.name, ", ".join([*filter(None, parts), inputs[0][0]]), width, layer or name, channels.get(name, width)
        )
    width = (sum(math.prod(s) for _, s in inputs), sum(math.prod(s) for _, s in outputs))
    ranks = "x".join(str(len(shape)) for _, shape in inputs)
    rest = _window(outputs[0][1]) if any(a.name == "kernel_shape" for a in node.attribute) else ""
    parts = [operator, _attributes(node), rest, f"ranks {ranks}", inputs[0][0] if inputs else ""]
    return EngineNode(node.name, ", ".join(filter(None, parts)), width)


def _is_layer(node: Any, inputs: list[tuple[str, list[int]]]) -> bool:
    """Whether the second operand is a constant that ONNX Runtime has packed: it is then not listed."""
    return len(inputs) < len([name for name in node.input if name]) or len(inputs) == 1


def _settings(node: Any, width: tuple[int, int]) -> str:
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    grouped = "" if group == 1 else "depthwise" if group == width[0] == width[1] else f"group {group}"
    return " ".join(filter(None, [_attributes(node, _WITHOUT_MEANING), grouped]))


def _fused(node: Any) -> list[str]:
    """A convolution with a fourth operand adds it to its result."""
    return ["with residual"] * (len(node.input) > 3 and bool(node.input[3]))


def _places(shape: list[int], axis: int) -> str:
    return "x".join(str(size) for k, size in enumerate(shape) if k != axis % len(shape))


def _window(shape: list[int]) -> str:
    return "to " + "x".join(map(str, shape[2:]))


def _attributes(node: Any, without: tuple[str, ...] = ("channels",)) -> str:
    import onnx

    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name not in without}
    return " ".join(f"{name} {_text(value)}" for name, value in sorted(values.items()) if _text(value))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "x".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return value.decode() if isinstance(value, bytes) else f"{value:g}" if isinstance(value, float) else str(value)
