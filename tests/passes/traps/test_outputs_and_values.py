"""What is an output, and what is a constant (traps 1 and 2)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from sparsefx.passes.capture import capture
from sparsefx.passes.fold_unreached import FoldUnreached
from sparsefx.passes.remove_channels import RemoveChannels
from tests.helpers import MakeInputs, inputs_like, rewrite
from tests.passes.traps.net import Net, ablate, assert_slim, assert_widths, ignore

IMAGES = inputs_like((3, 8, 8))


def test_trap_01_zeroed_classifier_rows_stay_outputs() -> None:
    net = Net(lambda m, x: m.head(F.gelu(m.hidden(x))), hidden=nn.Linear(6, 8), head=nn.Linear(8, 5))
    ablate(net.head, [0, 3])
    ablate(net.hidden, [1, 2])
    assert_slim(net, inputs_like((6,)), hidden=(6, 6), head=(5, 6))


@pytest.mark.parametrize(
    "pack",
    [lambda h, y: {"features": h, "logits": y}, lambda h, y: (y, [h]), lambda h, y: {"nested": ({"h": h}, None, y)}],
    ids=["dict", "tuple", "nested"],
)
def test_trap_01_every_element_of_an_output_is_pinned(pack: Callable[[Tensor, Tensor], Any]) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        h = F.gelu(m.hidden(F.gelu(m.stem(x))))
        return pack(h, m.head(h))

    net = Net(forward, stem=nn.Linear(6, 7), hidden=nn.Linear(7, 8), head=nn.Linear(8, 5))
    ablate(net.hidden, [0, 1])
    ignore(net.head, [1, 2])
    ignore(net.hidden, [3])
    assert_slim(net, inputs_like((6,)), stem=(6, 6), hidden=(8, 6), head=(5, 8))


def test_trap_01_a_buffer_that_is_written_to_is_an_output_and_no_constant() -> None:
    """Half of the channels are read by the buffer alone, whose zeros are zeros in the first call only."""

    def forward(m: Any, x: Tensor) -> Any:
        h = F.gelu(m.hidden(x))
        y = m.head(F.gelu(m.mix(h * m.seen)))
        m.seen.mul_(0.5).add_(h.sum(0))
        return y

    parts = {"hidden": nn.Linear(6, 8), "mix": nn.Linear(8, 7), "head": nn.Linear(7, 5)}
    net = Net(forward, **parts, seen=torch.zeros(8)).double().eval()
    ignore(net.mix, range(4))
    ignore(net.head, [2])
    x, reference = torch.randn(3, 6, dtype=torch.float64), copy.deepcopy(net)
    graph = capture(net, (x,))
    RemoveChannels()(graph)
    assert_widths(graph, hidden=(8, 6), mix=(6, 8), head=(5, 6))
    with torch.no_grad():
        first = reference(x)
        torch.testing.assert_close(graph(x), first, rtol=1e-12, atol=1e-12)
        for _ in range(2):
            torch.testing.assert_close(graph(x), reference(x), rtol=1e-12, atol=1e-12)
        assert (reference(x) - first).abs().max() > 0.1, "the buffer does not matter"


def _same_with_one_seed(have: nn.Module, want: nn.Module, make_inputs: MakeInputs) -> None:
    for batch in (1, 2, 3):
        inputs = make_inputs(batch)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(batch)
            a = have(*inputs)
            torch.manual_seed(batch)
            b = want(*inputs)
        assert (b.var(0) > 1e-6).any() if batch > 1 else True
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


RANDOM: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "rand of a fixed shape": lambda m, h: h * torch.rand(8, dtype=h.dtype),
    "rand_like": lambda m, h: torch.rand_like(h),
    "normal": lambda m, h: h + torch.randn_like(h),
    "bernoulli": lambda m, h: torch.bernoulli(torch.sigmoid(h)),
    "dropout that is always on": lambda m, h: F.dropout(h, 0.5, training=True),
}


@pytest.mark.parametrize("name", RANDOM)
def test_trap_02_random_numbers_used_as_data_are_no_constants(name: str) -> None:
    """With one seed the numbers are the same ones only if nothing in front of the operator was cut."""
    net = Net(
        lambda m, x: m.head(F.gelu(m.mix(RANDOM[name](m, m.dead(x))))) * x.mean(1, keepdim=True),
        dead=nn.Linear(6, 8),
        mix=nn.Linear(8, 8),
        head=nn.Linear(8, 3),
    )
    ablate(net.dead, range(8))
    ignore(net.head, range(3))
    make_inputs = inputs_like((6,))
    graph = capture(net.double().eval(), make_inputs(2))
    FoldUnreached()(graph)
    RemoveChannels()(graph)
    assert_widths(graph, mix=(5, 8), head=(3, 5))
    _same_with_one_seed(graph, net, make_inputs)


def test_trap_02_a_layer_whose_weight_is_a_computed_zero_is_alive() -> None:
    """A generated weight that happens to be zero for one input is not zero for the next."""

    def forward(m: Any, x: Tensor) -> Any:
        generated = F.relu(m.generate(x.amax(0) - 2.0)).reshape(8, 6)
        return m.head(F.linear(x, generated))

    net = Net(forward, generate=nn.Linear(6, 48), head=nn.Linear(8, 3))
    ignore(net.head, [0])
    nn.init.zeros_(net.get_parameter("generate.bias"))
    assert_slim(net, inputs_like((6,)), generate=(48, 6), head=(3, 8))


@pytest.mark.parametrize("axis", [0, 1], ids=["batch", "length"])
def test_trap_02_a_dynamic_size_used_as_data_is_no_constant(axis: int) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(torch.sigmoid(m.hidden(x)) * x.shape[axis])

    net = Net(forward, hidden=nn.Linear(6, 8), head=nn.Linear(8, 3)).double().eval()
    ablate(net.hidden, range(4))
    sizes = {"inputs": ({0: Dim("batch"), 1: Dim("length")},)}
    graph = capture(net, (torch.randn(2, 5, 6).double(),), dynamic_shapes=sizes)
    rewritten = rewrite(graph)
    for shape in ((1, 4, 6), (3, 2, 6)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(rewritten.graph_module(x), net(x).detach(), rtol=1e-12, atol=1e-12)
    assert_widths(graph, head=(3, 8))


FACTORIES: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros_like": torch.zeros_like,
    "full_like": lambda h: torch.full_like(h, 0.7),
    "new_ones": lambda h: h.new_ones(h.shape[0], 8),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_trap_02_factories_take_only_the_size(name: str) -> None:
    """What was computed for its size alone is not needed, and a layer on numbers that never change is a constant."""
    net = Net(
        lambda m, x: m.head(torch.cat([m.other(x), m.constant(FACTORIES[name](m.sized(x)))], 1)),
        sized=nn.Linear(6, 8),
        constant=nn.Linear(8, 4),
        other=nn.Linear(6, 5),
        head=nn.Linear(9, 3),
    )
    rewritten = assert_slim(net, inputs_like((6,)), other=(5, 6), head=(3, 5))
    assert rewritten.graph_module.get_parameter("head.bias").shape == (3,)


def test_trap_02_values_that_are_not_finite_are_not_folded() -> None:
    """The logarithm of a border of zeros is infinite there: it cannot be part of a bias, nor of a carrier."""

    def forward(m: Any, x: Tensor) -> Any:
        border = F.pad(torch.exp(m.stem(x)), (1, 1, 1, 1))
        return m.head(torch.cat([F.pad(x, (1, 1, 1, 1)), torch.log(border)], 1))

    net = Net(forward, stem=nn.Conv2d(3, 6, 1), head=nn.Conv2d(9, 2, 1))
    ablate(net.stem, range(4))
    ignore(net.head, [3])
    nn.init.ones_(net.get_parameter("head.weight"))
    assert_slim(net, IMAGES, stem=(6, 3), head=(2, 9))
