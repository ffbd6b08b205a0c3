"""Operators that treat every position alike: arithmetic, activations, casts, normalisation per channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.fx import Node

from ...graph import tensor_meta
from ..arrays import Constants
from ..axes import Axes, axis_size
from ..transfer import LIVE, Value
from .call import Call, OperatorRule, Result, evaluate

# Operand positions whose zero makes the result zero whatever the others are (finite values assumed).
_ANNIHILATORS = {"aten::mul": (0, 1), "aten::div": (0,), "aten::logical_and": (0, 1), "aten::bitwise_and": (0, 1)}


# Functions that are finite for all finite operands; what is not listed may leave its domain or overflow.
_TOTAL = (
    "abs", "add", "addcmul", "atan", "bitwise_and", "bitwise_not", "bitwise_or", "ceil", "celu", "clamp",
    "clamp_max", "clamp_min", "cos", "elu", "eq", "erf", "floor", "ge", "gelu", "gt", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "le", "leaky_relu", "lerp", "log_sigmoid", "logical_and", "logical_not", "logical_or",
    "lt", "masked_fill", "max", "maximum", "min", "minimum", "mish", "mul", "ne", "neg", "relu", "relu6", "round",
    "rsub", "selu", "sigmoid", "sign", "silu", "sin", "softplus", "softshrink", "sub", "tanh", "threshold", "trunc",
    "where", "_to_copy", "to", "_prelu_kernel",
)  # fmt: skip


def is_pointwise(target: object) -> bool:
    """Whether torch itself tags the operator as element-wise and deterministic."""
    tags = getattr(target, "tags", ())
    return torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags


def pointwise(call: Call) -> Result:
    """Any element-wise operator: run on constants as it stands."""
    nodes = list(dict.fromkeys(call.operands()))
    annihilators = _ANNIHILATORS.get(call.operator, ()) if len(nodes) == 2 else ()
    if call.node.args and len(nodes) == 2 and call.node.args[0] is not nodes[0]:
        annihilators = ()
    return call.flow.elementwise(
        [call.value_of(n) for n in nodes],
        call.shape,
        evaluate(call, nodes),
        annihilators=annihilators,
        unknown=LIVE,
        total=call.operator.removeprefix("aten::") in _TOTAL or (call.operator == "aten::div" and len(nodes) == 1),
    )


def where(call: Call) -> Result:
    """A choice between two operands; where the condition is constant, it is one of them."""
    condition = call.flow.elementwise([call.value("condition")], call.shape_of("condition"), lambda c: c[0] != 0)
    return _choose(call, condition, _number_or_value(call, call["self"]), _number_or_value(call, call["other"]))


def masked_fill(call: Call) -> Result:
    condition = call.flow.elementwise([call.value("mask")], call.shape_of("mask"), lambda c: c[0] != 0)
    return _choose(call, condition, _number_or_value(call, call["value"]), call.value("self"))


def _choose(call: Call, condition: Value, chosen: Value, otherwise: Value) -> Value:
    """condition * chosen + (1 - condition) * otherwise, for finite values."""
    flow, shape = call.flow, call.shape
    inverse = flow.elementwise([condition], [axis_size(axis) for axis in condition.axes], lambda c: 1.0 - c[0])
    first = flow.elementwise([condition, chosen], shape, _product, annihilators=(0, 1))
    second = flow.elementwise([inverse, otherwise], shape, _product, annihilators=(0, 1))
    return flow.elementwise([first, second], shape, lambda c: c[0] + c[1])


def _number_or_value(call: Call, argument: float | Node) -> Value:
    if isinstance(argument, Node):
        return call.value_of(argument)
    return call.flow.source((), np.array(float(argument)))


def identity(call: Call) -> Result:
    """The first operand's values unchanged; a second one only lends its shape or type."""
    operand = call.value_of(call.operands()[0])
    value = call.flow.elementwise([operand], call.shape, _first)
    value.sums_to_one = operand.sums_to_one
    return value


def type_as(call: Call) -> Result:
    """A cast to the type of another tensor."""
    call.only_shape("other")
    return identity(call)


def dropout(call: Call) -> Result:
    return call.opaque("dropout in training mode") if call["train"] else identity(call)


def copy_source(call: Call) -> Result:
    """`copy`: the second operand's values in the first one's shape."""
    values = [call.value("self"), call.value("src")]
    return call.flow.elementwise(values, call.shape, lambda constants: constants[1], unknown=LIVE)


