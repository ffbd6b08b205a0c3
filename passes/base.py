"""What every pass has in common: it is a torch.fx PassBase whose graph is checked before and after."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from .errors import PassError
from .graph import ShapePropagation, one_reader_per_node, tensor_meta


class GraphPass(PassBase):
    """A rewrite of a captured graph, in place.

    Precondition: placeholders carry fake tensors (`meta["val"]`), as torch.export leaves them. Postcondition: the
    graph is well formed, every operator accepts its operands' shapes, and the outputs keep theirs. A pass
    that breaks its graph is named in the PassError.
    """

    @abstractmethod
    def rewrite(self, graph_module: GraphModule) -> bool:
        """Change the graph; tell whether anything changed."""

    def __call__(self, graph_module: GraphModule) -> PassResult:
        result = super().__call__(graph_module)
        assert result is not None
        return result

    def call(self, graph_module: GraphModule) -> PassResult:
        before = _output_shapes(graph_module)
        one_reader_per_node(graph_module)
        modified = self.rewrite(graph_module)
        if modified:
            _relax_views(graph_module)
            graph_module.graph.eliminate_dead_code(lambda node: node.is_impure(impure_random=False))
            graph_module.delete_all_unused_submodules()
            _delete_unused_constants(graph_module)
            graph_module.recompile()
            self._check(graph_module, before)
        return PassResult(graph_module, modified)

    def requires(self, graph_module: GraphModule) -> None:
        missing = [n.name for n in graph_module.graph.nodes if n.op == "placeholder" and "val" not in n.meta]
        if missing:
            raise PassError(
                f"{type(self).__name__}: input {missing[0]} has no shape; "
                "capture the model with sparsefx.passes.capture, or hand over a graph from torch.export"
            )

    def _check(self, graph_module: GraphModule, before: list[Any]) -> None:
        name = type(self).__name__
        try:
            check_graph(graph_module)
        except PassError as error:
            raise PassError(f"{name} left {error}") from error.__cause__
        after = _output_shapes(graph_module)
        if after != before:
            raise PassError(f"{name} changed the output shapes from {before} to {after}")


def check_graph(graph_module: GraphModule) -> None:
    """Raise PassError unless the graph is well formed and every operator accepts its operands' shapes."""
    try:
        graph_module.graph.lint()
        ShapePropagation(graph_module).propagate()
    except Exception as error:
        raise PassError(f"a graph that does not hold together: {error}") from error


def _relax_views(graph_module: GraphModule) -> None:
    """A view relies on the strides of its operand, which a rewrite may change; a reshape does not."""
    for node in graph_module.graph.nodes:
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default
            node.args = (node.args[0], node.kwargs.get("size", node.args[-1]))
            node.kwargs = {}


def _output_shapes(graph_module: GraphModule) -> list[Any]:
    output = next(n for n in graph_module.graph.nodes if n.op == "output")
    metas = [tensor_meta(n) for n in output.all_input_nodes]
    return [(str(tuple(m.shape)), m.dtype) for m in metas if m is not None]


def _delete_unused_constants(graph_module: GraphModule) -> None:
    used = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
    for name, module in graph_module.named_modules():
        for store in (module._parameters, module._buffers):
            for key in [k for k in store if f"{name}.{k}".lstrip(".") not in used]:
                del store[key]
