"""FoldUnreached: tensors that no input reaches become constants, in the shape that their readers need."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sparsefx.passes.capture import capture
from sparsefx.passes.fold_unreached import FoldUnreached
from sparsefx.passes.graph import operator_name


def _operators(graph: torch.fx.GraphModule) -> list[str]:
    return [operator_name(n).removeprefix("aten::") for n in graph.graph.nodes if n.op == "call_function"]


class Branch(nn.Module):
    """A residual block of three layers, one of which is zero."""

    def __init__(self, zero: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList([nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 4, 1)])
        self.head = nn.Conv2d(4, 2, 1)
        nn.init.zeros_(self.layers[zero].weight)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = x
        for layer in self.layers:
            y = torch.relu(layer(y))
        out: Tensor = self.head(x + y)
        return out


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_a_branch_behind_a_zero_layer_is_a_constant(zero: int) -> None:
    model = Branch(zero).double().eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    graph = capture(model, (x,))
    assert FoldUnreached()(graph).modified
    assert _operators(graph) == ["conv2d", "relu", "add", "conv2d"]
    for batch in (1, 3):
        x = torch.randn(batch, 3, 6, 6, dtype=torch.float64)
        torch.testing.assert_close(graph(x), model(x).detach(), rtol=1e-12, atol=1e-12)
    assert not FoldUnreached()(graph).modified


def test_positional_constants_stay_where_sizes_are_dynamic() -> None:
    model = Branch(0).double().eval()
    sizes = {0: torch.export.Dim("b"), 2: torch.export.Dim("h", min=3), 3: torch.export.Dim("w", min=3)}
    graph = capture(model, (torch.randn(2, 3, 6, 6, dtype=torch.float64),), dynamic_shapes=(sizes,))
    FoldUnreached()(graph)
    assert _operators(graph).count("conv2d") == 4  # the layer of zeros is gone, what its border shapes is not
    for shape in ((1, 3, 4, 9), (2, 3, 8, 5)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(graph(x), model(x).detach(), rtol=1e-12, atol=1e-12)


class Dead(nn.Module):
    """Its outputs do not depend on the input, in several shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 3)
        nn.init.zeros_(self.a.weight)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = torch.sigmoid(self.a(x))
        return {"whole": y, "row": y[:, 0], "flat": y.reshape(-1), "pairs": y[:, None, :].expand(-1, 2, -1)}


def test_constant_outputs_take_the_batch_of_the_input() -> None:
    model = Dead().eval()
    graph = capture(model, (torch.randn(2, 4),))
    assert FoldUnreached()(graph).modified
    assert "linear" not in _operators(graph)
    for batch in (1, 5):
        x = torch.randn(batch, 4)
        torch.testing.assert_close(graph(x), {k: v.detach() for k, v in model(x).items()})
