"""ScatterOutputs fires with equal numerics, constants included, leaves alone what it must, and finds nothing again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsefx.passes.capture import capture
from sparsefx.passes.fold_batch_norm import FoldBatchNorm
from sparsefx.passes.graph import INDICES
from sparsefx.passes.scatter_outputs import ScatterOutputs
from sparsefx.passes.thinning import thin_outputs

from .thin_nets import IMAGES, TOKENS, Net, operators, thinned, weights, without


def alone(layer: nn.Module) -> Net:
    return Net(lambda m, x: m.layer(x), layer=layer)


PLACED = ["constant_pad_nd", "index_select"]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (without(nn.Conv2d(8, 6, 3, padding=1), outputs=(0, 5)), (4, 8, 3, 3)),
        (without(nn.Conv2d(8, 6, 3, 2, padding=2, dilation=2), outputs=(1, 2, 3)), (3, 8, 3, 3)),
        (without(nn.ConvTranspose2d(8, 6, 3, 2, output_padding=1), outputs=(0, 1), axis=1), (8, 4, 3, 3)),
    ],
    ids=["padded", "strided and dilated", "transposed"],
)
def test_convolutions(layer: nn.Module, shape: tuple[int, ...]) -> None:
    graph = thinned(alone(layer), IMAGES, ScatterOutputs())
    assert operators(graph)[1:] == [*PLACED, "add"] and weights(graph) == {"layer": shape}


def test_no_constants_without_biases() -> None:
    graph = thinned(alone(without(nn.Conv2d(8, 6, 3, bias=False), outputs=(0, 5))), IMAGES, ScatterOutputs())
    assert operators(graph) == ["conv2d", *PLACED]


def test_linear_with_any_reader() -> None:
    net = Net(lambda m, x: torch.sigmoid(m.layer(x)), layer=without(nn.Linear(8, 6), outputs=(1, 4)))
    graph = thinned(net, TOKENS, ScatterOutputs())
    assert operators(graph) == ["linear", *PLACED, "add", "sigmoid"] and weights(graph) == {"layer": (4, 8)}


def test_groups_keep_equally_many() -> None:
    """The first group computes one of its three outputs, the second two: both compute two."""
    layer = without(nn.Conv2d(8, 6, 3, groups=2), outputs=(0, 2, 4))
    graph = thinned(alone(layer), IMAGES, ScatterOutputs())
    assert weights(graph) == {"layer": (4, 4, 3, 3)}
    (node,) = (n for n in graph.graph.nodes if INDICES in n.meta)
    assert node.meta[INDICES].outputs.tolist() == [0, 1, 3, 5]


@pytest.mark.parametrize("order", [lambda x, y: x + y, lambda x, y: y + x, torch.sub], ids=["x + y", "y + x", "x - y"])
def test_a_residual_sum_of_images(order: Any) -> None:
    net = Net(lambda m, x: order(x, m.layer(x)), layer=without(nn.Conv2d(8, 8, 3, padding=1), outputs=(0, 5)))
    graph = thinned(net, IMAGES, ScatterOutputs())
    assert operators(graph) == ["conv2d", *PLACED, "add", "sub" if order is torch.sub else "add"]


@pytest.mark.parametrize("first", [True, False])
def test_a_residual_sum_of_tokens_is_partial(first: bool) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return x + m.layer(x) if first else m.layer(x) + x

    net = Net(forward, layer=without(nn.Linear(8, 8), outputs=(0, 5)))
    assert operators(thinned(net, TOKENS, ScatterOutputs())) == ["linear", "add", "index_add"]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: x[:1] + m.layer(x),
        lambda m, x: torch.add(x, m.layer(x), alpha=2),
        lambda m, x: (lambda y: y + y)(m.layer(x)),
        lambda m, x: (lambda y: (x + y, y))(m.layer(x)),
        lambda m, x: m.layer(x) + 1.0,
    ],
    ids=["broadcast", "a factor", "twice itself", "another reader", "a number"],
)
def test_other_sums_read_what_is_put_into_place(forward: Any) -> None:
    net = Net(forward, layer=without(nn.Linear(8, 8), outputs=(0, 5)))
    graph = capture(net.double(), (TOKENS,), dynamic_batch=False)
    assert ScatterOutputs()(graph).modified and set(PLACED) < set(operators(graph))
    torch.testing.assert_close(graph(TOKENS), net(TOKENS), rtol=0, atol=1e-12)


def test_constants_go_to_the_bias_of_a_layer_beside() -> None:
    net = Net(
        lambda m, x: torch.relu(m.a(x) + m.b(x)),
        a=without(nn.Conv2d(8, 6, 3, padding=1), outputs=(0, 5)),
        b=nn.Conv2d(8, 6, 1, bias=False),
    )
    graph = thinned(net, IMAGES, ScatterOutputs())
    assert FoldBatchNorm()(graph).modified
    assert sorted(operators(graph)) == sorted(["conv2d", "conv2d", *PLACED, "add", "relu"])
    torch.testing.assert_close(graph(IMAGES), net(IMAGES), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("layer", "x"), [(nn.Conv2d(8, 8, 1), IMAGES), (nn.Linear(8, 8), TOKENS)], ids=str)
def test_a_sum_of_two_thin_layers(layer: nn.Module, x: Tensor) -> None:
    a, b = (
        without(layer, outputs=(0, 1)),
        without(type(layer)(*([8, 8, 1][: layer.weight.ndim // 2 + 1])), outputs=(1, 7)),
    )
    graph = thinned(Net(lambda m, x: torch.relu(m.a(x) + m.b(x)), a=a, b=b), x, ScatterOutputs())
    assert {shape[0] for shape in weights(graph).values()} == {6}


def test_a_module_that_is_called_twice() -> None:
    layer = without(nn.Conv2d(8, 8, 3, padding=1), outputs=(2, 3))
    graph = thinned(Net(lambda m, x: m.layer(torch.relu(m.layer(x))), layer=layer), IMAGES, ScatterOutputs())
    assert operators(graph).count("conv2d") == 2 and operators(graph).count("index_select") == 2


def test_a_layer_without_any_weight_computes_one_channel() -> None:
    graph = thinned(alone(without(nn.Linear(8, 6), outputs=range(6))), TOKENS, ScatterOutputs())
    assert weights(graph) == {"layer": (1, 8)}


def test_the_caller_says_how_wide() -> None:
    net = alone(without(nn.Linear(8, 6), outputs=(0, 1, 2)))
    graph = capture(net.double(), (TOKENS,))
    assert [(t.layer, t.least, t.full) for t in thin_outputs(graph)] == [("layer", 3, 6)]
    assert not ScatterOutputs(lambda t: t.full)(graph).modified
    assert ScatterOutputs(lambda t: 4)(graph).modified and weights(graph) == {"layer": (4, 8)}
    torch.testing.assert_close(graph(TOKENS), net(TOKENS), rtol=0, atol=1e-12)


def test_it_leaves_dense_layers_alone() -> None:
    assert not ScatterOutputs()(capture(alone(nn.Linear(8, 4)).double(), (TOKENS,))).modified
