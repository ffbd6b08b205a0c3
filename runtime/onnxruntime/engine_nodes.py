"""An engine's operators and what each takes in its place: ONNX Runtime's profile beside the graph that it runs."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...passes.errors import TargetError
from ..latency.node import EngineNode

_LAYERS = ("Conv", "FusedConv", "ConvTranspose")  # channels on axis 1
_PRODUCTS = ("Gemm", "FusedGemm", "MatMul", "FusedMatMul")  # on the last
END = "_kernel_time"  # of the events that tell an operator's time
_KERNEL = "Kernel"
_SUFFIXES = ("_nchwc", "_nhwc")
_PREFIX = "fused "
_WITHOUT_MEANING = ("auto_pad", "group", "channels", "activation_params")  # of a layer's time, or said by its sizes


def plain_name(name: str) -> str:
    """An operator's name without what changes of layout add to it."""
    name = name.removeprefix(_PREFIX)
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def node_times(
    profile: Path, optimized: Path, model: Path, layers: Mapping[str, str]
) -> list[tuple[EngineNode, list[float]]]:
    """Every operator with its seconds in every run, in the order in which they run.

    `optimized` is the graph as it runs, `model` the file that it was made of, `layers` as EngineTemplate has them.
    """
    times: dict[str, list[float]] = defaultdict(list)
    shapes: dict[str, Any] = {}
    for event in json.loads(profile.read_text()):
        name = event.get("name", "")
        if name.endswith(END):
            name = name.removesuffix(END)
            times[name].append(event["dur"] * 1e-6)
            shapes[name] = event["args"]
    return _described(times, shapes, optimized, model, layers, packed=True)


def kernel_times(
    profile: Path, optimized: Path, model: Path, layers: Mapping[str, str]
) -> list[tuple[EngineNode, list[float]]]:
    """The same by a GPU's clock: of every operator, what the kernels took that it started.

    Written from the sources of ONNX Runtime: behind the event of an operator, which is the processor's time of starting
    its kernels, come events of category "Kernel" that name it as their parent. Only builds with CUDA's profiling
    interface write them. Raises TargetError where there are none.
    """
    times: dict[str, list[float]] = defaultdict(list)
    shapes: dict[str, Any] = {}
    kernels = 0
    for event in json.loads(profile.read_text()):
        name = event.get("name", "")
        if event.get("cat") == _KERNEL:
            parent = event["args"].get("parent_name", "").removesuffix(END)
            if parent in times:
                times[parent][-1] += event["dur"] * 1e-6
                kernels += 1
        elif name.endswith(END):
            name = name.removesuffix(END)
            times[name].append(0.0)
            shapes[name] = event["args"]
    if not kernels:
        raise TargetError(
            "ONNX Runtime's profile has no times of the GPU's kernels: it takes a build with --enable_cuda_profiling, "
            "and CUPTI's library on the path; latency tables of torch:cuda and tensorrt:smXX need neither"
        )
    return _described(times, shapes, optimized, model, layers, packed=False)


def _described(
    times: Mapping[str, list[float]],
    shapes: Mapping[str, Any],
    optimized: Path,
    model: Path,
    layers: Mapping[str, str],
    *,
    packed: bool,
) -> list[tuple[EngineNode, list[float]]]:
    """`packed`: whether the engine packs constants of layers, which its profile then does not list."""
    graph = _load(optimized).graph
    nodes, channels = {node.name: node for node in graph.node}, _channels(_load(model))
    constants = frozenset() if packed else frozenset(tensor.name for tensor in graph.initializer)
    return [(_describe(nodes[n], shapes[n], layers, channels, constants), times[n]) for n in times if n in nodes]


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
    node: Any,
    args: Mapping[str, Any],
    layers: Mapping[str, str],
    channels: Mapping[str, tuple[int, int]],
    constants: frozenset[str],
) -> EngineNode:
    inputs, outputs = ([next(iter(t.items())) for t in args[f"{side}put_type_shape"]] for side in ("in", "out"))
    name = plain_name(node.name)
    layer = layers.get(name)
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    if node.op_type in _LAYERS or (node.op_type in _PRODUCTS and _is_layer(node, inputs, constants)):
        axis = 1 if node.op_type in _LAYERS else -1
        given, made = inputs[0][1], outputs[0][1]
        width = (given[axis], made[axis])
        parts = [operator, settings(node, width), *_fused(node), f"{places(given, axis)} to {places(made, axis)}"]
        return EngineNode(
            node.name, ", ".join([*filter(None, parts), inputs[0][0]]), width, layer or name, channels.get(name, width)
        )
    width = (sum(math.prod(s) for _, s in inputs), sum(math.prod(s) for _, s in outputs))
    ranks = "x".join(str(len(shape)) for _, shape in inputs)
    rest = _window(outputs[0][1]) if any(a.name == "kernel_shape" for a in node.attribute) else ""
    parts = [operator, attributes(node), rest, f"ranks {ranks}", inputs[0][0] if inputs else ""]
    return EngineNode(node.name, ", ".join(filter(None, parts)), width)


def _is_layer(node: Any, inputs: list[tuple[str, list[int]]], constants: frozenset[str]) -> bool:
    """Whether the second operand is a constant, by its name or because ONNX Runtime has packed it: not listed then."""
    if node.input[1] in constants:
        return True
    return len(inputs) < len([name for name in node.input if name]) or len(inputs) == 1


def settings(node: Any, width: tuple[int, int]) -> str:
    """What of a layer's attributes decides its time, beside its sizes."""
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    grouped = "" if group == 1 else "depthwise" if group == width[0] == width[1] else f"group {group}"
    return " ".join(filter(None, [attributes(node, _WITHOUT_MEANING), grouped]))


def _fused(node: Any) -> list[str]:
    """A convolution with a fourth operand adds it to its result."""
    return ["with residual"] * (len(node.input) > 3 and bool(node.input[3]))


def places(shape: Sequence[int], axis: int) -> str:
    """All sizes but the channels'."""
    return "x".join(str(size) for k, size in enumerate(shape) if k != axis % len(shape))


def _window(shape: list[int]) -> str:
    return "to " + "x".join(map(str, shape[2:]))


def attributes(node: Any, without: tuple[str, ...] = ("channels",)) -> str:
    """A node's attributes as text, sorted."""
    import onnx

    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name not in without}
    return " ".join(f"{name} {_text(value)}" for name, value in sorted(values.items()) if _text(value))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "x".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return value.decode() if isinstance(value, bytes) else f"{value:g}" if isinstance(value, float) else str(value)
