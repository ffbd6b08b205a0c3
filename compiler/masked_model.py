"""The masked model: the reference that a compiled model has to reproduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..passes.capture import evaluation_mode, explain_own_failure
from ..passes.describe import output_leaves
from ..passes.errors import CaptureError
from ..passes.exhaustion import exhausted
from ..passes.graph import copy_graph
from ..passes.reference import Float64Interpreter, flat_inputs
from ..passes.signature import Signature, Tree


class MaskedModel:
    """Runs the user's own model with masked weights, in its own precision or in float64; the model is not changed.

    `graph` is the captured graph with the masks applied. It stands in where there is no module (an exported
    program), and for float64 where the module makes tensors of a fixed lower precision itself.
    """

    def __init__(self, model: Any, masked: Mapping[str, Tensor], graph: GraphModule, signature: Signature) -> None:
        self._module = model if isinstance(model, nn.Module) else None
        self._masked = dict(masked)
        self.graph = keep_graph(graph)
        self._result = signature.result
        self._graph_stands_in = False  # whether run_float64 has to use the graph although there is a module

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Output tensors in the signature's order, in the model's own precision."""
        if self._module is None:
            return self._graph_outputs(self.graph, args, kwargs)
        return self._module_outputs(self._masked, args, kwargs)

    def run_float64(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The same with every floating-point tensor in float64."""
        if self._module is not None and not self._graph_stands_in:
            state = {**dict(self._module.named_parameters()), **dict(self._module.named_buffers()), **self._masked}
            once = {id(tensor): _widen(tensor) for tensor in state.values()}  # tied parameters stay tied
            wide = {name: once[id(tensor)] for name, tensor in state.items()}
            try:
                return self._module_outputs(wide, *pytree.tree_map(_widen, (list(args), dict(kwargs))))
            except RuntimeError as error:
                if "type" not in str(error):
                    raise
                self._graph_stands_in = True
        inputs = [leaf for leaf in pytree.tree_leaves((list(args), dict(kwargs))) if isinstance(leaf, Tensor)]
        return [_unwrap(t) for t in run_graph_float64(self.graph, inputs)]

    def _module_outputs(self, state: Mapping[str, Tensor], args: Sequence[Any], kwargs: Any) -> list[Tensor]:
        assert self._module is not None
        with evaluation_mode(self._module), torch.no_grad():
            outputs = torch.func.functional_call(self._module, dict(state), tuple(args), dict(kwargs))
        return flat_outputs(self._result, outputs)

    def run_own(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """As `run`; CaptureError where the model does not take arguments like its example inputs."""
        try:
            return self.run(args, kwargs)
        except Exception as error:
            if exhausted(error) is not None:
                raise
            name = type(self._module).__name__ if self._module is not None else "the exported program"
            raise CaptureError(explain_own_failure(name, error, args, kwargs)) from error

    def _graph_outputs(self, graph: GraphModule, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        with torch.no_grad():
            return flat_outputs(self._result, graph(*args, **kwargs))


def keep_graph(graph_module: GraphModule) -> GraphModule:
    """A copy of a graph that later passes over the original do not change; tensors are shared."""
    kept = GraphModule(graph_module, copy_graph(graph_module.graph))
    kept.meta.update(graph_module.meta)
    return kept


def run_graph_float64(graph_module: GraphModule, inputs: Sequence[Any]) -> list[Any]:
    """Distinct output tensors of a captured graph in float64, in the signature's order, for flat tensors."""
    outputs = Float64Interpreter(graph_module).run_flat(flat_inputs(graph_module, inputs))
    nodes = output_leaves(graph_module)
    first = {
        node: value for node, value in reversed(list(zip(nodes, outputs, strict=True))) if isinstance(value, Tensor)
    }
    return [first[node] for node in dict.fromkeys(n for n in nodes if n in first)]


def flat_outputs(result: Tree, outputs: Any) -> list[Tensor]:
    """Distinct tensors of a model's result, in the signature's order."""
    by_index = dict(zip(_leaf_order(result), pytree.tree_leaves(outputs), strict=True))
    return [by_index[i] for i in sorted(i for i in by_index if i >= 0)]


def _widen(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _unwrap(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _leaf_order(tree: Tree) -> list[int]:
    """For every leaf of the result, in pytree order, the index of its tensor; -1 for literals."""
    if tree.kind == "tensor":
        return [tree.index]
    if tree.kind == "literal":
        return [-1]
    return [index for item in tree.items for index in _leaf_order(item)]
