"""Rewrite sparse layers into condensed operators, which hold and multiply their non-zeros only.

Legal where (1) the layer is a linear one or a 2-d convolution, whose weight and bias are constants, and its padding
is given in numbers; and (2) `select` wants it. What follows is taken along where nobody else reads what is in
between: (3) the addition of a tensor of the layer's own shape and type, and (4) a ReLU, or a linear layer's GELU (the
one with erf).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from .base import GraphPass
from .graph import LAYER, add_constant, bind, constant_of, is_constant, operator_name, tensor_meta
from .operators import compressed_rows

LINEAR, CONV2D = torch.ops.aten.linear.default, torch.ops.aten.conv2d.default
_ACTIVATIONS: dict[Any, dict[str, str]] = {
    LINEAR: {"aten::relu": "relu", "aten::gelu": "gelu"},
    CONV2D: {"aten::relu": "relu"},
}
MOST_DENSITY = 0.3  # measured on CPUs: with more non-zeros than that, dense layers are as fast


@dataclass(frozen=True)
class SparseLayer:
    """A layer that could be condensed: its node, what follows that it takes along, and the share of its non-zeros."""

    node: Node
    residual: Node | None
    activation: str
    last: Node  # whose result the condensed operator computes
    density: float


def sparse_enough(layer: SparseLayer) -> bool:
    return layer.density <= MOST_DENSITY


def sparse_layers(graph_module: GraphModule) -> list[SparseLayer]:
    """Every layer that may legally be condensed, however dense it is, in the graph's order.

    Two layers that are added to each other both come with the addition; the first that is condensed takes it.
    """
    return [_layer(node) for node in _nodes(graph_module)]


class Condense(GraphPass):
    """Condenses the layers that `select` wants; by default those with at most 30% non-zeros."""

    def __init__(self, select: Callable[[SparseLayer], bool] = sparse_enough) -> None:
        super().__init__()
        self._select = select

    def rewrite(self, graph_module: GraphModule) -> bool:
        modified = False
        for node in _nodes(graph_module):
            layer = _layer(node)  # only now: the one before may have taken what follows
            if self._select(layer):
                _condense(graph_module, layer)
                modified = True
        return modified


def _nodes(graph_module: GraphModule) -> list[Node]:
    return [n for n in graph_module.graph.nodes if n.target in (LINEAR, CONV2D) and _has_constants(n)]


def _layer(node: Node) -> SparseLayer:
    weight = constant_of(bind(node)["weight"])
    last, residual = _with_residual(node)
    last, activation = _with_activation(last, _ACTIVATIONS[node.target])
    return SparseLayer(node, residual, activation, last, float(weight.count_nonzero()) / max(1, weight.numel()))


def _has_constants(node: Node) -> bool:
    arguments = bind(node)
    bias = arguments["bias"]
    return is_constant(arguments["weight"]) and (bias is None or is_constant(bias))


def _condense(graph_module: GraphModule, layer: SparseLayer) -> None:
    node, arguments = layer.node, bind(layer.node)
    weight: Node = arguments["weight"]
    name = str(weight.target)
    constants = [
        add_constant(graph_module, node, f"{name}_{part}", tensor)
        for part, tensor in zip(("values", "columns", "starts"), compressed_rows(constant_of(weight)), strict=True)
    ]
    common = (arguments["input"], *constants, arguments["bias"], layer.residual)
    with graph_module.graph.inserting_before(layer.last):
        if node.target is LINEAR:
            condensed = graph_module.graph.call_function(
                torch.ops.sparsefx.condensed_linear.default, (*common, layer.activation)
            )
        else:
            kernel = list(constant_of(weight).shape[2:])
            stride, padding, dilation = (pair(arguments[key]) for key in ("stride", "padding", "dilation"))
            condensed = graph_module.graph.call_function(
                torch.ops.sparsefx.condensed_conv2d.default,
                (*common, kernel, stride, padding, dilation, arguments["groups"], layer.activation),
            )
    condensed.meta = {**layer.last.meta, LAYER: node.name}
    layer.last.replace_all_uses_with(condensed)


def _with_residual(node: Node) -> tuple[Node, Node | None]:
    """The addition that follows the layer, and what it adds; or the layer itself."""
    reader = _only_reader(node)
    if reader is None or reader.target is not torch.ops.aten.add.Tensor or reader.kwargs.get("alpha", 1) != 1:
        return node, None
    other = next((a for a in reader.args if a is not node), None)
    if not isinstance(other, Node) or is_constant(other):
        return node, None
    ours, theirs = tensor_meta(node), tensor_meta(other)
    if ours is None or theirs is None or ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return node, None
    return reader, other


def _with_activation(node: Node, known: Mapping[str, str]) -> tuple[Node, str]:
    reader = _only_reader(node)
    if reader is None or reader.kwargs.get("approximate", "none") != "none":
        return node, "none"
    activation = known.get(operator_name(reader), "none")
    return (node if activation == "none" else reader), activation


def _only_reader(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def pair(value: int | list[int]) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * 2 if len(numbers) == 1 else numbers
