"""FoldBatchNorm fires with equal numerics, refuses where it is not legal, and finds nothing the second time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sparsefx.passes.capture import capture
from sparsefx.passes.fold_batch_norm import FoldBatchNorm
from sparsefx.passes.fold_constants import FoldConstants
from sparsefx.passes.graph import operator_name


def _random(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None and m.running_var is not None:
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2.0)
            if m.affine:
                nn.init.normal_(m.weight)
                nn.init.normal_(m.bias)
    return module.double().eval()


class Chain(nn.Module):
    """A layer, then `then`, then a ReLU."""

    def __init__(self, layer: nn.Module, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        if isinstance(then, nn.Module):
            self.follower = then
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.then(self.layer(x)))


def _operators(graph: torch.fx.GraphModule) -> list[str]:
    return [operator_name(n).removeprefix("aten::") for n in graph.graph.nodes if n.op == "call_function"]


LEGAL = {
    "conv1d": (nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), (2, 3, 8)),
    "conv2d without bias": (nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), (2, 4, 8, 8)),
    "conv3d": (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3, affine=False), (2, 2, 4, 4, 4)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    "linear": (nn.Linear(5, 4), nn.BatchNorm1d(4), (3, 5)),
    "shift": (nn.Conv2d(3, 4, 3), lambda x: x + torch.arange(4.0).reshape(1, 4, 1, 1), (2, 3, 6, 6)),
    "scale": (nn.Conv2d(3, 4, 3), lambda x: torch.arange(4.0).reshape(4, 1, 1) * x, (2, 3, 6, 6)),
    "number": (nn.Linear(5, 4), lambda x: x * 3.0, (3, 5)),
}


@pytest.mark.parametrize("name", LEGAL)
def test_it_folds_with_equal_numerics_and_then_finds_nothing(name: str) -> None:
    layer, then, shape = LEGAL[name]
    model = _random(Chain(layer, then))
    x = torch.randn(shape, dtype=torch.float64)
    graph = capture(model, (x,))
    FoldConstants()(graph)
    assert FoldBatchNorm()(graph).modified
    assert len(_operators(graph)) == 2, _operators(graph)
    torch.testing.assert_close(graph(x), model(x).detach(), rtol=1e-12, atol=1e-12)
    assert not FoldBatchNorm()(graph).modified


class Shared(nn.Module):
    """Two normalisations read one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.a, self.b = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        out: Tensor = self.a(y) + self.b(y)
        return out


ILLEGAL = {
    "two readers": (Shared(), (2, 3, 6, 6)),
    "a map over positions": (Chain(nn.Conv2d(3, 4, 3), lambda x: x + torch.arange(16.0).reshape(4, 4)), (2, 3, 6, 6)),
    "broadcast of one channel": (Chain(nn.Conv2d(3, 1, 3), lambda x: x + torch.ones(1, 5, 1, 1)), (2, 3, 6, 6)),
    "tokens": (Chain(nn.Linear(3, 4), nn.BatchNorm1d(7)), (2, 7, 3)),
    "scaled addition": (Chain(nn.Linear(3, 4), lambda x: torch.add(x, torch.ones(4), alpha=2)), (2, 3)),
    "its own square": (Chain(nn.Linear(3, 4), lambda x: x * x), (2, 3)),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_it_leaves_alone_what_is_no_affine_function_per_channel(name: str) -> None:
    model, shape = ILLEGAL[name]
    x = torch.randn(shape, dtype=torch.float64)
    graph = capture(_random(model), (x,))
    FoldConstants()(graph)
    before = _operators(graph)
    assert not FoldBatchNorm()(graph).modified
    assert _operators(graph) == before


def test_a_layer_called_twice_is_folded_once_per_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.a, self.b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(self.layer(torch.relu(self.a(self.layer(x)))))
            return out

    model = _random(Twice())
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    graph = capture(model, (x,))
    assert FoldBatchNorm()(graph).modified
    assert _operators(graph) == ["conv2d", "relu", "conv2d"]
    torch.testing.assert_close(graph(x), model(x).detach(), rtol=1e-12, atol=1e-12)
