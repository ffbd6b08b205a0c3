"""What rounding to an engine's precision alone does to a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..passes.graph import constant_of, set_constant
from .masked_model import keep_graph

_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


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


def with_rounded_tensors(graph_module: GraphModule, precision: str) -> Rounded:
    """A copy that rounds every float32 tensor, weights and results of operators, to `precision` (fp16, bf16).

    Operators themselves compute in float32, as tensor cores accumulate.
    """
    kind = _TYPES[precision]
    rounded = keep_graph(graph_module)
    for node in list(rounded.graph.nodes):
        if node.op not in ("placeholder", "get_attr", "call_function") or not _is_float32(node):
            continue
        with rounded.graph.inserting_after(node):
            low = rounded.graph.call_function(_round, (node, kind))
        low.meta = dict(node.meta)
        node.replace_all_uses_with(low, delete_user_cb=lambda user, low=low: user is not low)
    rounded.recompile()
    return Rounded(rounded, f"weights and tensors inside are {precision}, inputs and outputs as the model's own")


def _is_float32(node: Node) -> bool:
    value: Any = node.meta.get("val")
    if node.op == "get_attr":
        value = constant_of(node)
    return isinstance(value, Tensor) and value.dtype == torch.float32


def _round(x: Tensor, kind: torch.dtype) -> Tensor:
    return x.to(kind).to(torch.float32)
