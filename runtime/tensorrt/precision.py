"""Convert an ONNX model from float32 to float16 or bfloat16; what it takes and returns keeps its types.

Every float32 tensor in the file becomes one of the lower precision, and each input and output of the model that is
float32 gets a Cast. Left as they are: (1) inputs of operators that must be float32, the scales of Resize; (2) the
bodies of condensed layers, which sum in float32 whatever they are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...passes.errors import TargetError

if TYPE_CHECKING:
    import onnx_ir

_FIXED_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}  # roi and scales
_LARGEST = {"fp16": 65504.0, "bf16": 3.38e38}
_SMALLEST = {"fp16": 2.0**-25, "bf16": 2.0**-134}  # what is below rounds to zero
_LARGEST_PROTOBUF = 2**31 - 2**24  # bytes; weights of a larger model go to a file of their own
PRECISIONS = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}


@dataclass(frozen=True)
class Conversion:
    """What converting did: tensors converted, weights that became zero, and the largest weight."""

    tensors: int
    lost: int
    largest: float


def convert_precision(source: Path, target: Path, precision: str) -> Conversion:
    """Write the model `source` to `target` in `precision`, fp16 or bf16.

    Raises TargetError, naming the weight, where one is too large for the precision.
    """
    import onnx_ir

    model = onnx_ir.load(str(source))
    low = onnx_ir.DataType[PRECISIONS[precision]]
    kept = _fixed_values(model.graph)
    conversion = _convert_weights(model.graph, low, precision, kept)
    for node in model.graph.all_nodes():
        if node.domain == "":
            _convert_attributes(node, low, kept)
    for value in [v for node in model.graph.all_nodes() for v in node.outputs]:
        if value.dtype == onnx_ir.DataType.FLOAT and value not in kept:
            value.dtype = low
    _cast_inputs(model.graph, low)
    _cast_outputs(model.graph, low)
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    onnx_ir.save(model, str(target), external_data=f"{target.name}.data" if size > _LARGEST_PROTOBUF else None)
    return conversion


def _fixed_values(graph: onnx_ir.Graph) -> set[Any]:
    """Values that operators want in float32."""
    return {
        node.inputs[i]
        for node in graph.all_nodes()
        for i in _FIXED_INPUTS.get(node.op_type, ())
        if i < len(node.inputs) and node.inputs[i] is not None
    }


def _convert_weights(graph: onnx_ir.Graph, low: Any, precision: str, kept: set[Any]) -> Conversion:
    import onnx_ir

    tensors, lost, largest = 0, 0, 0.0
    for value in _weights(graph, kept):
        assert value.const_value is not None
        array = value.const_value.numpy()
        finite = np.abs(array[np.isfinite(array)])
        top = float(finite.max(initial=0.0))
        if top > _LARGEST[precision]:
            raise TargetError(
                f"{value.name} holds {top:.3g}, and {precision} reaches {_LARGEST[precision]:.3g}; "
                f"build with precision {'bf16' if precision == 'fp16' else 'fp32'}"
            )
        tensors, largest = tensors + 1, max(largest, top)
        lost += int(((finite > 0) & (finite <= _SMALLEST[precision])).sum())
        value.const_value = onnx_ir.tensor(array.astype(low.numpy()), dtype=low, name=value.name)
        value.dtype = low
    return Conversion(tensors, lost, largest)


def _weights(graph: onnx_ir.Graph, kept: set[Any]) -> Iterator[onnx_ir.Value]:
    import onnx_ir

    for value in graph.initializers.values():
        if value.dtype == onnx_ir.DataType.FLOAT and value not in kept:
            yield value


def _convert_attributes(node: onnx_ir.Node, low: Any, kept: set[Any]) -> None:
    """Constants inside nodes, and the types that nodes produce."""
    import onnx_ir

    if any(output in kept for output in node.outputs):
        return
    float32 = onnx_ir.DataType.FLOAT
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        if name in ("to", "dtype") and attribute.value == int(float32):
            node.attributes[name] = onnx_ir.AttrInt64(name, int(low))
        elif attribute.type == onnx_ir.AttributeType.TENSOR and attribute.value.dtype == float32:
            tensor = onnx_ir.tensor(attribute.value.numpy().astype(low.numpy()), dtype=low)
            node.attributes[name] = onnx_ir.AttrTensor(name, tensor)
        elif name in ("value_float", "value_floats"):
            tensor = onnx_ir.tensor(np.asarray(attribute.value, low.numpy()), dtype=low)
            del node.attributes[name]
            node.attributes["value"] = onnx_ir.AttrTensor("value", tensor)
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        node.attributes["value"] = onnx_ir.AttrTensor("value", onnx_ir.tensor(np.zeros(1, low.numpy()), dtype=low))


def _cast_inputs(graph: onnx_ir.Graph, low: Any) -> None:
    """Those that are float32 are cast in front of their readers."""
    import onnx_ir

    first = next(iter(graph), None)
    for value in graph.inputs:
        if value.dtype != onnx_ir.DataType.FLOAT or first is None:
            continue
        cast = onnx_ir.node("Cast", [value], {"to": int(low)})
        cast.outputs[0].name, cast.outputs[0].dtype, cast.outputs[0].shape = f"{value.name}_low", low, value.shape
        for use in list(value.uses()):
            use.node.replace_input_with(use.idx, cast.outputs[0])
        cast.replace_input_with(0, value)
        graph.insert_before(first, cast)


def _cast_outputs(graph: onnx_ir.Graph, low: Any) -> None:
    """Those that were float32 are cast back, under their own name."""
    import onnx_ir

    for i, value in enumerate(graph.outputs):
        if value.dtype != low:
            continue
        cast = onnx_ir.node("Cast", [value], {"to": int(onnx_ir.DataType.FLOAT)})
        name, value.name = value.name, f"{value.name}_low"
        cast.outputs[0].name, cast.outputs[0].dtype, cast.outputs[0].shape = name, onnx_ir.DataType.FLOAT, value.shape
        graph.append(cast)
        graph.outputs[i] = cast.outputs[0]
