"""FoldConstants and ShareConstants: what is computed once, what is not, and what is stored once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsefx.passes.capture import capture
from sparsefx.passes.fold_constants import FoldConstants
from sparsefx.passes.graph import ORIGIN, constant_of, operator_name
from sparsefx.passes.remove_channels import RemoveChannels
from sparsefx.passes.share_constants import ShareConstants


def _operators(graph: torch.fx.GraphModule) -> list[str]:
    return [operator_name(n).removeprefix("aten::") for n in graph.graph.nodes if n.op == "call_function"]


class Standardised(nn.Module):
    """The weight is an expression of the parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.register_buffer("table", torch.arange(8.0))

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean(1, keepdim=True)) / self.weight.std(1, keepdim=True)
        shift = self.table[2:6] * 2 + x.new_zeros(4)
        return torch.nn.functional.linear(x, weight, shift)


def test_expressions_of_parameters_are_computed_once() -> None:
    model = Standardised().double()
    x = torch.randn(2, 3, dtype=torch.float64)
    graph = capture(model, (x,))
    assert FoldConstants()(graph).modified
    assert _operators(graph) == ["linear"]
    weight = next(n for n in graph.graph.nodes if n.op == "call_function").args[1]
    assert weight.meta[ORIGIN] == "weight"
    torch.testing.assert_close(graph(x), model(x).detach())
    assert not FoldConstants()(graph).modified


class ScaledStandardised(nn.Conv2d):
    """timm's form: a BatchNorm over the weight, which has three results."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, len(self.weight), -1)
        weight = torch.nn.functional.batch_norm(rows, None, None, training=True, momentum=0.0)
        return torch.nn.functional.conv2d(x, weight.reshape_as(self.weight), self.bias)


def test_one_of_several_results_is_computed_once() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(ScaledStandardised(3, 8, 3), nn.ReLU(), ScaledStandardised(8, 4, 3)).double()
    with torch.no_grad():
        model[0].weight[:3] = 0
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = capture(model, (x,))
    assert FoldConstants()(graph).modified
    assert _operators(graph) == ["conv2d", "relu", "conv2d"]
    torch.testing.assert_close(graph(x), model(x).detach())
    RemoveChannels()(graph)
    weights = [n.args[1] for n in graph.graph.nodes if operator_name(n) == "aten::conv2d"]
    assert [tuple(constant_of(n).shape) for n in weights] == [(5, 3, 3, 3), (4, 5, 3, 3)]
    torch.testing.assert_close(graph(x), model(x).detach())


class NotFoldable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.ones(1))
        self.register_buffer("row", torch.ones(1, 2048))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        noise = torch.rand(4)
        table = self.row.t() @ self.row  # four million numbers out of two thousand
        return x * (self.seen * 2) + noise + torch.arange(x.shape[0])[:, None] + table.sum()


def test_what_changes_is_random_dynamic_or_grows_is_not() -> None:
    graph = capture(NotFoldable(), (torch.randn(2, 4),))
    FoldConstants()(graph)
    assert {"rand", "arange", "matmul", "copy_"} <= set(_operators(graph))
    assert _operators(graph).count("mul") == 2


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.a(torch.tanh(self.shared(x))) + self.b(torch.relu(self.shared(-x)))
        return out


def _stored(graph: torch.fx.GraphModule) -> int:
    return sum(t.numel() for t in [*graph.parameters(), *graph.buffers()])


def test_equal_cuts_of_a_shared_layer_are_stored_once() -> None:
    model = Tied().double().eval()
    with torch.no_grad():
        for layer in (model.a, model.b):
            layer.weight[:, :3] = 0
    x = torch.randn(2, 4, dtype=torch.float64)
    graph = capture(model, (x,))
    RemoveChannels()(graph)
    twice = _stored(graph)
    assert ShareConstants()(graph).modified
    assert twice - _stored(graph) == 3 * 4 + 3
    torch.testing.assert_close(graph(x), model(x).detach())
    assert not ShareConstants()(graph).modified


def test_different_cuts_stay_apart() -> None:
    model = Tied().double().eval()
    with torch.no_grad():
        model.a.weight[:, :3] = 0
        model.b.weight[:, 3:] = 0
    graph = capture(model, (torch.randn(2, 4, dtype=torch.float64),))
    RemoveChannels()(graph)
    assert not ShareConstants()(graph).modified
