"""A graph in another precision: its constants, and every tensor inside; what goes in and comes out keeps its type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...passes.graph import constant_of, copy_graph, set_constant, tensor_meta

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def in_precision(graph_module: GraphModule, precision: str) -> GraphModule:
    """A copy of a captured graph whose floating-point numbers inside are all of this precision."""
    dtype = PRECISIONS[precision]
    converted = GraphModule(graph_module, copy_graph(graph_module.graph))
    converted.meta.update(graph_module.meta)
    if dtype is torch.float32:
        return converted
    nodes = list(converted.graph.nodes)
    output, outside = nodes[-1], _results(nodes[-1])
    for node in nodes:
        if node.op == "get_attr" and constant_of(node).is_floating_point():
            set_constant(node, constant_of(node).to(dtype))
        elif node.op == "call_function":
            node.args, node.kwargs = _with_dtype(node.args, dtype), _with_dtype(dict(node.kwargs), dtype)
        elif node.op == "placeholder" and _is_float(node):
            with converted.graph.inserting_after(node):
                inside = converted.graph.call_function(torch.ops.aten.to.dtype, (node, dtype))
            for user in [user for user in node.users if user not in (inside, output)]:
                user.replace_input_with(node, inside)
    back = {leaf: _outside(converted, output, leaf, value) for leaf, value in outside.items()}
    output.args = torch.fx.node.map_arg(output.args, lambda leaf: back.get(leaf, leaf))
    converted.recompile()
    return converted


def _results(output: Node) -> dict[Node, Tensor]:
    """Each floating-point result once, with what it is outside; inputs that are handed back are left out."""
    return {n: n.meta["val"] for n in output.all_input_nodes if _is_float(n) and n.op != "placeholder"}


def _outside(graph_module: GraphModule, output: Node, leaf: Node, value: Tensor) -> Node:
    with graph_module.graph.inserting_before(output):
        back = graph_module.graph.call_function(torch.ops.aten.to.dtype, (leaf, value.dtype))
    back.meta["val"] = value
    return back


def _is_float(node: Node) -> bool:
    value = tensor_meta(node)
    return value is not None and value.is_floating_point()


def _with_dtype(arguments: Any, dtype: torch.dtype) -> Any:
    def one(value: Any) -> Any:
        return dtype if isinstance(value, torch.dtype) and value.is_floating_point else value

    return torch.utils._pytree.tree_map(one, arguments)
