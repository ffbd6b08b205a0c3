"""Constants that meet live values: products and residual sums (traps 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers import inputs_like
from tests.passes.traps.net import Net, ablate, assert_pipeline, assert_slim, ignore

IMAGES = inputs_like((3, 8, 8))


GATES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "per channel": lambda m, x: torch.sigmoid(m.gate(x.mean((2, 3), keepdim=True))),
    "per position": lambda m, x: torch.sigmoid(m.gate(x)),
    "one for all": lambda m, x: torch.sigmoid(m.gate(x).mean(1, keepdim=True)),
}


def _gated(name: str) -> Net:
    net = Net(
        lambda m, x: m.head(m.stem(x) * GATES[name](m, x)),
        stem=nn.Conv2d(3, 8, 1),
        gate=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(8, 2, 3, padding=1),
    )
    ablate(net.stem, range(4))
    return net


@pytest.mark.parametrize("name", GATES)
def test_trap_08_an_ablated_channel_times_a_live_gate_is_alive(name: str) -> None:
    assert_slim(_gated(name), IMAGES, stem=(8, 3), head=(2, 8))


@pytest.mark.parametrize("name", GATES)
def test_trap_08_a_zero_channel_times_a_live_gate_is_zero(name: str) -> None:
    net = _gated(name)
    with torch.no_grad():
        net.get_parameter("stem.bias")[:3] = 0.0
    gates = 8 if name == "one for all" else 5
    assert_slim(net, IMAGES, stem=(5, 3), gate=(gates, 3), head=(2, 5))


def test_trap_08_a_gate_of_zeros_annihilates_a_live_channel() -> None:
    net = Net(
        lambda m, x: m.head(m.stem(x) * F.relu(m.gate(x))),
        stem=nn.Linear(6, 8),
        gate=nn.Linear(6, 8),
        head=nn.Linear(8, 2),
    )
    ablate(net.gate, range(3))
    with torch.no_grad():
        net.get_parameter("gate.bias")[:3] = -1.0
    assert_slim(net, inputs_like((6,)), stem=(5, 6), gate=(5, 6), head=(2, 5))


def test_trap_08_constants_on_both_sides_of_a_product() -> None:
    """Their product is one constant more."""
    net = Net(
        lambda m, x: m.head(m.stem(x) * torch.sigmoid(m.gate(x))),
        stem=nn.Conv2d(3, 8, 1),
        gate=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(8, 2, 3),
    )
    ablate(net.stem, range(5))
    ablate(net.gate, range(2, 8))
    assert_slim(net, IMAGES, stem=(5, 3), gate=(5, 3), head=(2, 5))


def _residual(activation: Callable[[Tensor], Tensor], head: nn.Module) -> Net:
    def forward(m: Any, x: Tensor) -> Any:
        x = activation(m.stem(x))
        return m.head(activation(x + m.b(activation(m.a(x)))))

    return Net(forward, stem=nn.Conv2d(3, 8, 1), a=nn.Conv2d(8, 6, 3, padding=1), b=nn.Conv2d(6, 8, 1), head=head)


def test_trap_09_a_constant_shortcut_meets_a_live_branch() -> None:
    """The sum is alive, and a shortcut has no bias: the constant channel stays."""
    net = _residual(F.gelu, nn.Conv2d(8, 2, 3, padding=1))
    ablate(net.stem, range(4))
    ignore(net.a, [4])
    assert_slim(net, IMAGES, stem=(8, 3), a=(6, 8), b=(8, 6), head=(2, 8))


def test_trap_09_a_live_shortcut_meets_a_constant_branch() -> None:
    net = _residual(F.gelu, nn.Conv2d(8, 2, 3, padding=1))
    ablate(net.b, range(4))
    assert_slim(net, IMAGES, stem=(8, 3), b=(8, 6), head=(2, 8))


@pytest.mark.parametrize("padding", [0, 1])
def test_trap_09_constants_in_shortcut_and_branch_go_into_the_readers(padding: int) -> None:
    """The padded layer of the branch needs a carrier anyway, which the padded head can use as well."""
    net = _residual(F.gelu, nn.Conv2d(8, 2, 3, padding=padding))
    ablate(net.stem, range(4))
    ablate(net.b, range(4))
    assert_slim(net, IMAGES, stem=(5, 3), a=(6, 5), b=(5, 6), head=(2, 5))


CANNOT_FOLD: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "an output": lambda m, y: y,
    "cumsum": lambda m, y: torch.cumsum(y, 1),
    "softmax": lambda m, y: torch.softmax(y, 1),
    "a layer whose weight is computed": lambda m, y: F.conv2d(y, torch.tanh(m.stem(m.probe)).mean(0, keepdim=True)),
}


@pytest.mark.parametrize("name", CANNOT_FOLD)
def test_trap_09_a_reader_that_cannot_fold_keeps_the_constant(name: str) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        x = F.gelu(m.stem(x))
        y = x + m.b(F.gelu(m.a(x)))
        return m.head(y), CANNOT_FOLD[name](m, y)

    parts = {"stem": nn.Conv2d(3, 8, 1), "a": nn.Conv2d(8, 6, 1), "b": nn.Conv2d(6, 8, 1), "head": nn.Conv2d(8, 2, 1)}
    net = Net(forward, **parts, probe=torch.randn(1, 3, 1, 1))
    ablate(net.stem, range(4))
    ablate(net.b, range(4))
    assert_slim(net, IMAGES, stem=(8, 3), b=(8, 6), head=(2, 8))


def test_trap_09_a_branch_that_is_all_constant_is_added_explicitly() -> None:
    net = _residual(F.gelu, nn.Conv2d(8, 2, 3, padding=1))
    ablate(net.a, range(6))
    assert_pipeline(net, IMAGES, stem=(8, 3), a=None, b=None, head=(2, 8))


def test_trap_09_a_branch_of_zeros_vanishes_and_what_nothing_reads_goes_with_it() -> None:
    net = _residual(F.gelu, nn.Conv2d(8, 2, 3, padding=1))
    ablate(net.b, range(8))
    nn.init.zeros_(net.get_parameter("b.bias"))
    ignore(net.head, range(2))
    assert_pipeline(net, IMAGES, stem=(6, 3), a=None, b=None, head=(2, 6))
