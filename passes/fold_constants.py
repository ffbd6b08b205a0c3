"""Compute once what needs no input: operators on constants alone.

Legal where (1) every tensor operand is a constant that the graph does not write to, or only lends its type to a
tensor of a fixed size (`new_zeros`, `zeros_like`), (2) no dynamic size enters, (3) the operator is deterministic
and writes to nothing, and (4) the result is not much larger than what it is made from. Of an operator with several
results, as a BatchNorm over weights, each that is used is computed by itself.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from .base import GraphPass
from .graph import (
    ORIGIN,
    add_constant,
    constant_of,
    is_constant,
    is_parameter,
    mutated_constants,
    node_operands,
    operator_name,
    tensor_meta,
)

_TYPE_ONLY = {
    f"aten::{name}"
    for name in ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like", "zero", "fill")
}
_FROM_NOTHING = {
    f"aten::{name}"
    for name in ("zeros", "ones", "full", "arange", "linspace", "eye", "scalar_tensor", "tril_indices", "triu_indices")
}
_ALWAYS_FOLDED = 2**20  # elements; a larger result may be at most this many times its operands
_GROWTH = 2


class FoldConstants(GraphPass):
    """Replaces operators on constants by their results."""

    def rewrite(self, graph_module: GraphModule) -> bool:
        mutated = mutated_constants(graph_module)
        modified = False
        for node in list(graph_module.graph.nodes):
            if _is_foldable(node, mutated):
                _fold(graph_module, node)
                modified = True
        return modified


def _is_foldable(node: Node, mutated: set[str]) -> bool:
    meta, source = tensor_meta(node), _source(node)
    if source.op != "call_function" or meta is None or not all(isinstance(s, int) for s in meta.shape):
        return False
    if torch.Tag.nondeterministic_seeded in getattr(source.target, "tags", ()) or not node.users:
        return False
    schema = getattr(source.target, "_schema", None)
    if schema is not None and schema.is_mutable:
        return False
    operands = node_operands((source.args, source.kwargs))
    name = operator_name(source)
    if name in _TYPE_ONLY:
        return all(is_constant(n) and str(n.target) not in mutated for n in operands[1:])
    if any(not is_constant(n) or str(n.target) in mutated for n in operands):
        return False
    if not operands and name not in _FROM_NOTHING:
        return False
    made_from = sum(constant_of(n).numel() for n in operands)
    return meta.numel() <= max(_ALWAYS_FOLDED, _GROWTH * made_from)


def _source(node: Node) -> Node:
    """The operator that computes the node: one of several results is taken out of them by an index."""
    several = node.args[0] if node.target is operator.getitem else None
    return several if isinstance(several, Node) and isinstance(several.target, OpOverload) else node


def _fold(graph_module: GraphModule, node: Node) -> None:
    def value(n: Node) -> Any:
        if is_constant(n):
            return constant_of(n)
        meta = n.meta["val"]
        shape = [size if isinstance(size, int) else 1 for size in meta.shape]
        return torch.empty(1, dtype=meta.dtype).expand(shape)

    source = _source(node)
    args, kwargs = torch.fx.node.map_arg((source.args, source.kwargs), value)
    with torch.no_grad():
        results: Any = source.target(*args, **kwargs)  # type: ignore[operator]
    result: Tensor = results if source is node else results[node.args[1]]
    constant = add_constant(graph_module, node, _name(node), result.clone().contiguous())
    node.replace_all_uses_with(constant)


def _name(node: Node) -> str:
    """The name of the largest parameter in the expression; a reparametrised weight is called as the layer knows it."""
    named = [n for n in _source(node).all_input_nodes if ORIGIN in n.meta]
    if not named:
        return f"folded_{node.name}"
    name = str(max(named, key=lambda n: (is_parameter(n), constant_of(n).numel())).meta[ORIGIN])
    module, _, attribute = name.partition(".parametrizations.")
    if attribute:
        return f"{module}.{attribute.split('.')[0]}"
    return name.removesuffix("_orig")
