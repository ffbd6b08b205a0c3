"""A graph as torch.compile hands it to a backend, and as the passes want it: with its weights as constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import Graph, GraphModule, Node

from ...passes.capture import capture
from ...passes.errors import CaptureError, TargetError
from ...passes.graph import bind, copy_graph, operator_name

_SIZE = torch.ops.aten.sym_size.int
_SWITCHES = ("training", "train", "use_input_stats")  # what layers call training mode


class Subgraph:
    """Inputs are weights (parameters and buffers), data (tensors), and sizes of the data where those are dynamic."""

    def __init__(self, graph_module: GraphModule, example_inputs: Sequence[Any]) -> None:
        self._graph_module = graph_module
        self._placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        self._weights = [i for i, value in enumerate(example_inputs) if _is_weight(value)]
        self._data = [
            i for i, value in enumerate(example_inputs) if isinstance(value, Tensor) and i not in self._weights
        ]

    def weights_of(self, inputs: Sequence[Any]) -> list[Tensor]:
        return [inputs[i] for i in self._weights]

    def data_of(self, inputs: Sequence[Any]) -> list[Tensor]:
        return [inputs[i] for i in self._data]

    def capture(self, inputs: Sequence[Any]) -> tuple[GraphModule, bool]:
        """A graph of ATen operators for the data alone, and whether it is for data of just these sizes.

        Raises CaptureError, and TargetError for training.
        """
        shapes = tuple(self._dynamic_axes(self._placeholders[i]) for i in self._data)
        try:
            return self._capture(inputs, shapes), False
        except CaptureError:
            if not any(shapes):
                raise
        return self._capture(inputs, tuple({} for _ in shapes)), True

    def _capture(self, inputs: Sequence[Any], shapes: tuple[dict[int, Any], ...]) -> GraphModule:
        module = self._with_constants(inputs)
        data = tuple(value.detach() for value in self.data_of(inputs))
        try:
            with torch._guards.tracing(None), torch.no_grad():  # not in the middle of torch.compile's own tracing
                graph = capture(module, data, dynamic_batch=False, dynamic_shapes=shapes or None)
        except CaptureError as error:
            raise CaptureError(
                f"a piece of the model cannot be slimmed: {error} With torch.compile, torch.compiler.disable leaves a "
                "part of the model out."
            ) from error
        _refuse_training(graph)
        return graph

    def _with_constants(self, inputs: Sequence[Any]) -> GraphModule:
        """The graph with weights as attributes; sizes are read off the data."""
        graph = copy_graph(self._graph_module.graph)
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        root = nn.Module()
        for name, module in self._graph_module.named_children():
            root.add_module(name, module)
        own = self._graph_module
        for name, constant in (*own.named_parameters(recurse=False), *own.named_buffers(recurse=False)):
            _register(root, name, constant)
        behind = next(node for node in graph.nodes if node.op != "placeholder")
        for i, node in enumerate(placeholders):
            if i in self._data:
                continue
            if node.users:
                with graph.inserting_before(behind):
                    new = self._constant(graph, root, node, inputs[i], placeholders)
                new.meta = dict(node.meta)
                node.replace_all_uses_with(new)
            graph.erase_node(node)
        return GraphModule(root, graph)

    def _constant(self, graph: Graph, root: nn.Module, node: Node, value: Any, placeholders: Sequence[Node]) -> Node:
        if isinstance(value, Tensor):
            _register(root, node.name, value)
            return graph.get_attr(node.name)
        wanted = str(node.meta.get("example_value"))
        for i in self._data:
            for axis, size in enumerate(_shape(placeholders[i])):
                if str(size) == wanted:
                    return graph.call_function(_SIZE, (placeholders[i], axis))
        raise CaptureError(
            f"the number {node.name} ({wanted}) changes from call to call and is no size of an input tensor; "
            "compile with torch.compile(..., dynamic=False)"
        )

    def _dynamic_axes(self, placeholder: Node) -> dict[int, Any]:
        return {axis: Dim.DYNAMIC for axis, size in enumerate(_shape(placeholder)) if not isinstance(size, int)}


def _is_weight(value: Any) -> bool:
    """Parameters, and buffers, which torch.compile marks. What inference mode made counts no writes: it is data."""
    if not isinstance(value, Tensor) or value.is_inference():
        return False
    return isinstance(value, nn.Parameter) or getattr(value, "_dynamo_static_input_type", None) is not None


def _shape(placeholder: Node) -> Sequence[Any]:
    value = placeholder.meta.get("example_value")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _register(root: nn.Module, name: str, value: Tensor) -> None:
    if isinstance(value, nn.Parameter):
        root.register_parameter(name, value)
    else:
        root.register_buffer(name, value)


def _refuse_training(graph_module: GraphModule) -> None:
    """Raise TargetError for layers in training mode, and for writes to weights or inputs."""
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        arguments = bind(node)
        if any(arguments.get(switch) is True for switch in _SWITCHES):
            raise TargetError(
                f"sparsefx's backend is for inference, and {operator_name(node)} ({node.name}) is in training mode: "
                "call model.eval() first"
            )
        if operator_name(node) == "aten::copy_":
            raise TargetError(
                f"the graph writes to {node.args[0]}, a weight or an input, and a slim graph cannot; is the model in "
                "training mode (model.eval()), or does it change its input in place?"
            )
