"""Condensed operators in ONNX files as nodes of our TensorRT plugins.

    CondensedLinear_plugin, CondensedConv2d_plugin (with _Add: a residual behind the bias)
    inputs      x, values, columns (int32), starts (int32), bias, residual
    attributes  activation (0 none, 1 ReLU, 2 GELU), and the window of a convolution

There is no function behind them: only a TensorRT that has the plugins takes such a file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.cuda.pack import packed_columns
from ..kernels.layers import ACTIVATIONS
from ..onnxruntime.condensed import DOMAIN

NAMESPACE = DOMAIN
LINEAR, CONV2D = "CondensedLinear", "CondensedConv2d"
_PAIRS = ("kernel", "stride", "padding", "dilation")


def plugin_name(layer: str, residual: bool) -> str:
    return f"{layer}_plugin" + ("_Add" if residual else "")


def complete(model: Any) -> bool:
    """Give an onnx_ir model's condensed nodes the form of our plugins; tell whether there are any.

    Raises TargetError where a convolution is too large for them.
    """
    nodes = [node for node in model.graph if node.domain == DOMAIN]
    for node in nodes:
        _replace(model, node)
    return bool(nodes)


def _replace(model: Any, node: Any) -> None:
    import onnx_ir

    x, values, columns, starts = node.inputs[:4]
    bias = node.inputs[4] if len(node.inputs) > 4 else None
    residual = node.inputs[5] if len(node.inputs) > 5 else None
    rows: NDArray[Any] = starts.const_value.numpy()
    attributes = {"activation": ACTIVATIONS[node.attributes["activation"].as_string()]}
    constants = {"columns": columns.const_value.numpy().astype(np.int32), "starts": rows.astype(np.int32)}
    if bias is None:
        constants["bias"] = np.zeros(len(rows) - 1, np.float32)
    if node.op_type == CONV2D:
        groups, kernel = node.attributes["groups"].as_int(), tuple(node.attributes["kernel"].value)
        shape = (len(rows) - 1, int(x.shape[1]) // groups, *kernel)
        constants["columns"] = packed_columns(constants["columns"], rows, shape, groups)
        for name in _PAIRS:
            attributes |= dict(zip((f"{name}_height", f"{name}_width"), node.attributes[name].value, strict=True))
    made = {}
    for part, array in constants.items():
        made[part] = onnx_ir.Value(name=f"{node.outputs[0].name}_{part}", const_value=onnx_ir.tensor(array))
        model.graph.initializers[made[part].name] = made[part]
    inputs = [x, values, made["columns"], made["starts"], bias or made["bias"], *([residual] if residual else [])]
    told = [onnx_ir.AttrInt64(name, number) for name, number in attributes.items()]
    told += [onnx_ir.AttrString("plugin_namespace", NAMESPACE), onnx_ir.AttrString("plugin_version", "1")]
    name = plugin_name(node.op_type, residual is not None)
    new, old = onnx_ir.Node(DOMAIN, name, inputs, told, name=node.name, num_outputs=1), node.outputs[0]
    new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = old.name, old.type, old.shape
    onnx_ir.convenience.replace_nodes_and_values(model.graph, node, [node], [new], [old], [new.outputs[0]])
    for value in (columns, starts):
        if not value.uses() and value.name in model.graph.initializers:
            del model.graph.initializers[value.name]
