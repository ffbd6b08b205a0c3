"""Operators that pick indices of one axis: slice, select, split, flip, roll, index, embedding."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from ...graph import constant_of, is_constant, rebind, set_constant
from ..axes import untracked
from ..compaction import rank
from ..transfer import Value
from .call import Call, OperatorRule, Result, Rewrite
from .indexing import (
    axis_length,
    axis_mask,
    is_static_axis,
    is_tracked,
    take_along,
    tracked_axis,
    tracked_before,
    with_untracked_axis,
)


def _bounds(arguments: dict[str, Any], total: int) -> tuple[int, int, int]:
    """Start, end and step of a slice over `total` indices, as Python counts them."""
    start, stop, _ = slice(arguments["start"], arguments["end"]).indices(total)
    return start, max(start, stop), arguments["step"]


def slice_axis(call: Call) -> Result:
    operand = call.value("self")
    dim = call["dim"] % len(operand.axes)
    if not is_tracked(operand, dim):
        return call.flow.reinterpret(operand, with_untracked_axis(operand, dim, call.shape[dim]))
    if not is_static_axis(operand, dim) or isinstance(call["start"], Node) or isinstance(call["end"], Node):
        return operand if call.shape == call.shape_of("self") else call.opaque("a slice of channels by a dynamic size")
    total = axis_length(operand, dim)
    start, end, step = _bounds(call.arguments, total)
    if (start, end, step) == (0, total, 1):
        return call.flow.reinterpret(operand, operand.axes)
    if step != 1:
        return call.opaque("a strided slice of channels", live=False)
    return take_along(call, operand, dim, np.arange(start, end), tracked_axis(end - start))


def rewrite_slice(rewrite: Rewrite) -> None:
    operand = rewrite.value_of(rewrite.arguments["self"])
    dim = rewrite.arguments["dim"] % len(operand.axes)
    if not is_tracked(operand, dim) or not rewrite.kept.changed(operand) or not is_static_axis(operand, dim):
        return
    row = axis_mask(rewrite.kept, operand, dim)
    start, end, _ = _bounds(rewrite.arguments, row.size)
    if (start, end) != (0, row.size):
        rebind(rewrite.node, start=rank(row, start), end=rank(row, end))


def select(call: Call) -> Result:
    operand = call.value("self")
    dim = call["dim"] % len(operand.axes)
    if not is_tracked(operand, dim):
        return call.flow.reinterpret(operand, operand.axes[:dim] + operand.axes[dim + 1 :])
    if isinstance(call["index"], Node) or not is_static_axis(operand, dim):
        return call.opaque("a selection of a channel by a dynamic size", live=False)
    picked = take_along(call, operand, dim, np.array([call["index"] % axis_length(operand, dim)]), ())
    return call.flow.reinterpret(picked, picked.axes[:dim] + picked.axes[dim + 1 :])


def rewrite_select(rewrite: Rewrite) -> None:
    operand = rewrite.value_of(rewrite.arguments["self"])
    dim = rewrite.arguments["dim"] % len(operand.axes)
    if is_tracked(operand, dim) and rewrite.kept.changed(operand):
        row = axis_mask(rewrite.kept, operand, dim)
        rebind(rewrite.node, index=rank(row, rewrite.arguments["index"] % row.size))


def split(call: Call) -> Result:
    """`split`, `split_with_sizes`, `chunk`: one value per piece."""
    operand = call.value("self")
    dim = call["dim"] % len(operand.axes)
    sizes = [shape[dim] for shape in call.shapes]
    if not is_tracked(operand, dim):
        return tuple(call.flow.reinterpret(operand, with_untracked_axis(operand, dim, size)) for size in sizes)
    if not is_static_axis(operand, dim):
        return call.opaque("a split of channels by a dynamic size", live=False)
    stops = np.cumsum([0, *sizes]).tolist()
    return tuple(
        take_along(call, operand, dim, np.arange(a, b), tracked_axis(b - a)) for a, b in itertools.pairwise(stops)
    )


def rewrite_split(rewrite: Rewrite) -> None:
    operand = rewrite.value_of(rewrite.arguments["self"])
    dim = rewrite.arguments["dim"] % len(operand.axes)
    if not is_tracked(operand, dim) or not rewrite.kept.changed(operand):
        return
    row = axis_mask(rewrite.kept, operand, dim)
    stops = np.cumsum([0, *(t.shape[dim] for t in rewrite.node.meta["val"])]).tolist()
    sizes = [int(row[a:b].sum()) for a, b in itertools.pairwise(stops)]
    rewrite.node.target = torch.ops.aten.split_with_sizes.default
    rewrite.node.args = (rewrite.node.args[0], sizes, dim)
    rewrite.node.kwargs = {}


def flip(call: Call) -> Result:
    operand = call.value("self")
    positions = np.arange(operand.size).reshape(operand.shape)
    for dim in (d % len(operand.axes) for d in call["dims"]):
        count = sum(f.tracked for f in operand.axes[dim])
        if count and count < len(operand.axes[dim]):
            return call.opaque("a flip of regrouped channels", live=False)
        first = tracked_before(operand, dim)
        positions = np.flip(positions, axis=tuple(range(first, first + count)))
    return call.flow.take(operand, operand.axes, positions)


def roll(call: Call) -> Result:
    operand = call.value("self")
    dims = [d % len(operand.axes) for d in call["dims"]] or list(range(len(operand.axes)))
    if any(is_tracked(operand, d) for d in dims):
        return call.opaque("a roll of channels", live=False)
    return call.flow.reinterpret(operand, operand.axes)


def _index_arguments(arguments: dict[str, Any]) -> list[tuple[int, Node]]:
    if "indices" in arguments:
        return [(d, n) for d, n in enumerate(arguments["indices"]) if n is not None]
    return [(arguments["dim"], arguments["index"])]


def index(call: Call) -> Result:
    """Indexing of one axis by one tensor of integers."""
    operand = call.value("self")
    given = _index_arguments(call.arguments)
    if len(given) != 1 or given[0][1].meta["val"].dtype in (torch.bool, torch.uint8):
        return call.opaque("indexing of several axes, or by a condition")
    dim, node = given[0][0] % len(operand.axes), given[0][1]
    rank_ = node.meta["val"].ndim
    if is_tracked(operand, dim):
        if not is_constant(node) or rank_ != 1 or not is_static_axis(operand, dim):
            return call.opaque("indexing of channels by a computed index")
        call.addressed.add(node)
        indices = constant_of(node).numpy() % axis_length(operand, dim)
        return take_along(call, operand, dim, indices, tracked_axis(indices.size))
    return _gather_positions(call, operand, dim, node, rank_)


def _gather_positions(call: Call, operand: Value, dim: int, node: Node, rank_: int) -> Value:
    axes = operand.axes[:dim] + untracked(call.shape[dim : dim + rank_]) + operand.axes[dim + 1 :]
    moved = call.flow.reinterpret(operand, axes)
    if is_constant(node):
        call.addressed.add(node)
        return moved
    return call.flow.gather(moved, call.value_of(node))


def rewrite_index(rewrite: Rewrite) -> None:
    operand = rewrite.value_of(rewrite.arguments["self"])
    dim, node = _index_arguments(rewrite.arguments)[0]
    dim %= len(operand.axes)
    if not is_tracked(operand, dim) or not rewrite.kept.changed(operand):
        return
    row = axis_mask(rewrite.kept, operand, dim)
    picked = axis_mask(rewrite.kept, rewrite.value_of(rewrite.node), dim)
    indices = constant_of(node) % row.size
    number = torch.from_numpy(np.cumsum(row) - 1)
    set_constant(node, number[indices[torch.from_numpy(picked)]].to(indices.dtype))


def embedding(call: Call) -> Result:
    """Rows of a table: the table's columns are the channels, its rows are chosen by the input."""
    if not is_constant(call["weight"]):
        return call.opaque("an embedding whose table is computed in the graph")
    table = call.constant_value("weight", [1])
    rows = untracked(call.shape[:-1])
    moved = call.flow.reinterpret(table, (*rows, table.axes[1]))
    return call.flow.gather(moved, call.value("indices"))


RULES: dict[str, OperatorRule] = {
    "aten::slice": OperatorRule(slice_axis, rewrite_slice),
    "aten::select": OperatorRule(select, rewrite_select),
    **{
        f"aten::{name}": OperatorRule(split, rewrite_split)
        for name in ("split", "split_with_sizes", "chunk", "split_copy")
    },
    "aten::flip": OperatorRule(flip),
    "aten::roll": OperatorRule(roll),
    "aten::index": OperatorRule(index, rewrite_index),
    "aten::index_select": OperatorRule(index, rewrite_index),
    "aten::embedding": OperatorRule(embedding),
}
