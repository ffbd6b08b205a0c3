"""Condensed operators as functions of an ONNX file whose bodies gather, for engines on NVIDIA devices.

A node of the domain "sparsefx" holds `values` (outputs, k) and `places` (outputs, k, int32): for each output its
non-zeros and where their inputs are, filled up with zeros to the largest fan-in. The body gathers those inputs,
multiplies and sums in float32. TensorRT-RTX fuses this into one node without an intermediate tensor of products, at
batch 1 and above. A convolution first lays its shifted inputs side by side along the channels, so that its places
count channel by channel through the first position of the kernel, then through the second, and so on.

The other form, which scatters the non-zeros into a dense weight (runtime/onnxruntime/condensed.py), is folded when
ONNX Runtime loads it; TensorRT-RTX does not fold it and would scatter at every run.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..latency.node import EngineNode
from ..onnxruntime.condensed import DOMAIN
from ..onnxruntime.engine_nodes import places
from ..onnxruntime.layer_models import LayerForm

_TO_THE_END = 2**31 - 1
LINEAR_NAME = "GatherLinear"
_LINEAR = """
    here = Gather <axis = -1> (x, places)
    wide = Cast <to = 1> (here)
    factors = Cast <to = 1> (values)
    products = Mul (wide, factors)
    over = Constant <value_ints = [-1]> ()
    sums = ReduceSum <keepdims = 0> (products, over)
    added = Cast <to = 1> (bias)
    sum = Add (sums, added)
"""
_CONV2D = """
    here = Gather <axis = 1> (shifted, places)
    wide = Cast <to = 1> (here)
    pixels = Constant <value_ints = [2, 3]> ()
    spread = Unsqueeze (values, pixels)
    factors = Cast <to = 1> (spread)
    products = Mul (wide, factors)
    over = Constant <value_ints = [2]> ()
    sums = ReduceSum <keepdims = 0> (products, over)
    behind = Constant <value_ints = [1, 2]> ()
    column = Unsqueeze (bias, behind)
    added = Cast <to = 1> (column)
    sum = Add (sums, added)
"""
_RESIDUAL = """
    other = Cast <to = 1> (residual)
    total = Add (last, other)
"""
_ACTIVATIONS = {
    "none": """
    active = Identity (last)
""",
    "relu": """
    active = Relu (last)
""",
    "gelu": """
    root = Constant <value = float {1.41421356}> ()
    scaled = Div (last, root)
    erf = Erf (scaled)
    whole = Constant <value = float {1}> ()
    share = Add (erf, whole)
    weighted = Mul (last, share)
    half = Constant <value = float {0.5}> ()
    active = Mul (weighted, half)
""",
}


@dataclass(frozen=True)
class _Window:
    """How a convolution's kernel goes over its input."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    patches: bool = False  # cuts an image of known size into whole patches, as vision transformers begin

    @property
    def name(self) -> str:
        if self.patches:
            return f"patches_{self.kernel[0]}"
        return "_".join(f"{a}x{b}" for a, b in (self.kernel, self.stride, self.padding, self.dilation))


def complete(model: Any) -> bool:
    """Give an onnx_ir model's condensed nodes their final form and their functions; tell whether there are any."""
    import onnx
    import onnx_ir

    nodes = [node for node in model.graph if node.domain == DOMAIN]
    bodies: dict[str, str] = {}
    for node in nodes:
        window, residual = _window(node), node.inputs[5] if len(node.inputs) > 5 else None
        activation = node.attributes["activation"].as_string()
        name = _name(window, residual is not None, activation)
        bodies[name] = _function(name, window, residual is not None, activation, model.opset_imports[""])
        _replace(model, node, name, window, residual)
    for text in bodies.values():
        function = onnx_ir.serde.deserialize_function(onnx.parser.parse_function(text))
        model.functions[function.identifier()] = function
    return bool(nodes)


def has_condensed_layers(model: Path) -> bool:
    """Whether an ONNX file has nodes of ours."""
    import onnx

    return any(node.domain == DOMAIN for node in onnx.load(str(model), load_external_data=False).graph.node)


def function_name(form: LayerForm) -> str:
    """What the function of a layer is called."""
    window = None
    if form.window is not None:
        kernel, stride, padding, dilation = (
            (int(pair[0]), int(pair[1]))
            for pair in (form.weight.shape[2:], form.window.stride, form.window.padding, form.window.dilation)
        )
        window = _Window(kernel, stride, padding, dilation)
        window = dataclasses.replace(window, patches=_cuts_patches(window, form.input_shape))
    return _name(window, form.residual, form.activation)


def condensed_node(name: str, function: str, given: Sequence[int], made: Sequence[int], fan_in: int) -> EngineNode:
    """A condensed layer as a latency table knows it: by the shapes of its input and result, and its largest fan-in."""
    axis = -1 if function.startswith(LINEAR_NAME) else 1
    key = f"{function}, {places(given, axis)} with {given[axis]} to {places(made, axis)}"
    return EngineNode(name, key, (fan_in, made[axis]), name or None)


def _window(node: Any) -> _Window | None:
    """None for a linear layer."""
    if node.op_type == "CondensedLinear":
        return None
    kernel, stride, padding, dilation = (
        tuple(node.attributes[key].value) for key in ("kernel", "stride", "padding", "dilation")
    )
    window = _Window(kernel, stride, padding, dilation)
    return dataclasses.replace(window, patches=_cuts_patches(window, node.inputs[0].shape))


