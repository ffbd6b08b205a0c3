"""Operators that regroup or reorder axes: view, permute, expand and their relatives."""

from __future__ import annotations

import numpy as np

from ...graph import rebind
from ..axes import Axes, Axis, Factor, Size, factors, is_static, refine, regroup, split_axis, untracked
from ..transfer import Value
from .call import Call, OperatorRule, Result, Rewrite


def view(call: Call) -> Result:
    """Factors regrouped. Kept whole where a tracked factor would be cut across, or where two axes would
    each mix a dynamic size with tracked indices, for then the new sizes cannot be written down."""
    operand = call.value_of(call.operands()[0])
    axes = regroup(operand.axes, call.shape)
    if axes is None:
        return call.opaque("a view that cuts across channels", live=False)
    if sum(_is_mixed(axis) for axis in axes) > 1:
        return call.opaque("a view with channels in several dynamic axes", live=False)
    value = call.flow.reinterpret(operand, axes)
    if operand.axes and axes and operand.axes[-1] == axes[-1] and operand is not value:
        value.sums_to_one = operand.sums_to_one
    return value


def rewrite_view(rewrite: Rewrite) -> None:
    """New sizes; -1 stands for the one axis whose dynamic size has changed with the channels."""
    value = rewrite.value_of(rewrite.node)
    if not rewrite.kept.changed(value):
        return
    name = "size" if "size" in rewrite.arguments else "shape"
    given = rewrite.arguments[name]
    sizes = [
        size if is_static(size) else (-1 if _is_mixed(axis) else argument)
        for size, axis, argument in zip(rewrite.kept.axis_sizes(value), value.axes, given, strict=True)
    ]
    rebind(rewrite.node, **{name: sizes})


def rewrite_flatten_like(rewrite: Rewrite) -> None:
    """Operators whose literal sizes split one axis (unflatten)."""
    value = rewrite.value_of(rewrite.node)
    if rewrite.kept.changed(value):
        dim = rewrite.arguments["dim"] % len(value.axes)
        count = len(rewrite.arguments["sizes"])
        rebind(rewrite.node, sizes=rewrite.kept.axis_sizes(value)[dim : dim + count])


def _is_mixed(axis: Axis) -> bool:
    return any(f.tracked for f in axis) and not all(is_static(f.size) for f in axis)


def reorder(call: Call, order: list[int]) -> Value:
    """Axes in another order. Where tracked factors change places, every row must keep the same columns."""
    operand = call.value_of(call.operands()[0])
    numbers = np.cumsum([0, *(sum(f.tracked for f in axis) for axis in operand.axes)])
    tracked_order = [d for j in order for d in range(int(numbers[j]), int(numbers[j + 1]))]
    axes: Axes = tuple(operand.axes[j] for j in order)
    if tracked_order != sorted(tracked_order):
        call.flow.require_product(operand)
    positions = np.transpose(np.arange(operand.size).reshape(operand.shape), tracked_order)
    return call.flow.take(operand, axes, positions)


def permute(call: Call) -> Result:
    rank = len(call.shape)
    return reorder(call, [d % rank for d in call["dims"]])


def transpose(call: Call) -> Result:
    rank = len(call.shape)
    order = list(range(rank))
    a, b = call["dim0"] % rank, call["dim1"] % rank
    order[a], order[b] = order[b], order[a]
    return reorder(call, order)


def matrix_transpose(call: Call) -> Result:
    return reorder(call, list(reversed(range(len(call.shape)))))


def insert_or_drop_axis(call: Call) -> Result:
    """`squeeze` and `unsqueeze`: axes of size 1 come and go, factors stay."""
    operand = call.value_of(call.operands()[0])
    axes = regroup(operand.axes, call.shape)
    return (
        call.opaque("a squeeze of a dynamic axis", live=False) if axes is None else call.flow.reinterpret(operand, axes)
    )


def expand(call: Call) -> Result:
    """Axes of size 1 repeated; the new indices are copies and are not tracked."""
    operand = call.value("self")
    return call.flow.reinterpret(operand, _expanded(operand, call.shape))


def _expanded(operand: Value, shape: tuple[Size, ...]) -> Axes:
    padded = ((),) * (len(shape) - len(operand.axes)) + operand.axes
    return tuple(axis or fresh for axis, fresh in zip(padded, untracked(shape), strict=True))


