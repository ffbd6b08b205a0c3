"""GatherInputs fires with equal numerics, shares gathers, leaves alone what is dense, and finds nothing again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sparsefx.passes.capture import capture
from sparsefx.passes.errors import PassError
from sparsefx.passes.gather_inputs import GatherInputs
from sparsefx.passes.graph import INDICES
from sparsefx.passes.patterns import apply_patterns
from sparsefx.passes.thinning import thin_inputs

from .thin_nets import IMAGES, TOKENS, Net, operators, thinned, weights, without


def alone(layer: nn.Module) -> Net:
    return Net(lambda m, x: m.layer(x), layer=layer)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (without(nn.Conv2d(8, 4, 3, padding=1), inputs=(0, 3, 7)), (4, 5, 3, 3)),
        (without(nn.Conv2d(8, 4, 3, 2, dilation=2, padding_mode="reflect", padding=2), inputs=(1, 2)), (4, 6, 3, 3)),
        (without(nn.Conv2d(8, 4, 1, bias=False), inputs=range(7)), (4, 1, 1, 1)),
        (without(nn.ConvTranspose2d(8, 4, 3, 2), inputs=(0, 3), axis=1), (6, 4, 3, 3)),
    ],
    ids=["padded", "strided and dilated", "one left", "transposed"],
)
def test_convolutions(layer: nn.Module, shape: tuple[int, ...]) -> None:
    graph = thinned(alone(layer), IMAGES, GatherInputs())
    assert operators(graph).count("index_select") == 1
    assert weights(graph) == {"layer": shape}


def test_convolutions_along_a_line() -> None:
    line = torch.randn(2, 8, 9, dtype=torch.float64)
    assert weights(thinned(alone(without(nn.Conv1d(8, 4, 3), inputs=(0, 1))), line, GatherInputs()))["layer"] == (
        4,
        6,
        3,
    )


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    graph = thinned(alone(without(nn.Linear(8, 4, bias), inputs=(1, 4, 5))), TOKENS, GatherInputs())
    assert operators(graph) == ["index_select", "linear"] and weights(graph) == {"layer": (4, 5)}


def test_a_product_with_a_matrix() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(8, 4, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix

    net = Product()
    with torch.no_grad():
        net.matrix[[2, 6]] = 0
    graph = thinned(net, TOKENS, GatherInputs())
    assert {tuple(p.shape) for n, p in graph.named_parameters()} == {(6, 4)}


def test_groups_keep_equally_many() -> None:
    """The first group needs two of its four inputs, the second three: both read three."""
    layer = nn.Conv2d(8, 6, 3, groups=2)
    with torch.no_grad():
        layer.weight[:3, :2] = 0
        layer.weight[3:, 1] = 0
    graph = thinned(alone(layer), IMAGES, GatherInputs())
    assert weights(graph) == {"layer": (6, 3, 3, 3)}
    (node,) = (n for n in graph.graph.nodes if INDICES in n.meta)
    assert node.meta[INDICES].inputs.tolist() == [0, 2, 3, 4, 6, 7]


def test_readers_of_the_same_channels_share_a_gather() -> None:
    a, b = (without(nn.Conv2d(8, 4, 1), inputs=(0, 5)) for _ in range(2))
    other = without(nn.Conv2d(8, 4, 1), inputs=(0, 6))
    graph = thinned(Net(lambda m, x: m.a(x) + m.b(x) + m.other(x), a=a, b=b, other=other), IMAGES, GatherInputs())
    assert operators(graph).count("index_select") == 2


def test_readers_that_are_no_layers_see_everything() -> None:
    layer = without(nn.Conv2d(8, 8, 3, padding=1), inputs=(0, 1, 2))
    net = Net(lambda m, x: (torch.sigmoid(x) * m.layer(x), x.mean((2, 3))), layer=layer)
    assert operators(thinned(net, IMAGES, GatherInputs())) == ["sigmoid", "index_select", "conv2d", "mul", "mean"]


def test_a_module_that_is_called_twice() -> None:
    layer = without(nn.Conv2d(8, 8, 3, padding=1), inputs=(2, 3), outputs=(1,))
    graph = thinned(Net(lambda m, x: m.layer(torch.relu(m.layer(x))), layer=layer), IMAGES, GatherInputs())
    assert operators(graph).count("index_select") == 2 and operators(graph).count("conv2d") == 2


def test_a_layer_that_reads_nothing_reads_one_channel() -> None:
    layer = without(nn.Conv2d(8, 4, 3), inputs=range(8))
    assert weights(thinned(alone(layer), IMAGES, GatherInputs())) == {"layer": (4, 1, 3, 3)}


def test_the_caller_says_how_wide() -> None:
    net = Net(
        lambda m, x: m.b(torch.relu(m.a(x))),
        a=without(nn.Conv2d(8, 8, 1), inputs=(0, 1, 2)),
        b=without(nn.Conv2d(8, 4, 1), inputs=(0, 1, 2)),
    )
    width = {"a": 6, "b": 8}
    graph = capture(net.double(), (IMAGES,))
    assert [(t.layer, t.least, t.full) for t in thin_inputs(graph)] == [("a", 5, 8), ("b", 5, 8)]
    assert GatherInputs(lambda t: width[t.layer])(graph).modified
    assert weights(graph) == {"a": (8, 6, 1, 1), "b": (4, 8, 1, 1)}
    torch.testing.assert_close(graph(IMAGES), net(IMAGES), rtol=0, atol=1e-12)
    assert weights(thinned(net, IMAGES, GatherInputs(lambda t: 2)))["a"] == (8, 5, 1, 1)  # never fewer than it reads


def test_a_kept_weight_may_be_zero() -> None:
    """What the pattern keeps is read, whatever its value."""
    layer = without(nn.Conv2d(8, 4, 1), inputs=(0, 1))
    graph = capture(alone(layer).double(), (IMAGES,))
    pattern = torch.ones(4, 8, 1, 1, dtype=torch.bool)
    pattern[:, 1] = False
    apply_patterns(graph, {"layer.weight": pattern})
    assert GatherInputs()(graph).modified and weights(graph) == {"layer": (4, 7, 1, 1)}


class Computed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, x[0] * 0.0)


@pytest.mark.parametrize("net", [alone(nn.Linear(8, 4)), Computed()], ids=["dense", "computed weight"])
def test_it_leaves_alone(net: nn.Module) -> None:
    assert not GatherInputs()(capture(net.double().eval(), (TOKENS,))).modified


def test_a_graph_without_shapes_is_refused() -> None:
    with pytest.raises(PassError, match="GatherInputs: input input_1 has no shape"):
        GatherInputs()(torch.fx.symbolic_trace(nn.Sequential(nn.Linear(8, 4))))
