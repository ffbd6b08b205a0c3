"""Condense fires with equal numerics, refuses where it is not legal or not wanted, and finds nothing again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

import sparsefx
from sparsefx.passes.capture import capture
from sparsefx.passes.condense import Condense, SparseLayer
from sparsefx.passes.errors import PassError
from sparsefx.passes.graph import operator_name
from sparsefx.training.recipes.nets import SmallResNet


class Net(nn.Module):
    """A sparse layer, and what is done with its result."""

    def __init__(self, layer: nn.Module, then: Callable[[Tensor, Tensor], Any] = lambda y, x: y) -> None:
        super().__init__()
        self.layer, self.then = layer, then

    def forward(self, x: Tensor) -> Any:
        return self.then(self.layer(x), x)


def sparse(layer: nn.Module, density: float = 0.2) -> nn.Module:
    """In float64, with every weight kept with a probability of `density`."""
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape) < density)
    return layer.double()


def condensed(net: nn.Module, x: Tensor, condense: Condense | None = None) -> GraphModule:
    """The graph after the pass, which has been checked to compute the same."""
    graph = capture(net.eval(), (x,))
    exact = graph(x)
    result = (condense or Condense())(graph)
    torch.testing.assert_close(result.graph_module(x), exact, rtol=0, atol=1e-12)
    assert not (condense or Condense())(graph).modified
    return graph


def operators(graph: GraphModule) -> list[str]:
    return [operator_name(n).partition("::")[2] for n in graph.graph.nodes if n.op == "call_function"]


IMAGE = torch.randn(2, 6, 9, 8, dtype=torch.float64)
TOKENS = torch.randn(2, 5, 12, dtype=torch.float64)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 8, 3),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.Conv2d(6, 8, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(1, 2)),
        nn.Conv2d(6, 8, 3, stride=2, groups=2),
        nn.Conv2d(6, 12, 3, groups=6),
        nn.Conv2d(6, 8, 1),
    ],
    ids=str,
)
def test_convolutions(layer: nn.Module) -> None:
    assert operators(condensed(Net(sparse(layer)), IMAGE)) == ["condensed_conv2d"]


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    assert operators(condensed(Net(sparse(nn.Linear(12, 7, bias))), TOKENS)) == ["condensed_linear"]


def test_a_layer_without_any_weight() -> None:
    assert operators(condensed(Net(sparse(nn.Linear(12, 7), 0.0)), TOKENS)) == ["condensed_linear"]


TAKEN_ALONG: dict[str, tuple[Callable[[Tensor, Tensor], Any], list[str]]] = {
    "relu": (lambda y, x: torch.relu(y), ["condensed_conv2d"]),
    "residual": (lambda y, x: y + x, ["condensed_conv2d"]),
    "residual first": (lambda y, x: x + y, ["condensed_conv2d"]),
    "residual and relu": (lambda y, x: torch.relu(x + y), ["condensed_conv2d"]),
    "relu, then residual": (lambda y, x: torch.relu(y) + x, ["condensed_conv2d", "add"]),
    "a broadcast": (lambda y, x: y + x.mean((2, 3), keepdim=True), ["mean", "condensed_conv2d", "add"]),
    "a number": (lambda y, x: y + 1.0, ["condensed_conv2d", "add"]),
    "another factor": (lambda y, x: torch.add(y, x, alpha=2), ["condensed_conv2d", "add"]),
    "itself": (lambda y, x: y + y, ["condensed_conv2d", "add"]),
    "read twice": (lambda y, x: (y, torch.relu(y)), ["condensed_conv2d", "relu"]),
    "sum read twice": (lambda y, x: (lambda s: (s, torch.relu(s)))(y + x), ["condensed_conv2d", "relu"]),
    "another activation": (lambda y, x: torch.sigmoid(y), ["condensed_conv2d", "sigmoid"]),
}


@pytest.mark.parametrize("case", TAKEN_ALONG)
def test_what_follows_is_taken_along(case: str) -> None:
    then, expected = TAKEN_ALONG[case]
    graph = condensed(Net(sparse(nn.Conv2d(6, 6, 3, padding=1)), then), IMAGE)
    assert sorted(operators(graph)) == sorted(expected)


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (lambda y, x: F.gelu(y), ["condensed_linear"]),
        (lambda y, x: F.gelu(x + y), ["condensed_linear"]),
        (lambda y, x: F.gelu(y, approximate="tanh"), ["condensed_linear", "gelu"]),
    ],
    ids=["gelu", "residual and gelu", "gelu by tanh"],
)
def test_a_linear_layer_takes_a_gelu_along(then: Callable[[Tensor, Tensor], Any], expected: list[str]) -> None:
    assert operators(condensed(Net(sparse(nn.Linear(12, 12)), then), TOKENS)) == expected


def test_a_convolution_takes_no_gelu_along() -> None:
    graph = condensed(Net(sparse(nn.Conv2d(6, 8, 3)), lambda y, x: F.gelu(y)), IMAGE)
    assert operators(graph) == ["condensed_conv2d", "gelu"]


class Computed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, x[0] * 0.0)


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (Net(sparse(nn.Linear(12, 7), 0.9)), TOKENS),
        (Net(sparse(nn.Conv1d(5, 4, 3))), TOKENS),
        (Net(sparse(nn.ConvTranspose2d(6, 4, 3))), IMAGE),
        (Net(sparse(nn.Conv2d(6, 4, 3, padding="same"))), IMAGE),
        (Computed(), TOKENS),
    ],
    ids=["dense", "conv1d", "transposed", "padding in words", "computed weight"],
)
def test_it_leaves_alone(net: nn.Module, x: Tensor) -> None:
    assert not Condense()(capture(net.eval(), (x,))).modified


def test_the_caller_chooses() -> None:
    seen: list[float] = []

    def select(layer: SparseLayer) -> bool:
        seen.append(layer.density)
        return "0" in str(layer.node.args[1])

    net = nn.Sequential(sparse(nn.Linear(12, 8), 0.5), nn.ReLU(), sparse(nn.Linear(8, 8), 0.5))
    graph = capture(net, (TOKENS,))
    assert Condense(select)(graph).modified
    assert operators(graph) == ["condensed_linear", "linear"]
    assert len(seen) == 2 and all(0.3 < density < 0.7 for density in seen)
    weights = {name for name, _ in (*graph.named_parameters(), *graph.named_buffers()) if name.startswith("0")}
    assert weights == {"0.bias", "0.weight_values", "0.weight_columns", "0.weight_starts"}


def test_a_whole_compiled_network_with_a_dynamic_batch() -> None:
    torch.manual_seed(0)
    model = SmallResNet().double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(torch.rand(weight.shape) < (0.1 if "stage" in name else 1.0))
    x = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    compiled = sparsefx.compile(model, (x,), target="torch", tolerance=1e-9)
    graph = compiled.graph_module
    assert Condense()(graph).modified
    assert operators(graph) == ["conv2d", "relu", *["condensed_conv2d"] * 15, "mean", "linear"]
    for batch in (1, 5):
        image = torch.randn(batch, 1, 16, 16, dtype=torch.float64)
        torch.testing.assert_close(graph(image), model(image), rtol=0, atol=1e-9)


def test_a_graph_without_shapes_is_refused() -> None:
    with pytest.raises(PassError, match="Condense: input x has no shape"):
        Condense()(torch.fx.symbolic_trace(Net(sparse(nn.Linear(12, 7)))))
