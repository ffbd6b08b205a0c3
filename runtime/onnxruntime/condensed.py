"""Condensed operators in ONNX files: domain "sparsefx", each also a function of the file.

Where the library of kernels is registered (sparsefx.runtime.custom_op_library), ONNX Runtime runs it; elsewhere
the function's body, which scatters the non-zeros into a dense weight when the file is loaded: as fast as dense. A node
holds `values`, and `gaps` (uint8): from each non-zero to the next in the flattened weight, the first counted from one
place in front of it. A gap that is too long for a byte is bridged by zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...passes import operators  # noqa: F401 - defines torch.ops.sparsefx

DOMAIN = "sparsefx"
_LONGEST = 255
_PIXELS = 196  # of an output image whose size is not known: 14 x 14

_WEIGHT = """
    sizes = Constant <value_ints: ints = @shape> ()
    count = ReduceProd (sizes)
    blank = ConstantOfShape (count)
    steps = Cast <to = 6> (gaps)
    axis = Constant <value_int = 0> ()
    counted = CumSum (steps, axis)
    one = Constant <value = int32 {1}> ()
    places = Sub (counted, one)
    flat = ScatterElements <axis = 0> (blank, places, values)
    weight = Reshape (flat, sizes)
"""
_LINEAR = """
    turned = Transpose <perm = [1, 0]> (weight)
    product = MatMul (x, turned)
    sum = Add (product, bias)
"""
_CONV2D = """
    sum = Conv <strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations, group: int = @group>
        (x, weight, bias)
"""
_ACTIVATIONS = {
    "none": """
    y = Identity (last)
""",
    "relu": """
    y = Relu (last)
""",
    "gelu": """
    root = Constant <value = float {1.41421356}> ()
    scaled = Div (last, root)
    erf = Erf (scaled)
    whole = Constant <value = float {1}> ()
    share = Add (erf, whole)
    weighted = Mul (last, share)
    half = Constant <value = float {0.5}> ()
    y = Mul (weighted, half)
""",
}
_LAYERS = {  # what computes the sum, and the attributes of the node
    "CondensedLinear": (_LINEAR, "shape"),
    "CondensedConv2d": (_CONV2D, "shape, strides, pads, dilations, group, pixels"),
}


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For torch.onnx.export: nodes that hold what the torch operators do, until `complete` makes them final."""
    import onnxscript
    from onnx.defs import OpSchema

    parameter, optional = OpSchema.FormalParameter, OpSchema.FormalParameterOption.Optional
    kinds = OpSchema.AttrType
    opset = onnxscript.values.Opset(DOMAIN, 1)

    def operator(name: str, **attributes: Any) -> onnxscript.values.Op:
        schema = OpSchema(
            name,
            DOMAIN,
            1,
            inputs=[
                *(parameter(n, t) for n, t in (("x", "T"), ("values", "T"), ("columns", "I"), ("starts", "I"))),
                *(parameter(n, "T", param_option=optional) for n in ("bias", "residual")),
            ],
            outputs=[parameter("y", "T")],
            type_constraints=[("T", ["tensor(float)"], ""), ("I", ["tensor(int32)", "tensor(int64)"], "")],
            attributes=[OpSchema.Attribute(n, kind, "") for n, kind in attributes.items()],
        )
        return onnxscript.values.Op(opset, name, schema)

    linear = operator("CondensedLinear", activation=kinds.STRING)
    shape = dict.fromkeys(("kernel", "stride", "padding", "dilation"), kinds.INTS)
    conv2d = operator("CondensedConv2d", **shape, groups=kinds.INT, activation=kinds.STRING)

    def translate_linear(*inputs: Any) -> Any:
        return linear(*inputs[:6], activation=inputs[6])

    def translate_conv2d(*inputs: Any) -> Any:
        return conv2d(*inputs[:6], **dict(zip((*shape, "groups", "activation"), inputs[6:], strict=True)))

    return {
        torch.ops.sparsefx.condensed_linear.default: translate_linear,
        torch.ops.sparsefx.condensed_conv2d.default: translate_conv2d,
    }


def complete(model: Any) -> bool:
    """Give an onnx_ir model's condensed nodes their final form and their functions; tell whether there are any."""
    import onnx
    import onnx_ir

    nodes = [node for node in model.graph if node.domain == DOMAIN]
    bodies: dict[str, str] = {}
    for node in nodes:
        layer, residual = node.op_type, node.inputs[5] if len(node.inputs) > 5 else None
        activation = node.attributes["activation"].as_string()
        name = node_name(layer, residual is not None, activation)
        bodies[name] = _function(name, layer, residual is not None, activation, model.opset_imports[""])
        _replace(model, node, name, residual)
    for text in bodies.values():
        function = onnx_ir.serde.deserialize_function(onnx.parser.parse_function(text))
        model.functions[function.identifier()] = function
    return bool(nodes)


