"""Attention under a computed mask, for engines: a query whose keys are all masked gets zeros, as torch gives it.

ONNX's softmax has no such case: the exporter's form of a masked row is the mean of all values, or not a number.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from ...passes.empty_rows import may_leave_rows_empty
from ...passes.graph import bind, operator_name

_ATTENTION = "aten::scaled_dot_product_attention"


def zero_empty_rows(graph_module: GraphModule) -> None:
    """Put a choice behind every attention whose mask may leave a row empty, in place; shapes are not propagated."""
    attends: dict[Node, Node] = {}
    for node in [n for n in graph_module.graph.nodes if operator_name(n) == _ATTENTION]:
        mask = bind(node)["attn_mask"]
        if not may_leave_rows_empty(mask):
            continue
        if mask not in attends:
            attends[mask] = _rows_that_attend(mask)
        with graph_module.graph.inserting_after(node):
            chosen = graph_module.graph.call_function(torch.ops.aten.where.ScalarOther, (attends[mask], node, 0.0))
        node.replace_all_uses_with(chosen, delete_user_cb=lambda user, chosen=chosen: user is not chosen)
    graph_module.recompile()


def _rows_that_attend(mask: Node) -> Node:
    """Which queries see a key at all: the mask's shape with 1 for the keys."""
    graph, aten = mask.graph, torch.ops.aten
    with graph.inserting_after(mask):
        visible = (
            mask if mask.meta["val"].dtype == torch.bool else graph.call_function(aten.gt.Scalar, (mask, -torch.inf))
        )
    with graph.inserting_after(visible):
        return graph.call_function(aten.any.dim, (visible, -1, True))