def _cuts_patches(window: _Window, shape: Any) -> bool:
    side, (height, width) = window.kernel[0], shape[2:]
    plain = window.kernel == window.stride == (side, side) and window.padding == (0, 0) and window.dilation == (1, 1)
    return side > 1 and plain and all(isinstance(size, int) and size % side == 0 for size in (height, width))


def _name(window: _Window | None, residual: bool, activation: str) -> str:
    layer = LINEAR_NAME if window is None else f"GatherConv2d_{window.name}"
    return layer + ("_Add" if residual else "") + ("" if activation == "none" else f"_{activation.capitalize()}")


def _function(name: str, window: _Window | None, residual: bool, activation: str, opset: int) -> str:
    """A function in ONNX's text form; it returns the type of `x`."""
    steps = [_LINEAR] if window is None else [*_shifted(window), _CONV2D]
    last = "sum"
    if residual:
        steps.append(_RESIDUAL.replace("last", last))
        last = "total"
    steps.append(_ACTIVATIONS[activation].replace("last", last))
    steps.append("    y = CastLike (active, x)\n")
    inputs = "x, values, places, bias" + (", residual" if residual else "")
    head = f'<opset_import: ["": {opset}], domain: "{DOMAIN}">\n{name} ({inputs}) => (y)\n'
    return head + "{" + "".join(steps) + "}"


def _shifted(window: _Window) -> list[str]:
    """Steps to `shifted`: for each position of the kernel the input that it meets, one after the other by channels."""
    if window.patches:  # a large kernel would need as many slices as it has positions
        return [f"    shifted = SpaceToDepth <blocksize = {window.kernel[0]}> (x)\n"]
    steps, padded = [], "x"
    if any(window.padding):
        pads = [0, 0, *window.padding] * 2
        steps.append(f"    pads = Constant <value_ints = {pads}> ()\n    padded = Pad (x, pads)\n")
        padded = "padded"
    if window.kernel == (1, 1) and window.stride == (1, 1):
        return [*steps, f"    shifted = Identity ({padded})\n"]
    steps.append(
        "    image = Constant <value_ints = [2, 3]> ()\n"
        f"    strides = Constant <value_ints = {list(window.stride)}> ()\n"
    )
    parts = []
    for i, position in enumerate(itertools.product(*map(range, window.kernel))):
        begin = [p * d for p, d in zip(position, window.dilation, strict=True)]
        left = [(k - 1 - p) * d for k, p, d in zip(window.kernel, position, window.dilation, strict=True)]
        end = [-behind if behind else _TO_THE_END for behind in left]
        steps.append(
            f"    begin_{i} = Constant <value_ints = {begin}> ()\n    end_{i} = Constant <value_ints = {end}> ()\n"
            f"    part_{i} = Slice ({padded}, begin_{i}, end_{i}, image, strides)\n"
        )
        parts.append(f"part_{i}")
    return [*steps, f"    shifted = Concat <axis = 1> ({', '.join(parts)})\n"]


def _replace(model: Any, node: Any, name: str, window: _Window | None, residual: Any) -> None:
    import onnx_ir

    x, values, columns, starts = node.inputs[:4]
    bias = node.inputs[4] if len(node.inputs) > 4 else None
    compressed = [v.const_value.numpy() for v in (values, columns, starts)]
    padded, places = to_constant_fan_in(*compressed)
    if window is not None:
        groups = node.attributes["groups"].as_int()
        places = _across_positions(places, int(x.shape[1]), groups, int(np.prod(window.kernel)))
    constants: dict[str, NDArray[Any]] = {"values": padded, "places": places.astype(np.int32)}
    if bias is None:
        constants["bias"] = np.zeros(len(padded), np.float32)
    made = {}
    for part, array in constants.items():
        made[part] = onnx_ir.Value(name=f"{node.outputs[0].name}_{part}", const_value=onnx_ir.tensor(array))
        model.graph.initializers[made[part].name] = made[part]
    inputs = [x, made["values"], made["places"], bias or made["bias"], *([residual] if residual is not None else [])]
    new = onnx_ir.Node(DOMAIN, name, inputs, name=node.name, num_outputs=1)
    old = node.outputs[0]
    new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = old.name, old.type, old.shape
    onnx_ir.convenience.replace_nodes_and_values(model.graph, node, [node], [new], [old], [new.outputs[0]])
    for value in (values, columns, starts):
        if not value.uses() and value.name in model.graph.initializers:
            del model.graph.initializers[value.name]


def to_constant_fan_in(
    values: NDArray[np.float32], columns: NDArray[Any], starts: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compressed rows as values and columns of shape (rows, largest fan-in, at least 1), zeros of column 0 behind."""
    counts = np.diff(starts)
    width = max(1, int(counts.max(initial=0)))
    kept = np.arange(width) < counts[:, None]
    padded, filled = np.zeros(kept.shape, np.float32), np.zeros(kept.shape, np.int64)
    padded[kept], filled[kept] = values, columns
    return padded, filled


def _across_positions(columns: NDArray[np.int64], channels: int, groups: int, positions: int) -> NDArray[np.int64]:
    """Places in the shifted input, from columns that count (channel of the group, position of the kernel)."""
    in_group = channels // groups
    first = np.arange(len(columns)) // (len(columns) // groups) * in_group
    return columns % positions * channels + columns // positions + first[:, None]
