"""The signature of a captured graph, read off its placeholders, outputs and pytree structures."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .channels.axes import size_of
from .errors import CaptureError
from .graph import SIZE_NAMES, tensor_meta
from .signature import Signature, TensorSpec, Tree


def describe(graph_module: GraphModule) -> Signature:
    """The signature of a captured graph, dynamic sizes called as at the capture."""
    names: dict[str, str] = graph_module.meta.get(SIZE_NAMES, {})
    info = graph_module.graph._codegen.pytree_info  # type: ignore[attr-defined]
    placeholders = [n for n in graph_module.graph.nodes if n.op == "placeholder"]
    inputs = [_leaf(n, n.meta.get("val")) for n in placeholders]
    tensors_in = [n for n in inputs if isinstance(n, Node)]
    outputs = output_leaves(graph_module)
    tensors_out = list(dict.fromkeys(n for n in outputs if isinstance(n, Node)))
    args_spec, kwargs_spec = info.in_spec.children()
    argument_trees = _trees(args_spec, kwargs_spec, info.orig_args, inputs, tensors_in)
    result, _ = _tree(info.out_spec, outputs, tensors_out)
    input_names = [str(n.target) for n in tensors_in]
    output_names = _output_names(result, len(tensors_out), input_names)
    return Signature(
        tuple(_tensor_spec(n, name, names) for n, name in zip(tensors_in, input_names, strict=True)),
        tuple(_tensor_spec(n, name, names) for n, name in zip(tensors_out, output_names, strict=True)),
        argument_trees,
        args_spec.num_children,
        result,
    )


def output_leaves(graph_module: GraphModule) -> list[Any]:
    """The flat outputs of the graph: nodes, numbers and None."""
    output = next(n for n in graph_module.graph.nodes if n.op == "output")
    return [_leaf(leaf, leaf.meta.get("val") if isinstance(leaf, Node) else leaf) for leaf in output.args[0]]


def _leaf(node: Any, value: Any) -> Any:
    """The node of a tensor, the value of anything else."""
    if isinstance(value, Tensor):
        return node
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CaptureError(
        f"the model takes or returns a {type(value).__name__}; an engine carries tensors and literals only"
    )


def _trees(args_spec: Any, kwargs_spec: Any, names: list[str], leaves: list[Any], tensors: list[Node]) -> Any:
    trees: list[tuple[str, Tree]] = []
    rest = leaves
    keys = list(kwargs_spec.context) if kwargs_spec.num_children else []
    positional = [name for name in names if name not in keys][: args_spec.num_children]
    labels = positional + [f"arg{i}" for i in range(len(positional), args_spec.num_children)] + keys
    for label, child in zip(labels, [*args_spec.children(), *kwargs_spec.children()], strict=True):
        tree, used = _tree(child, rest, tensors)
        trees.append((label, tree))
        rest = rest[used:]
    return tuple(trees)


def _tree(spec: Any, leaves: list[Any], tensors: list[Node]) -> tuple[Tree, int]:
    """The tree of a pytree spec, and how many leaves it used."""
    if spec.is_leaf():
        leaf = leaves[0]
        return (Tree("tensor", index=tensors.index(leaf)) if isinstance(leaf, Node) else Tree("literal", value=leaf)), 1
    items, used = [], 0
    for child in spec.children():
        item, count = _tree(child, leaves[used:], tensors)
        items.append(item)
        used += count
    if spec.type in (tuple, list):
        return Tree(spec.type.__name__, items=tuple(items)), used
    return Tree(
        "dict", keys=tuple(k if isinstance(k, int) else str(k) for k in _keys(spec, len(items))), items=tuple(items)
    ), used


def _keys(spec: Any, count: int) -> list[Any]:
    """Keys of a dict, fields of a dataclass or named tuple, else numbers."""
    context = spec.context
    if (
        dataclasses.is_dataclass(spec.type)
        and isinstance(context, list | tuple)
        and context
        and isinstance(context[0], list)
    ):
        return list(context[0])
    if hasattr(context, "_fields"):
        return list(context._fields)
    if isinstance(context, list | tuple) and len(context) == count:
        return list(context)
    return list(range(count))


def _tensor_spec(node: Node, name: str, size_names: Mapping[str, str]) -> TensorSpec:
    meta = tensor_meta(node)
    assert meta is not None
    return TensorSpec(name, numpy_dtype(meta.dtype), tuple(_size_text(size_of(s), size_names) for s in meta.shape))


def _size_text(size: Any, names: Mapping[str, str]) -> int | str:
    if isinstance(size, int):
        return size
    renamed = size.subs({symbol: names.get(str(symbol), str(symbol)) for symbol in size.free_symbols})
    return str(renamed)


def numpy_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _output_names(result: Tree, count: int, taken: Sequence[str]) -> list[str]:
    """A name for every output tensor, from its place in the result; an engine wants names to differ from inputs'."""
    names: dict[int, str] = {}

    def walk(tree: Tree, path: list[str]) -> None:
        if tree.kind == "tensor" and tree.index not in names:
            names[tree.index] = _unused("_".join(path) or "output", {*taken, *names.values()})
        labels = tree.keys if tree.kind == "dict" else [str(i) for i in range(len(tree.items))]
        for label, item in zip(labels, tree.items, strict=True):
            walk(item, [*path, str(label)])

    walk(result, [] if result.kind in ("tensor", "dict") else ["output"])
    return [names[i] for i in range(count)]


def _unused(name: str, taken: set[str]) -> str:
    candidates = itertools.chain((name, f"{name}_out"), (f"{name}_out{i}" for i in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)
