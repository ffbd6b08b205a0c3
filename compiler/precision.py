"""What rounding to an engine's precision alone does to a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from ..passes.graph import constant_of, set_constant
from .masked_model import keep_graph


@dataclass(frozen=True)
class Rounded:
    """A graph that rounds as an engine of lower precision does, and what is rounded, in words."""

    graph: GraphModule
    note: str


def with_rounded_weights(graph_module: GraphModule, precision: str) -> Rounded:
    """A copy whose condensed linear layers have bfloat16 weights, as the CPU's kernels have with `precision` bf16."""
    assert precision == "bf16"
    rounded = keep_graph(graph_module)
    layers = [n for n in rounded.graph.nodes if n.target is torch.ops.sparsefx.condensed_linear.default]
    for node in layers:
        values = node.args[1]
        set_constant(values, constant_of(values).bfloat16().float())
    return Rounded(rounded, f"the weights of {len(layers)} condensed linear layers are bfloat16, all else is float32")
