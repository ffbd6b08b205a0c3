"""Small questions and edits on torch.fx graphs of ATen operators, shared by the passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import Graph, GraphModule, Interpreter, Node

from .errors import PassError

# Keys of node.meta that the passes own.
ORIGIN = "sparsefx_origin"  # on get_attr: the parameter's name in the user's model
PATTERN = "sparsefx_pattern"  # on get_attr: bool tensor, which weights are in the sparsity pattern
INDICES = "sparsefx_indices"  # on a contraction: ChannelIndices, what its channels were called originally
STANDS_FOR = "sparsefx_stands_for"  # on a layer: the node whose result it computes now that that one is folded in
LAYER = "sparsefx_layer"  # in the meta of a condensed node: the name of the node that it stands for
SIZE_NAMES = "sparsefx_size_names"  # in graph_module.meta: what dynamic sizes are called, by symbol


def bind(node: Node) -> dict[str, Any]:
    """The node's arguments by the names of its operator's schema, defaults filled in."""
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    bound = {a.name: a.default_value if a.has_default_value() else None for a in arguments}
    bound.update(zip((a.name for a in arguments), node.args, strict=False))
    bound.update(node.kwargs)
    return bound


def rebind(node: Node, **changes: Any) -> None:
    """Replace arguments of a node by name; arguments in front of them are filled in."""
    bound = bind(node) | changes
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    given = set(changes) | {a.name for a, _ in zip(arguments, node.args, strict=False)}
    last = max((i for i, a in enumerate(arguments) if not a.kwarg_only and a.name in given), default=-1)
    positional = [a.name for a in arguments[: last + 1]]
    node.args = tuple(bound[name] for name in positional)
    node.kwargs = {k: bound[k] for k in (*node.kwargs, *changes) if k not in positional}


def operator_name(node: Node) -> str:
    """`aten::relu` for any overload of it; the printed target for what is no ATen operator."""
    schema = getattr(node.target, "_schema", None)
    return schema.name if schema is not None else str(node.target)


def tensor_meta(node: Node) -> Tensor | None:
    """The fake tensor that the node computes, None where it is no single tensor."""
    value = node.meta.get("val")
    return value if isinstance(value, Tensor) else None


def is_constant(node: Any) -> bool:
    return isinstance(node, Node) and node.op == "get_attr"


def get_constant(graph_module: GraphModule, target: str) -> Tensor:
    module_name, _, name = target.rpartition(".")
    value = getattr(graph_module.get_submodule(module_name), name)
    if not isinstance(value, Tensor):
        raise PassError(f"{target} is a {type(value).__name__}, expected a tensor")
    return value.detach()


def constant_of(node: Node) -> Tensor:
    """The tensor of a get_attr node."""
    return get_constant(_owner(node), str(node.target))


def is_parameter(node: Node) -> bool:
    """Whether a get_attr node reads a parameter rather than a buffer."""
    module_name, _, name = str(node.target).rpartition(".")
    return name in dict(_owner(node).get_submodule(module_name).named_parameters(recurse=False))


def _owner(node: Node) -> GraphModule:
    owner = node.graph.owning_module
    if owner is None:
        raise PassError(f"the graph of node {node.name} belongs to no GraphModule")
    return owner


def mutated_constants(graph_module: GraphModule) -> set[str]:
    """Buffers that the graph writes to: not constants."""
    return {
        str(node.args[0].target)
        for node in graph_module.graph.nodes
        if operator_name(node) == "aten::copy_" and is_constant(node.args[0])
    }


def set_constant(node: Node, value: Tensor) -> None:
    """Give a get_attr node another tensor; other nodes that read the same attribute keep theirs."""
    graph_module = _owner(node)
    target = str(node.target)
    shared = any(n is not node and n.op == "get_attr" and n.target == target for n in node.graph.nodes)
    if shared:
        target = _free_name(graph_module, target)
    module_name, _, name = target.rpartition(".")
    module = graph_module.get_submodule(module_name)
    if name in module._parameters and not value.is_floating_point():
        del module._parameters[name]
    if name in module._parameters or (not shared and isinstance(getattr(module, name, None), torch.nn.Parameter)):
        setattr(module, name, torch.nn.Parameter(value, requires_grad=False))
    else:
        module.register_buffer(name, value)
    node.target = target
    refresh_constant_meta(node)


def origin_of(node: Node) -> str:
    """What the user's model calls the parameter or buffer of a get_attr node."""
    return str(node.meta.get(ORIGIN, node.target))


