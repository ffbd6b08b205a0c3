"""What rounding to an engine's precision alone does to a graph."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from ..passes.graph import constant_of, set_constant
from .masked_model import keep_graph


def with_rounded_weights(graph_module: GraphModule) -> tuple[GraphModule, int]:
    """A copy whose condensed linear layers have bfloat16 weights, as an engine of precision bf16; and how many."""
    rounded = keep_graph(graph_module)
    layers = [n for n in rounded.graph.nodes if n.target is torch.ops.sparsefx.condensed_linear.default]
    for node in layers:
        values = node.args[1]
        set_constant(values, constant_of(values).bfloat16().float())
    return rounded, len(layers)
