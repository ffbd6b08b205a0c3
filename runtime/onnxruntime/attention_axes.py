"""Attention over any number of axes, for an exporter that knows four: batch, heads, positions and channels.

Attention in windows has one more, attention without heads one less. The axes in front join the batch, or are 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from ...passes.graph import bind, operator_name, rebind

_ATTENTION = "aten::scaled_dot_product_attention"
_BEHIND = 3  # axes behind the batch


def give_four_axes(graph_module: GraphModule) -> None:
    """Rewrite every attention over fewer or more axes, in place; shapes are not propagated.

    Queries, keys and values whose batches broadcast are left as they are.
    """
    for node in [n for n in graph_module.graph.nodes if operator_name(n) == _ATTENTION]:
        bound = bind(node)
        operands = {name: bound[name] for name in ("query", "key", "value")}
        axes = bound["query"].meta["val"].ndim
        batches = [tuple(o.meta["val"].shape[:-_BEHIND]) for o in operands.values()]
        if axes == _BEHIND + 1 or any(batch != batches[0] for batch in batches):
            continue
        rewrite = _join_batch if axes > _BEHIND else _add_axes
        rewrite(node, operands, bound["attn_mask"], axes)
    graph_module.recompile()


def _join_batch(node: Node, operands: dict[str, Node], mask: Node | None, axes: int) -> None:
    graph, aten = node.graph, torch.ops.aten
    last = axes - _BEHIND - 1  # of the batch
    with graph.inserting_before(node):
        batch = [_size(graph, operands["query"], axis) for axis in range(last + 1)]
        changes = {n: graph.call_function(aten.flatten.using_ints, (x, 0, last)) for n, x in operands.items()}
        if mask is not None and mask.meta["val"].ndim >= _BEHIND:
            whole = graph.call_function(aten.expand.default, (mask, [*batch, *[-1] * _BEHIND]))
            changes["attn_mask"] = graph.call_function(aten.flatten.using_ints, (whole, 0, last))
    rebind(node, **changes)
    _follow(node, aten.unflatten.int, 0, batch)


def _add_axes(node: Node, operands: dict[str, Node], mask: Node | None, axes: int) -> None:
    graph, aten = node.graph, torch.ops.aten
    missing = list(range(_BEHIND + 1 - axes))

    def with_axes(value: Node) -> Node:
        for _ in missing:
            value = graph.call_function(aten.unsqueeze.default, (value, 0))
        return value

    with graph.inserting_before(node):
        changes = {name: with_axes(value) for name, value in operands.items()}
        if mask is not None:
            changes["attn_mask"] = with_axes(mask)
    rebind(node, **changes)
    _follow(node, aten.squeeze.dims, missing)


def _size(graph: Graph, value: Node, axis: int) -> Any:
    size = value.meta["val"].shape[axis]
    return size if isinstance(size, int) else graph.call_function(torch.ops.aten.sym_size.int, (value, axis))


def _follow(node: Node, operator: Any, *arguments: Any) -> None:
    """Put an operator between a node and all that reads it."""
    with node.graph.inserting_after(node):
        followed = node.graph.call_function(operator, (node, *arguments))
    node.replace_all_uses_with(followed, delete_user_cb=lambda user: user is not followed)
