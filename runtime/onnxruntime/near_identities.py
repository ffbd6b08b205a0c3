"""Terms that nearly do nothing, as the 1e-8 of a norm: the exporter's optimiser drops them, and a row of zeros is NaN.

It takes scalars within 1e-8 of zero for zero and within 1e-5 of one for one, but scalars only: what is to stay becomes
a vector of one number. (onnxscript's `_no_op` rules, as of 0.7.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}
_RELATIVE, _ABSOLUTE = 1e-4, 1e-7  # ten times what the optimiser allows


def keep_near_identities(model: ir.Model) -> None:
    """Prepare a model that has not been optimised, in place: its constants are folded, the results are the same."""
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    for node in list(model.graph.all_nodes()):
        neutral = _NEUTRAL.get(node.op_type) if node.domain == "" else None
        for place, value in enumerate(node.inputs):
            if neutral is not None and value is not None and _is_near(value, neutral):
                _give_vector(node, place, value)


def _is_near(value: ir.Value, neutral: float) -> bool:
    """Whether it is a floating-point scalar that is nearly, and not quite, the neutral one."""
    constant = value.const_value
    if constant is None or constant.size != 1 or len(constant.shape) or not constant.dtype.is_floating_point():
        return False
    number = float(constant.numpy())
    return number != neutral and math.isclose(number, neutral, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _give_vector(node: ir.Node, place: int, value: ir.Value) -> None:
    import onnx_ir as ir

    assert node.graph is not None and value.const_value is not None
    vector = ir.node("Constant", [], {"value": ir.tensor(np.reshape(value.const_value.numpy(), (1,)))})
    node.graph.insert_before(node, vector)
    node.replace_input_with(place, vector.outputs[0])
    output = node.outputs[0]
    if output.shape is not None and not len(output.shape):
        _squeeze(node, output)


def _squeeze(node: ir.Node, output: ir.Value) -> None:
    """A scalar stays one behind the vector."""
    import onnx_ir as ir

    assert node.graph is not None
    squeeze = ir.node("Squeeze", [output])
    scalar = squeeze.outputs[0]
    scalar.shape, scalar.type = output.shape, output.type
    output.replace_all_uses_with(scalar, replace_graph_outputs=True)
    squeeze.replace_input_with(0, output)
    scalar.name, output.name = output.name, f"{output.name}_vector"
    output.shape = ir.Shape([1])
    node.graph.insert_after(node, squeeze)
