"""Operators that join tensors along an axis or extend one: cat, stack, padding."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from ...graph import rebind
from ..arrays import Mask
from ..axes import untracked
from ..transfer import Effect, Value
from .call import Call, OperatorRule, Result, Rewrite
from .indexing import (
    along,
    axis_mask,
    is_static_axis,
    is_tracked,
    tracked_axis,
    tracked_before,
    with_axis,
    with_untracked_axis,
)


def cat(call: Call) -> Result:
    """Concatenation. Of channels: their indices follow each other. Of positions: channels meet and join."""
    dim = call["dim"] % len(call.shape)
    values = collapse_unlike([call.value_of(n) for n in call["tensors"]], dim, call)
    single_channels = dim > 0 and len(values) > 1 and all(v.axes[dim] == () for v in values)
    if not single_channels and not any(is_tracked(v, dim) for v in values):
        return call.flow.merge(
            values,
            with_untracked_axis(values[0], dim, call.shape[dim]),
            [np.arange(v.size).reshape(v.shape) for v in values],
        )
    if not all(is_static_axis(v, dim) for v in values):
        return call.opaque("a concatenation of channels with a dynamic axis", live=False)
    first = tracked_before(values[0], dim)
    positions = [along(v, dim) for v in values]
    owner = np.concatenate([np.full(p.shape, k) for k, p in enumerate(positions)], axis=first)
    axes = with_axis(values[0], dim, tracked_axis(call.shape[dim]))
    value = call.flow.select(values, axes, owner, np.concatenate(positions, axis=first))
    if first:
        call.flow.require_product(value)
    return value


def collapse_unlike(values: list[Value], dim: int, call: Call) -> list[Value]:
    """The operands, tracking on axes other than `dim` only what all of them track alike."""
    alike = [all(v.axes[j] == values[0].axes[j] for v in values) for j in range(len(call.shape))]
    return [
        call.flow.collapse(v, [alike[j] or j == dim for j, axis in enumerate(v.axes) for f in axis if f.tracked])
        for v in values
    ]


def rewrite_cat(rewrite: Rewrite) -> None:
    """Operands of which nothing is left are dropped."""
    tensors = rewrite.arguments["tensors"]
    left = [n for n in tensors if rewrite.kept.any(rewrite.value_of(n))]
    if len(left) < len(tensors):
        rebind(rewrite.node, tensors=left)


def pad(call: Call) -> Result:
    """Zeros around positions make constants positional; padding channels are constants of their own."""
    operand = call.value("self")
    pads = call.arguments.get("pad") or call["padding"]
    mode = call.arguments.get("mode", "constant" if "value" in call.arguments else "reflect")
    fill = float(call["value"] or 0.0) if mode == "constant" else 0.0
    amounts = _amounts(pads, len(operand.axes))
    channel_dims = [dim for dim in amounts if is_tracked(operand, dim)]
    literal = all(isinstance(p, int) for dim in channel_dims for p in amounts[dim])
    if channel_dims and (
        mode != "constant" or not literal or not all(is_static_axis(operand, d) for d in channel_dims)
    ):
        return call.opaque(f"padding of channels (mode {mode})", live=False)
    positions = {dim: pair for dim, pair in amounts.items() if dim not in channel_dims}
    if positions:
        operand = _pad_positions(call, operand, positions, zeros=mode == "constant", fill=fill)
    for dim in channel_dims:
        operand = _pad_channels(call, operand, dim, amounts[dim], fill)
    return call.flow.reinterpret(operand, operand.axes)


def _amounts(pads: list[int], rank: int) -> dict[int, tuple[int, int]]:
    """(before, after) per padded axis; the list counts axes from the last."""
    pairs = {rank - 1 - i: (pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2)}
    return {dim: pair for dim, pair in pairs.items() if pair != (0, 0)}


def _pad_positions(call: Call, operand: Value, pairs: dict[int, tuple[int, int]], *, zeros: bool, fill: float) -> Value:
    axes = tuple(untracked([call.shape[j]])[0] if j in pairs else axis for j, axis in enumerate(operand.axes))
    moved = call.flow.reinterpret(operand, axes)
    grows = any(isinstance(p, Node) or p > 0 for pair in pairs.values() for p in pair)
    if not (zeros and grows):
        return moved
    sizes = [call.shape[j] if j in pairs else size for j, size in enumerate(call.shape_of("self"))]
    shifted = call.flow.elementwise([moved], sizes, lambda c: c[0] - fill, effect=Effect.BORDER)
    return call.flow.elementwise([shifted], sizes, lambda c: c[0] + fill)


def _pad_channels(call: Call, operand: Value, dim: int, pair: tuple[int, int], fill: float) -> Value:
    first, positions = tracked_before(operand, dim), along(operand, dim)
    size = positions.shape[first]
    indices = np.arange(-pair[0], size + pair[1])
    inside = (indices >= 0) & (indices < size)
    position = np.take(positions, np.clip(indices, 0, size - 1), axis=first)
    along_axis = [-1 if d == first else 1 for d in range(position.ndim)]
    owner = np.broadcast_to(np.where(inside, 0, -1).reshape(along_axis), position.shape)
    value = call.flow.select([operand], with_axis(operand, dim, tracked_axis(indices.size)), owner, position, fill)
    if first:
        call.flow.require_product(value)
    return value


def rewrite_pad(rewrite: Rewrite) -> None:
    """Padding channels that stay are counted anew."""
    operand, value = rewrite.value_of(rewrite.arguments["self"]), rewrite.value_of(rewrite.node)
    pads = list(rewrite.arguments["pad"])
    for dim, (before, after) in _amounts(pads, len(operand.axes)).items():
        if not is_tracked(operand, dim):
            continue
        inner, outer = axis_mask(rewrite.kept, operand, dim), axis_mask(rewrite.kept, value, dim)
        i = 2 * (len(operand.axes) - 1 - dim)
        pads[i] = _kept_padding(outer, inner, before)
        pads[i + 1] = _kept_padding(outer[::-1], inner[::-1], after)
    if pads != rewrite.arguments["pad"]:
        rebind(rewrite.node, pad=pads)


def _kept_padding(outer: Mask, inner: Mask, amount: int) -> int:
    """Kept padding channels at the front; for a crop, minus the kept channels that are cropped away."""
    return int(outer[:amount].sum()) if amount >= 0 else -int(inner[:-amount].sum())


RULES: dict[str, OperatorRule] = {
    "aten::cat": OperatorRule(cat, rewrite_cat),
    "aten::pad": OperatorRule(pad, rewrite_pad),
    "aten::constant_pad_nd": OperatorRule(pad, rewrite_pad),
    **{f"aten::{kind}_pad{n}d": OperatorRule(pad) for kind in ("reflection", "replication") for n in (1, 2, 3)},
}