def _function(name: str, layer: str, residual: bool, activation: str, opset: int) -> str:
    """A function in ONNX's text form."""
    sum_of, attributes = _LAYERS[layer]
    last = "sum"
    steps = [_WEIGHT, sum_of]
    if residual:
        steps.append(f"    total = Add ({last}, residual)\n")
        last = "total"
    steps.append(_ACTIVATIONS[activation].replace("last", last))
    inputs = "x, values, gaps, bias" + (", residual" if residual else "")
    head = f'<opset_import: ["": {opset}], domain: "{DOMAIN}">\n{name} <{attributes}> ({inputs}) => (y)\n'
    return head + "{" + "".join(steps) + "}"


def _replace(model: Any, node: Any, name: str, residual: Any) -> None:
    import onnx_ir

    x, values, columns, starts = node.inputs[:4]
    bias = node.inputs[4] if len(node.inputs) > 4 else None
    outputs = len(starts.const_value.numpy()) - 1
    settings = _settings(node, outputs, x.shape[-1] if "Linear" in name else x.shape[1])
    padded, gaps = to_gaps(
        values.const_value.numpy(), columns.const_value.numpy(), starts.const_value.numpy(), settings["shape"]
    )
    constants: list[tuple[str, NDArray[Any]]] = [("values", padded), ("gaps", gaps)]
    if bias is None:
        constants.append(("bias", np.zeros(outputs, np.float32)))
    made = {}
    for part, array in constants:
        made[part] = onnx_ir.Value(name=f"{node.outputs[0].name}_{part}", const_value=onnx_ir.tensor(array))
        model.graph.initializers[made[part].name] = made[part]
    inputs = [x, made["values"], made["gaps"], bias or made["bias"], *([residual] if residual is not None else [])]
    attributes = [
        onnx_ir.AttrInt64s(k, v) if isinstance(v, list) else onnx_ir.AttrInt64(k, v) for k, v in settings.items()
    ]
    new = onnx_ir.Node(DOMAIN, name, inputs, attributes, name=node.name, num_outputs=1)
    old = node.outputs[0]
    new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = old.name, old.type, old.shape
    onnx_ir.convenience.replace_nodes_and_values(model.graph, node, [node], [new], [old], [new.outputs[0]])
    for value in (values, columns, starts):
        if not value.uses() and value.name in model.graph.initializers:
            del model.graph.initializers[value.name]


def _settings(node: Any, outputs: int, inputs: int) -> dict[str, Any]:
    """The final attributes, from those of the torch operator."""
    if node.op_type == "CondensedLinear":
        return node_attributes([outputs, int(inputs)])
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    sizes = [size for size in node.outputs[0].shape[2:] if isinstance(size, int)]
    return node_attributes(
        [outputs, int(inputs) // given["groups"], *given["kernel"]],
        given["stride"],
        given["padding"],
        given["dilation"],
        given["groups"],
        int(np.prod(sizes)) if len(sizes) == 2 else _PIXELS,
    )


def node_name(layer: str, residual: bool, activation: str) -> str:
    """The operator of a layer ("CondensedLinear", "CondensedConv2d") with what is fused into it."""
    return layer + ("Add" if residual else "") + {"none": "", "relu": "Relu", "gelu": "Gelu"}[activation]


def node_attributes(
    shape: list[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (),
    dilation: Sequence[int] = (),
    groups: int = 1,
    pixels: int = _PIXELS,
) -> dict[str, Any]:
    """Attributes of a node whose dense weight has this shape; padding is (height, width), on both sides."""
    if len(shape) == 2:
        return {"shape": shape}
    return {
        "shape": shape,
        "strides": list(stride),
        "pads": list(padding) * 2,
        "dilations": list(dilation),
        "group": groups,
        "pixels": pixels,
    }


def to_gaps(
    values: NDArray[np.float32], columns: NDArray[Any], starts: NDArray[Any], shape: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Values with zeros put in, and the gap in front of each. A weight without non-zeros holds one zero."""
    row_length = int(np.prod(shape[1:]))
    rows = np.repeat(np.arange(shape[0]), np.diff(starts))
    if len(values) == 0:
        return np.zeros(1, np.float32), np.ones(1, np.uint8)
    gaps = np.diff(rows * row_length + columns.astype(np.int64), prepend=-1)
    bridges = (gaps - 1) // _LONGEST  # zeros in front of each value
    ends = np.cumsum(bridges + 1) - 1
    padded, steps = np.zeros(ends[-1] + 1, np.float32), np.full(ends[-1] + 1, _LONGEST, np.uint8)
    padded[ends], steps[ends] = values, gaps - bridges * _LONGEST
    return padded, steps
