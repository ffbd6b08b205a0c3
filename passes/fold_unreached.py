"""Replace tensors that no input reaches by constants.

Legal where the channel analysis finds that nothing in the tensor depends on the input, and (1) every channel has
one known value: the constant is broadcast; or (2) all sizes but the batch are fixed and the tensor is small: its
values are measured on a run, for two batches of other inputs, and must agree. Only the last such tensor of a chain is
replaced, where it meets what the input reaches: what computed it becomes dead code. A constant takes the tensor's
full shape where a reader needs it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from .base import GraphPass
from .channels.axes import Axis, is_static, size_of
from .channels.rules import OperatorRule
from .channels.rules.elementwise import is_pointwise
from .channels.trace import GraphTrace
from .channels.transfer import CONSTANT, LIVE, Value
from .graph import add_constant, is_constant, tensor_meta
from .reference import measure_unreached

_LARGEST_MAP = 2**16  # elements of a measured tensor per sample


class FoldUnreached(GraphPass):
    """Replaces what does not depend on the input, wherever it meets what does."""

    def __init__(self, rules: Mapping[str, OperatorRule] | None = None) -> None:
        super().__init__()
        self.rules = rules

    def rewrite(self, graph_module: GraphModule) -> bool:
        trace = GraphTrace(graph_module, self.rules)
        unreached = {n: v for n in graph_module.graph.nodes if (v := _unreached_value(trace, n)) is not None}
        varying = [n for n, v in unreached.items() if not (v.state == CONSTANT).all() and _is_small(n)]
        measured = measure_unreached(graph_module, [n for n in varying if not set(n.users) <= unreached.keys()])
        computed = set(graph_module.graph.nodes) - unreached.keys()  # nodes that will still be computed
        modified = False
        for node in reversed(list(unreached)):
            readers = [user for user in node.users if user in computed]
            constant = measured.get(node, _uniform(node, unreached[node])) if readers else None
            if constant is not None and _replace(graph_module, node, readers, constant, computed):
                modified = True
            elif readers:
                computed.add(node)  # it cannot be replaced, so what it reads must be
        return modified


def _unreached_value(trace: GraphTrace, node: Node) -> Value | None:
    """The node's value where it is computed from something, but from nothing that depends on the input."""
    values = trace.values(node)
    computed = [n for n in node.all_input_nodes if not is_constant(n) and tensor_meta(n) is not None]
    if node.op != "call_function" or len(values) != 1 or not computed or tensor_meta(node) is None:
        return None
    return values[0] if (values[0].state != LIVE).all() else None


def _is_small(node: Node) -> bool:
    sizes = [s for s in node.meta["val"].shape if isinstance(s, int)]
    return int(np.prod(sizes, dtype=np.int64)) <= _LARGEST_MAP


def _uniform(node: Node, value: Value) -> Tensor | None:
    """One number per channel, with size 1 along untracked axes; None where an axis cannot be written so."""
    if not (value.state == CONSTANT).all():
        return None
    sizes, repeats = [], []
    for axis in value.axes:
        if any(f.tracked for f in axis) and not all(is_static(f.size) for f in axis):
            return None
        sizes += [f.size if f.tracked else 1 for f in axis]
        repeats += [f.size if _is_mixed(axis) else (f.size if f.tracked else 1) for f in axis]
    shape = [int(np.prod([f.size for f in axis])) if any(f.tracked for f in axis) else 1 for axis in value.axes]
    full = torch.from_numpy(value.constant.copy()).reshape(sizes).expand(repeats).reshape(shape)
    return full.to(node.meta["val"].dtype)


def _is_mixed(axis: Axis) -> bool:
    return len({f.tracked for f in axis}) == 2


def _replace(graph_module: GraphModule, node: Node, readers: list[Node], constant: Tensor, computed: set[Node]) -> bool:
    """Let the readers of `node` read the constant: as it is where it broadcasts, else in its full shape."""
    full_shape = [user for user in readers if not _broadcasts(user, node, computed)]
    source = add_constant(graph_module, node, f"unreached_{node.name}", constant.contiguous())
    expanded = _expand(graph_module.graph, node, source) if full_shape else None
    if full_shape and expanded is None:
        return False
    for reader in readers:
        reader.replace_input_with(node, expanded if reader in full_shape and expanded is not None else source)
    return True


def _broadcasts(reader: Node, node: Node, computed: set[Node]) -> bool:
    """Whether the reader is element-wise and another operand gives its result the full shape."""
    shape = tuple(size_of(s) for s in node.meta["val"].shape)
    others = [n for n in reader.all_input_nodes if n is not node and n in computed and not is_constant(n)]
    shapes = [tuple(size_of(s) for s in m.shape) for n in others if (m := tensor_meta(n)) is not None]
    return reader.op == "call_function" and is_pointwise(reader.target) and shape in shapes


def _expand(graph: Graph, node: Node, source: Node) -> Node | None:
    """`source` expanded to the node's shape, None where a dynamic size cannot be computed from the inputs."""
    sizes: list[Any] = []
    for size in node.meta["val"].shape:
        emitted = size if isinstance(size, int) else _emit_size(graph, node, size_of(size))
        if emitted is None:
            return None
        sizes.append(emitted)
    with graph.inserting_before(node):
        return graph.call_function(torch.ops.aten.expand.default, (source, sizes))


def _emit_size(graph: Graph, before: Node, expression: Any) -> Any:
    """Nodes that compute a dynamic size from the input shapes: sums and products of input sizes."""
    if isinstance(expression, int | sympy.Integer):
        return int(expression)
    if expression.is_Symbol:
        return _input_size(graph, before, expression)
    function = {sympy.Add: operator.add, sympy.Mul: operator.mul}.get(expression.func)
    terms = [_emit_size(graph, before, term) for term in expression.args]
    if function is None or any(term is None for term in terms):
        return None
    result = terms[0]
    for term in terms[1:]:
        with graph.inserting_before(before):
            result = graph.call_function(function, (result, term))
    return result


def _input_size(graph: Graph, before: Node, symbol: Any) -> Node | None:
    for node in graph.nodes:
        meta = tensor_meta(node) if node.op == "placeholder" else None
        for dim, size in enumerate(meta.shape if meta is not None else ()):
            if not isinstance(size, int) and size_of(size) == symbol:
                with graph.inserting_before(before):
                    return graph.call_function(torch.ops.aten.sym_size.int, (node, dim))
    return None
