"""Nets whose layers have channels that do nothing there, for the passes that thin layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from sparsefx.passes.base import GraphPass
from sparsefx.passes.capture import capture
from sparsefx.passes.graph import operator_name

IMAGES = torch.randn(2, 8, 7, 6, dtype=torch.float64)
TOKENS = torch.randn(2, 5, 8, dtype=torch.float64)


class Net(nn.Module):
    """Layers by name, and a function of them."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


def without(layer: nn.Module, *, inputs: Sequence[int] = (), outputs: Sequence[int] = (), axis: int = 0) -> nn.Module:
    """The layer with zero weights there; `axis` is that of its outputs."""
    with torch.no_grad():
        layer.weight.index_fill_(1 - axis, torch.tensor(inputs, dtype=torch.int64), 0)
        layer.weight.index_fill_(axis, torch.tensor(outputs, dtype=torch.int64), 0)
    return layer


def thinned(net: nn.Module, x: Tensor, *passes: GraphPass) -> GraphModule:
    """The graph after passes that fire, checked at several batch sizes; they find nothing more."""
    net = net.eval().double()
    graph = capture(net, (x,))
    for graph_pass in passes:
        assert graph_pass(graph).modified
    for batch in (1, 2, 3):
        fresh = torch.randn(batch, *x.shape[1:], dtype=torch.float64)
        torch.testing.assert_close(graph(fresh), net(fresh), rtol=0, atol=1e-12)
    for graph_pass in passes:
        assert not graph_pass(graph).modified
    return graph


def operators(graph: GraphModule) -> list[str]:
    return [operator_name(n).partition("::")[2] for n in graph.graph.nodes if n.op == "call_function"]


def weights(graph: GraphModule) -> dict[str, tuple[int, ...]]:
    return {n.removesuffix(".weight"): tuple(p.shape) for n, p in graph.state_dict().items() if n.endswith("weight")}
