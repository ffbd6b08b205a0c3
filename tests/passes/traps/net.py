"""Small models written as functions of their parts, and what the tests ask of a rewritten one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from sparsefx.compiler.pipeline import run_pipeline
from sparsefx.passes.capture import capture
from sparsefx.passes.graph import ORIGIN, operator_name
from tests.helpers import TOLERANCE, MakeInputs, Rewritten, assert_exact, slim, worst_error


class Net(nn.Module):
    """`forward(net, *inputs)` over parts: modules, parameters, and tensors that become buffers."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self._forward(self, *inputs)

    if TYPE_CHECKING:  # parts are set by name

        def __getattr__(self, name: str) -> Any: ...


# Masks; biases always stay, so that what is cut off is a constant other than zero


@torch.no_grad()
def ablate(layer: nn.Module, outputs: Iterable[int]) -> None:
    """Zero the filters of some outputs."""
    layer.get_parameter("weight")[list(outputs)] = 0.0


@torch.no_grad()
def ignore(layer: nn.Module, inputs: Iterable[int]) -> None:
    """Zero the columns of some inputs."""
    layer.get_parameter("weight")[:, list(inputs)] = 0.0


# What is left


def widths(graph_module: GraphModule) -> dict[str, tuple[int, ...]]:
    """The first two sizes of every layer's weight, by parameter; a later call of a layer has its number behind it."""
    calls: Counter[str] = Counter()
    found: dict[str, tuple[int, ...]] = {}
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or not operator_name(node).startswith(("aten::conv", "aten::linear")):
            continue
        weights = [n for n in node.all_input_nodes if n.op == "get_attr" and n.meta["val"].ndim > 1]
        if weights:
            name = str(weights[0].meta[ORIGIN]).removesuffix(".weight").replace(".", "_")
            calls[name] += 1
            number = "" if calls[name] == 1 else f"_{calls[name]}"
            found[name + number] = tuple(weights[0].meta["val"].shape[:2])
    return found


def assert_widths(graph_module: GraphModule, **expected: tuple[int, int] | None) -> None:
    """Layers and the first two sizes that their weights should have; None for a layer that should be gone."""
    everything = widths(graph_module)
    found = {name: everything.get(name) for name in expected}
    assert found == expected, f"found {found}, expected {expected}"


def assert_slim(model: nn.Module, make_inputs: MakeInputs, **expected: tuple[int, int] | None) -> Rewritten:
    """The rewritten model is the same function, a fixed point, and of the expected widths."""
    rewritten = slim(model, make_inputs)
    assert_exact(rewritten, model, make_inputs)
    assert_widths(rewritten.graph_module, **expected)
    return rewritten


def assert_pipeline(net: nn.Module, make_inputs: MakeInputs, **expected: tuple[int, int] | None) -> GraphModule:
    """The same of the whole pipeline, without asking for a fixed point."""
    graph = capture(net.double().eval(), make_inputs(2))
    run_pipeline(graph)
    assert worst_error(graph, net, make_inputs) <= TOLERANCE
    assert_widths(graph, **expected)
    return graph
