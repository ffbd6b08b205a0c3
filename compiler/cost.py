"""Parameters and multiply-accumulates of a captured graph, layer by layer, for one sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..passes.channels.axes import size_of
from ..passes.graph import bind, constant_of, is_constant, operator_name, origin_of, tensor_meta

_WEIGHT = {"aten::addmm": "mat2", "aten::mm": "mat2", "aten::matmul": "other", "aten::bmm": "mat2"}
_LAYERS = ("aten::linear", "aten::convolution", *(f"aten::conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)))
_PRODUCTS = ("aten::matmul", "aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")


@dataclass(frozen=True)
class LayerCost:
    """One operator call that multiplies: `layer` is the module's name, weights and sizes as in the graph."""

    node: str
    layer: str
    operator: str
    weight_shape: tuple[int, ...]
    outputs: int
    parameters: int
    macs: int


def layer_costs(graph_module: GraphModule) -> list[LayerCost]:
    """Every layer and every product of computed tensors, in order. Dynamic batch counts as one sample."""
    sizes = _SampleSizes(graph_module)
    costs = []
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        name = operator_name(node)
        weight = _weight_node(node, name)
        if weight is not None:
            costs.append(_layer_cost(node, name, weight, sizes))
        elif name in _PRODUCTS or name == "aten::scaled_dot_product_attention":
            costs.append(
                LayerCost(node.name, node.name, name.removeprefix("aten::"), (), 0, 0, _product_macs(node, sizes))
            )
    return costs


def weight_nonzeros(graph_module: GraphModule) -> dict[str, int]:
    """Weights that are not zero, of every layer by its node."""
    calls = [(node, operator_name(node)) for node in graph_module.graph.nodes if node.op == "call_function"]
    weights = {node.name: weight for node, name in calls if (weight := _weight_node(node, name)) is not None}
    return {name: int(constant_of(weight).count_nonzero()) for name, weight in weights.items()}


def parameter_count(graph_module: GraphModule) -> int:
    """Numbers stored in the graph's constants, shared ones once."""
    tensors = {t.data_ptr(): t.numel() for t in [*graph_module.parameters(), *graph_module.buffers()]}
    return sum(tensors.values())


class _SampleSizes:
    """Sizes for one sample: leading dynamic sizes of the inputs count as 1, others as in the example."""

    def __init__(self, graph_module: GraphModule) -> None:
        self.batch: set[Any] = set()
        for node in graph_module.graph.nodes:
            meta = tensor_meta(node) if node.op == "placeholder" else None
            if meta is not None and meta.ndim and not isinstance(meta.shape[0], int):
                self.batch |= size_of(meta.shape[0]).free_symbols

    def count(self, sizes: Any) -> int:
        return math.prod(self._size(size) for size in sizes)

    def _size(self, size: int | torch.SymInt) -> int:
        if isinstance(size, int):
            return size
        expression = size_of(size).subs(dict.fromkeys(self.batch, 1))
        return int(expression) if expression.is_number else int(size.node.hint)


def _weight_node(node: Node, name: str) -> Node | None:
    if name in _LAYERS:
        weight = bind(node)["weight"]
    elif name in _WEIGHT and _WEIGHT[name] in bind(node):
        weight = bind(node)[_WEIGHT[name]]
    else:
        return None
    return weight if is_constant(weight) else None


def _layer_cost(node: Node, name: str, weight: Node, sizes: _SampleSizes) -> LayerCost:
    shape = tuple(int(s) for s in weight.meta["val"].shape)
    transposed = "transpose" in name or bool(bind(node).get("transposed"))
    matrix = name in _WEIGHT  # stored (inputs, outputs)
    spread = bind(node)["input"].meta["val"].shape if transposed else node.meta["val"].shape
    positions = sizes.count(spread) // max(shape[1] if matrix else shape[0], 1)
    outputs = shape[1] * bind(node).get("groups", 1) if transposed or matrix else shape[0]
    biases = [n for n in node.all_input_nodes if is_constant(n) and n is not weight]
    parameters = math.prod(shape) + sum(n.meta["val"].numel() for n in biases)
    layer = origin_of(weight).removesuffix(".weight")
    return LayerCost(
        node.name, layer, name.removeprefix("aten::"), shape, outputs, parameters, positions * math.prod(shape)
    )


def _product_macs(node: Node, sizes: _SampleSizes) -> int:
    """Multiplications of a product of computed tensors; attention is two of them."""
    arguments = bind(node)
    if operator_name(node) == "aten::scaled_dot_product_attention":
        query, key, value = (arguments[name].meta["val"].shape for name in ("query", "key", "value"))
        return sizes.count(query[:-1]) * sizes.count(key[-2:-1]) * (sizes.count(query[-1:]) + sizes.count(value[-1:]))
    left = next(arguments[name] for name in ("batch1", "mat1", "self") if name in arguments)
    return sizes.count(node.meta["val"].shape) * sizes.count(left.meta["val"].shape[-1:])
