"""Operators that make tensors from sizes, and writes of one tensor into a slice of another."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from ...graph import rebind
from ..axes import Axes, is_static, tracked, untracked
from .call import Call, OperatorRule, Result, Rewrite
from .indexing import is_tracked
from .joining import collapse_unlike

_LARGEST_TRACKED = 2**20
_NUMBERS = {"zeros": 0.0, "ones": 1.0, "new_zeros": 0.0, "new_ones": 1.0, "full": None, "new_full": None}


def filled(call: Call) -> Result:
    """A tensor of one number: its static axes are channels of its own, free to be cut."""
    if "self" in call.arguments:
        call.only_shape("self")
    number = _NUMBERS[call.operator.removeprefix("aten::")]
    fill = call["fill_value"] if number is None else number
    if isinstance(fill, Node):
        return call.opaque("a fill with a computed number")
    static = int(np.prod([size for size in call.shape if is_static(size)], dtype=np.int64))
    axes: Axes = untracked(call.shape)
    if static <= _LARGEST_TRACKED:
        axes = tuple(tracked([s])[0] if is_static(s) else untracked([s])[0] for s in call.shape)
    shape = [f.size for axis in axes for f in axis if f.tracked]
    return call.flow.source(axes, np.full(shape, float(fill)))


def positions(call: Call) -> Result:
    """`arange` of a dynamic size: numbers of positions, no channels."""
    return call.flow.source(untracked(call.shape), None)


def rewrite_filled(rewrite: Rewrite) -> None:
    value = rewrite.value_of(rewrite.node)
    if rewrite.kept.changed(value):
        sizes = rewrite.kept.axis_sizes(value)
        given = rewrite.arguments["size"]
        rebind(rewrite.node, size=[s if is_static(s) else g for s, g in zip(sizes, given, strict=True)])


def slice_scatter(call: Call) -> Result:
    """Positions of one tensor, or a single one, overwritten by another: channels meet and join."""
    dim, (target, source) = call["dim"] % len(call.shape), (call.value("self"), call.value("src"))
    if call.operator == "aten::select_scatter":
        source = call.flow.reinterpret(source, (*source.axes[:dim], (), *source.axes[dim:]))
    values = [target, source]
    if any(is_tracked(v, dim) for v in values):
        return call.opaque("a write into a slice of channels", live=False)
    target, source = collapse_unlike(values, dim, call)
    positions = [np.arange(v.size).reshape(v.shape) for v in (target, source)]
    return call.flow.merge([target, source], target.axes, positions)


RULES: dict[str, OperatorRule] = {
    **{f"aten::{name}": OperatorRule(filled, rewrite_filled) for name in _NUMBERS},
    "aten::arange": OperatorRule(positions),
    "aten::slice_scatter": OperatorRule(slice_scatter),
    "aten::select_scatter": OperatorRule(slice_scatter),
}