def add_constant(graph_module: GraphModule, before: Node, name: str, value: Tensor) -> Node:
    """A new get_attr node in front of `before`, holding `value` under a free name like `name`."""
    target = _free_name(graph_module, name)
    module_name, _, attribute = target.rpartition(".")
    graph_module.get_submodule(module_name).register_buffer(attribute, value)
    with graph_module.graph.inserting_before(before):
        node = graph_module.graph.get_attr(target)
    node.meta[ORIGIN] = name
    refresh_constant_meta(node)
    return node


def _free_name(graph_module: GraphModule, target: str) -> str:
    module_name, _, name = target.rpartition(".")
    module = graph_module.get_submodule(module_name)
    candidate, number = name, 1
    while hasattr(module, candidate):
        number += 1
        candidate = f"{name}_{number}"
    return f"{module_name}.{candidate}" if module_name else candidate


def fake_mode(graph: Graph) -> FakeTensorMode:
    """The mode in which the graph's fake tensors live."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, FakeTensor):
            return value.fake_mode
    raise PassError("the graph has no shapes; capture it with sparsefx.passes.capture first")


def refresh_constant_meta(node: Node) -> None:
    value = constant_of(node)
    try:
        mode = fake_mode(node.graph)
    except PassError:
        mode = FakeTensorMode()
    node.meta["val"] = mode.from_tensor(value.detach(), static_shapes=True)


class ShapePropagation(Interpreter):
    """Recompute every node's fake tensor; raises where an operator rejects its operands' shapes."""

    def __init__(self, graph_module: GraphModule) -> None:
        super().__init__(graph_module)
        self.mode = fake_mode(graph_module.graph)

    def propagate(self) -> None:
        inputs = [n.meta["val"] for n in self.module.graph.nodes if n.op == "placeholder"]  # type: ignore[union-attr]
        with self.mode, enable_python_dispatcher(), torch.no_grad():  # as export does: sizes then stay symbolic
            super().run(*inputs, enable_io_processing=False)

    def run_node(self, n: Node) -> Any:
        result = n.meta["val"] if n.op == "placeholder" and "val" in n.meta else super().run_node(n)
        if n.op == "get_attr" and isinstance(result, Tensor):
            result = self.mode.from_tensor(result.detach(), static_shapes=True)
        if n.op != "output":
            n.meta["val"] = result
        return result


def one_reader_per_node(graph_module: GraphModule) -> None:
    """Give every reader of a constant its own get_attr node: a tied weight is one per call site."""
    graph = graph_module.graph
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        node.meta.setdefault(ORIGIN, str(node.target))
        for reader in list(node.users)[1:]:
            with graph.inserting_before(reader):
                copy = graph.get_attr(str(node.target))
            copy.meta = dict(node.meta)
            reader.replace_input_with(node, copy)


def copy_graph(graph: Graph) -> Graph:
    """A copy of a graph with nodes and metadata of its own, and the same calling convention."""
    copied = Graph()
    copied.output(copied.graph_copy(graph, {}))
    copied.set_codegen(graph._codegen)
    return copied


def node_operands(arguments: Any) -> list[Node]:
    """The nodes inside nested arguments, in order."""
    found: list[Node] = []
    torch.fx.node.map_arg(arguments, lambda n: found.append(n))
    return found


def static_shape(shape: Sequence[Any]) -> tuple[int, ...] | None:
    return tuple(shape) if all(isinstance(size, int) for size in shape) else None
