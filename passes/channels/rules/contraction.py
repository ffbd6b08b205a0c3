"""Convolutions, linear layers, products with a constant matrix, and means over channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...graph import is_constant
from ..axes import untracked
from ..kernel import CONVOLUTION, LINEAR, MATRIX, TRANSPOSED_CONVOLUTION, Kernel, WeightLayout
from ..transfer import Value
from .call import Call, Contraction, OperatorRule, Result
from .indexing import along, is_static_axis, tracked_axis, tracked_before


def _contract(
    call: Call,
    layout: WeightLayout,
    names: tuple[str, str, str | None],
    axis: int,
    *,
    groups: int = 1,
    uniform: bool = True,
) -> Result:
    """Sum over axis `axis` of the operand; `names` are those of operand, weight and bias."""
    operand_name, weight_name, bias_name = names
    weight = call.tensor(weight_name)
    bias_node = call[bias_name] if bias_name else None
    if weight is None or (bias_node is not None and not is_constant(bias_node)):
        return call.opaque("a layer whose weight is computed in the graph")
    operand = call.value(operand_name)
    if not is_static_axis(operand, axis):
        return call.opaque("a layer over a dynamic axis")
    kernel = Kernel(
        weight, call.pattern(weight_name), call.tensor(bias_name) if bias_name else None, layout, groups, uniform
    )
    inputs = channels_of(call, operand, axis)
    sizes = list(call.shape)
    channels = kernel.groups * kernel.outputs
    axes = tuple(tracked_axis(channels) if j == axis else untracked([size])[0] for j, size in enumerate(sizes))
    value = call.flow.contract(inputs, axes, kernel)
    call.trace.record(
        Contraction(call.node, inputs, value, kernel, axis, call[operand_name], call[weight_name], bias_node, bias_name)
    )
    return value


def channels_of(call: Call, operand: Value, axis: int) -> Value:
    """The operand with the indices of one axis as its only dimension."""
    first, count = tracked_before(operand, axis), sum(f.tracked for f in operand.axes[axis])
    keep = [first <= d < first + count for d in range(len(operand.shape))]
    collapsed = call.flow.collapse(operand, keep)
    positions = along(collapsed, axis)
    axes = tuple(tracked_axis(positions.size) if j == axis else other for j, other in enumerate(collapsed.axes))
    return call.flow.take(collapsed, axes, positions.reshape([f.size for a in axes for f in a if f.tracked]))


def convolution(call: Call) -> Result:
    weight = call.tensor("weight")
    if weight is None:
        return call.opaque("a convolution whose weight is computed in the graph")
    dims = weight.ndim - 2
    transposed = "transpose" in call.operator or bool(call.arguments.get("transposed"))
    uniform = _sees_no_border(weight, call.arguments, transposed=transposed)
    return _contract(
        call,
        TRANSPOSED_CONVOLUTION if transposed else CONVOLUTION,
        ("input", "weight", "bias"),
        len(call.shape) - dims - 1,
        groups=call["groups"],
        uniform=uniform,
    )


def _sees_no_border(weight: Tensor, arguments: dict[str, Any], *, transposed: bool) -> bool:
    """Whether every output position sums over all taps."""
    single_tap = all(size == 1 for size in weight.shape[2:])
    if transposed:
        return single_tap and all(s == 1 for s in arguments["stride"]) and not any(arguments["output_padding"])
    padding = arguments["padding"]
    if isinstance(padding, str):
        return padding == "valid" or single_tap
    return all(p == 0 for p in padding)


def linear(call: Call) -> Result:
    weight = call.tensor("weight")
    if weight is None or weight.ndim != 2:
        return call.opaque("a linear layer whose weight is computed in the graph")
    return _contract(call, LINEAR, ("input", "weight", "bias"), len(call.shape) - 1)


def addmm(call: Call) -> Result:
    bias = call.tensor("self")
    if call["beta"] != 1 or call["alpha"] != 1 or bias is None or tuple(bias.shape) != (call.shape[-1],):
        return call.opaque("addmm with scaling or a computed bias")
    return _contract(call, MATRIX, ("mat1", "mat2", "self"), 1)


def matrix_product(call: Call, operand: str, weight: str) -> Result:
    """A product with a constant matrix on the right."""
    return _contract(call, MATRIX, (operand, weight, None), len(call.shape) - 1)


def mean_over_channels(call: Call, operand: Value, dims: Sequence[int]) -> Result:
    """A mean over one channel axis (and any positions): a contraction with equal weights, never folded away."""
    over = [j for j in dims if any(f.tracked for f in operand.axes[j])]
    others = [j for j, axis in enumerate(operand.axes) if j not in over and any(f.tracked for f in axis)]
    if len(over) != 1 or others or not is_static_axis(operand, over[0]):
        return None
    inputs = channels_of(call, operand, over[0])
    equal = torch.full((1, inputs.size), 1.0 / inputs.size, dtype=torch.float64)
    kernel = Kernel(equal, None, None, LINEAR, 1, uniform=True)
    value = call.flow.contract(inputs, untracked(call.shape), kernel)
    call.trace.record(Contraction(call.node, inputs, value, kernel, over[0], call["self"]))
    return value


RULES: dict[str, OperatorRule] = {
    **{f"aten::conv{n}d": OperatorRule(convolution) for n in (1, 2, 3)},
    **{f"aten::conv_transpose{n}d": OperatorRule(convolution) for n in (1, 2, 3)},
    "aten::convolution": OperatorRule(convolution),
    "aten::linear": OperatorRule(linear),
    "aten::addmm": OperatorRule(addmm),
}
