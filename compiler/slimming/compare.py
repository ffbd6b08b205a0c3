"""Compare the graph that was meant with the graph of the slim module, operator by operator.

Both come from the same forward, so they have the same operators in the same order unless forward takes another path.
Sizes are compared by the shapes of results, every other literal as it stands: the start of a slice, the scale of an
attention, the number of groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...passes.graph import bind, constant_of, is_constant, operator_name, tensor_meta

_SIZES = {"size", "shape", "sizes", "split_size", "split_sizes", "chunks"}  # arguments that a result's shape tells
_ALIKE = {
    "aten::view": "view", "aten::_unsafe_view": "view", "aten::reshape": "view", "aten::split": "split",
    "aten::split_with_sizes": "split", "aten::chunk": "split",
}  # fmt: skip


def tidy(graph_module: GraphModule) -> GraphModule:
    """Without the dead code that a pass would remove too."""
    graph_module.graph.eliminate_dead_code(lambda node: node.is_impure(impure_random=False))
    return graph_module


def first_difference(meant: GraphModule, found: GraphModule) -> tuple[int, str] | None:
    """The first operator that differs, by its number, and how; None where the graphs are the same."""
    ours, theirs = operators(meant), operators(found)
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if (difference := _difference(a, b)) is not None:
            return number, difference
    if len(ours) != len(theirs):
        return min(len(ours), len(theirs)) - 1, f"forward runs {len(theirs)} operators where {len(ours)} were expected"
    return None


def operators(graph_module: GraphModule) -> list[Node]:
    return [n for n in graph_module.graph.nodes if n.op not in ("get_attr", "placeholder")]


def _difference(meant: Node, found: Node) -> str | None:
    names = [_ALIKE.get(operator_name(n), operator_name(n)) for n in (meant, found)]
    if meant.op != found.op or (meant.op != "output" and names[0] != names[1]):
        return f"forward runs {names[1]} where {names[0]} was expected"
    shapes = [_shapes(n) for n in (meant, found)]
    if shapes[0] != shapes[1]:
        return f"{names[1]} gives {_text(shapes[1])} where {_text(shapes[0])} was expected"
    ours, theirs = list(_literals(meant)), list(_literals(found))
    for (name, a), (_, b) in zip(ours, theirs, strict=False):
        if not _same(a, b):
            return f"{name} of {names[1]} is {_value(b)} where {_value(a)} was expected"
    return None if len(ours) == len(theirs) else f"{names[1]} has other arguments than expected"


def _shapes(node: Node) -> list[tuple[int, ...]]:
    value = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else [value]
    return [tuple(_hint(size) for size in t.shape) for t in values if isinstance(t, Tensor)]


def _hint(size: int | torch.SymInt) -> int:
    """The size in the example."""
    return size if isinstance(size, int) else int(size.node.hint)


def _literals(node: Node) -> Iterator[tuple[str, Any]]:
    """Constants and literals among the arguments, but for sizes that the result's shape tells."""
    if not hasattr(node.target, "_schema"):
        return
    arguments = bind(node)
    if operator_name(node) == "aten::slice":
        arguments |= dict(zip(("start", "end"), _bounds(arguments), strict=True))
    for name, argument in arguments.items():
        if name not in _SIZES:
            for leaf in argument if isinstance(argument, list | tuple) else [argument]:
                if is_constant(leaf):
                    yield name, constant_of(leaf)
                elif not isinstance(leaf, Node):
                    yield name, leaf


def _bounds(arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Where a slice starts and ends, counted out where that is static."""
    start, end, meta = arguments["start"], arguments["end"], tensor_meta(arguments["self"])
    size = meta.shape[arguments["dim"]] if meta is not None else None
    if not isinstance(size, int) or isinstance(start, Node) or isinstance(end, Node):
        return start, end
    return slice(start, end).indices(size)[:2]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(
            a.nan_to_num() if a.is_floating_point() else a, b.nan_to_num() if b.is_floating_point() else b
        )
    return type(a) is type(b) and bool(a == b)


def _value(literal: Any) -> str:
    return f"a tensor {list(literal.shape)}" if isinstance(literal, Tensor) else repr(literal)


def _text(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes)