def fill_like(call: Call) -> Result:
    """`zeros_like` and friends: a constant in the shape of the operand, whose values do not matter."""
    number: float | Node | None = {"aten::ones_like": 1.0}.get(call.operator, 0.0)
    if "fill_value" in call.arguments or "value" in call.arguments:
        number = call.arguments.get("fill_value", call.arguments.get("value"))
    if number is None or (isinstance(number, Node) and tensor_meta(number) is None):
        return call.opaque("a fill with a computed number")
    shaped = call.flow.elementwise([call.value_of(call.operands()[0])], call.shape, _first)
    zero = call.flow.source((), np.zeros(()))
    annihilated = call.flow.elementwise([shaped, zero], call.shape, lambda c: c[0] * c[1], annihilators=(0, 1))
    return call.flow.elementwise([annihilated, _number_or_value(call, number)], call.shape, lambda c: c[0] + c[1])


def prelu(call: Call) -> Result:
    """The slope has one entry, or one per channel on axis 1."""
    slope = on_axis(call, "weight", 1, len(call.shape))
    return call.flow.elementwise(
        [call.value("self"), slope], call.shape, lambda c: np.where(c[0] > 0, c[0], c[0] * c[1])
    )


def batch_norm(call: Call) -> Result:
    """Inference batch normalisation: an affine function per channel; a zero scale leaves the shift."""
    flow, rank = call.flow, len(call.shape)
    eps = call["eps"]
    if call.arguments.get("training") or any(call[k] is None for k in ("running_mean", "running_var")):
        return call.opaque("batch normalisation by the batch's own statistics")
    mean, variance = on_axis(call, "running_mean", 1, rank), on_axis(call, "running_var", 1, rank)
    normalised = flow.elementwise(
        [call.value("input"), mean, variance], call.shape, lambda c: (c[0] - c[1]) / np.sqrt(c[2] + eps)
    )
    value = _affine(call, normalised)
    return value if len(call.shapes) == 1 else (value, None, None)


def instance_norm(call: Call) -> Result:
    """Each channel of each sample by its own statistics: a uniform channel becomes zero, then the shift."""
    if not call["use_input_stats"]:
        return batch_norm(call)
    operand = call.value("input")
    if any(f.tracked for axis in operand.axes[2:] for f in axis):
        return call.opaque("instance_norm over channels", live=False)
    normalised = call.flow.elementwise([operand], call.shape, lambda c: np.zeros_like(c[0]))
    return _affine(call, normalised)


def _affine(call: Call, normalised: Value) -> Value:
    rank = len(call.shape)
    if call["weight"] is not None:
        scale = on_axis(call, "weight", 1, rank)
        normalised = call.flow.elementwise([normalised, scale], call.shape, _product, annihilators=(0, 1))
    if call["bias"] is not None:
        shift = on_axis(call, "bias", 1, rank)
        normalised = call.flow.elementwise([normalised, shift], call.shape, lambda c: c[0] + c[1])
    return normalised


def on_axis(call: Call, name: str, axis: int, rank: int) -> Value:
    """A one-dimensional argument laid along `axis` of a tensor of `rank` dimensions."""
    value = call.value(name)
    axes: Axes = tuple(value.axes[0] if j == axis else () for j in range(rank))
    return call.flow.reinterpret(value, axes)


def _first(constants: Sequence[Constants]) -> Constants:
    return constants[0]


def _product(constants: Sequence[Constants]) -> Constants:
    return constants[0] * constants[1]


_IDENTITIES = (
    "alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "resolve_conj", "resolve_neg",
)  # fmt: skip
_UNTAGGED_POINTWISE = (
    "_to_copy", "to", "hardswish", "floor_divide", "log_sigmoid", "rsub", "relu6", "selu", "float_power",
    "__and__", "__or__", "__xor__",
)  # fmt: skip

RULES: dict[str, OperatorRule] = {
    **{f"aten::{name}": OperatorRule(identity) for name in _IDENTITIES},
    **{f"aten::{name}": OperatorRule(pointwise) for name in _UNTAGGED_POINTWISE},
    **{f"aten::{name}": OperatorRule(fill_like) for name in ("zeros_like", "ones_like", "full_like", "fill", "zero")},
    "aten::type_as": OperatorRule(type_as),
    "aten::where": OperatorRule(where),
    "aten::masked_fill": OperatorRule(masked_fill),
    "aten::dropout": OperatorRule(dropout),
    "aten::feature_dropout": OperatorRule(dropout),
    "aten::alpha_dropout": OperatorRule(dropout),
    "aten::copy": OperatorRule(copy_source),
    "aten::prelu": OperatorRule(prelu),
    "aten::_prelu_kernel": OperatorRule(pointwise),
    "aten::batch_norm": OperatorRule(batch_norm),
    "aten::_native_batch_norm_legit_no_training": OperatorRule(batch_norm),
    "aten::instance_norm": OperatorRule(instance_norm),
}