def rewrite_expand(rewrite: Rewrite) -> None:
    value = rewrite.value_of(rewrite.node)
    if not rewrite.kept.changed(value):
        return
    given = rewrite.arguments["size"]
    sizes = [-1 if any(f.tracked for f in axis) else argument for axis, argument in zip(value.axes, given, strict=True)]
    rebind(rewrite.node, size=sizes)


def repeat(call: Call) -> Result:
    """Whole copies one after the other: the copies share their channels."""
    operand, repeats = call.value("self"), call["repeats"]
    if not all(isinstance(r, int) for r in repeats):
        return call.opaque("a repeat by a dynamic size", live=False)
    padded = ((),) * (len(repeats) - len(operand.axes)) + operand.axes
    axes: Axes = tuple(
        axis if times == 1 else (Factor(times), *axis) for axis, times in zip(padded, repeats, strict=True)
    )
    return call.flow.reinterpret(operand, axes)


def repeat_interleave(call: Call) -> Result:
    """Each index repeated in place along one axis."""
    operand, times, dim = call.value("self"), call["repeats"], call["dim"]
    if dim is None or not isinstance(times, int) or times == 0:
        return call.opaque("a repeat_interleave over a flattened or dynamic axis", live=False)
    dim %= len(operand.axes)
    axes = tuple((*axis, Factor(times)) if j == dim and times > 1 else axis for j, axis in enumerate(operand.axes))
    return call.flow.reinterpret(operand, axes)


def pixel_shuffle(call: Call) -> Result:
    """(C r r, H, W) to (C, H r, W r): the r*r numbers of one output channel are one channel."""
    operand, r = call.value("self"), call["upscale_factor"]
    channel = len(call.shape) - 3
    parts = tuple(Factor(n, True) for n in (call.shape[channel], r, r) if n != 1)
    others = factors(operand.axes[:channel] + operand.axes[channel + 1 :])
    sizes = refine([operand.axes[channel], parts])
    if sizes != [f.size for f in parts] or any(f.tracked for f in others):
        return call.opaque("a pixel shuffle of regrouped channels", live=False)
    split = (*operand.axes[:channel], split_axis(operand.axes[channel], sizes), *operand.axes[channel + 1 :])
    apart = call.flow.reinterpret(operand, split)
    joined = call.flow.collapse(apart, [d == 0 and call.shape[channel] != 1 for d in range(len(apart.shape))])
    fresh = untracked(call.shape)
    first = joined.axes[channel][:1] if call.shape[channel] != 1 else ()
    return call.flow.reinterpret(joined, (*joined.axes[:channel], first, *fresh[channel + 1 :]))


def pixel_unshuffle(call: Call) -> Result:
    """(C, H r, W r) to (C r r, H, W): r*r outputs share a channel."""
    operand, r = call.value("self"), call["downscale_factor"]
    channel = len(call.shape) - 3
    spatial_tracked = any(f.tracked for f in factors(operand.axes[channel + 1 :]))
    if spatial_tracked or any(f.tracked for f in factors(operand.axes[:channel])):
        return call.opaque("a pixel unshuffle of tracked positions", live=False)
    fresh = untracked(call.shape)
    axes = (*fresh[:channel], (*operand.axes[channel], Factor(r * r)), *fresh[channel + 1 :])
    return call.flow.reinterpret(operand, axes)


RULES: dict[str, OperatorRule] = {
    **{
        f"aten::{name}": OperatorRule(view, rewrite_view)
        for name in ("view", "_unsafe_view", "reshape", "_reshape_copy")
    },
    "aten::flatten": OperatorRule(view),
    "aten::unflatten": OperatorRule(view, rewrite_flatten_like),
    "aten::permute": OperatorRule(permute),
    "aten::transpose": OperatorRule(transpose),
    "aten::t": OperatorRule(matrix_transpose),
    "aten::numpy_T": OperatorRule(matrix_transpose),
    "aten::squeeze": OperatorRule(insert_or_drop_axis),
    "aten::unsqueeze": OperatorRule(insert_or_drop_axis),
    "aten::expand": OperatorRule(expand, rewrite_expand),
    "aten::repeat": OperatorRule(repeat),
    "aten::repeat_interleave": OperatorRule(repeat_interleave),
    "aten::pixel_shuffle": OperatorRule(pixel_shuffle),
    "aten::pixel_unshuffle": OperatorRule(pixel_unshuffle),
}
