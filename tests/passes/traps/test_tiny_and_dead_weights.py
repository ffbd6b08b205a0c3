"""Tiny weights are alive, and what no zero tells stays (traps 23 and 24)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparsefx
from sparsefx.passes.capture import capture
from tests.helpers import inputs_like, rewrite
from tests.passes.traps.net import Net, ablate, assert_slim, assert_widths

IMAGES = inputs_like((3, 8, 8))


@pytest.mark.parametrize("weight", [1e-30, -1e-38, 1e-44])
def test_trap_23_a_tiny_weight_is_alive(weight: float) -> None:
    """Even where it is the only one, and denormal in float32."""
    net = Net(
        lambda m, x: m.head(torch.tanh(m.stem(x)) * m.scale),
        stem=nn.Linear(6, 8),
        head=nn.Linear(8, 2),
        scale=torch.ones(8),
    )
    with torch.no_grad():
        net.get_parameter("stem.weight")[:2] = 0.0
        net.get_parameter("stem.weight")[0, 3] = weight
        net.get_parameter("stem.bias")[0] = 0.0
        net.get_buffer("scale")[0] = 1e30
    graph = capture(net.eval(), (torch.randn(2, 6),))  # float32
    rewrite(graph)
    assert_widths(graph, stem=(7, 6), head=(2, 7))
    assert_slim(net, inputs_like((6,)), stem=(7, 6), head=(2, 7))


def test_trap_23_a_weight_of_zero_in_the_mask_is_alive() -> None:
    """A weight that training is about to move may be zero; its mask says that it is there."""
    net = Net(lambda m, x: m.head(F.gelu(m.stem(x))), stem=nn.Linear(6, 8), head=nn.Linear(8, 2))
    ablate(net.stem, [0, 1])
    mask = torch.ones(8, 6, dtype=torch.bool)
    mask[0] = False
    compiled = sparsefx.compile(
        net, (torch.randn(2, 6),), masks=sparsefx.MaskSet({"stem.weight": mask}), target="torch"
    )
    assert_widths(compiled.graph_module, stem=(7, 6), head=(2, 7))


# Accepted incompleteness: exact, and kept


def test_trap_24_a_relu_that_never_fires_is_kept() -> None:
    """No bound on the input is known, so nothing says that it never will."""
    net = Net(
        lambda m, x: m.head(F.relu(m.stem(x)) + m.skip(x)),
        stem=nn.Linear(6, 8),
        skip=nn.Linear(6, 8),
        head=nn.Linear(8, 2),
    )
    with torch.no_grad():
        net.get_parameter("stem.bias")[:3] = -1e3
    assert_slim(net, inputs_like((6,)), stem=(8, 6), skip=(8, 6), head=(2, 8))


def test_trap_24_branches_that_cancel_are_kept() -> None:
    net = Net(
        lambda m, x: m.head(torch.tanh(m.stem(x))) - m.head(torch.tanh(m.stem(x))) + m.skip(x),
        stem=nn.Linear(6, 8),
        skip=nn.Linear(6, 2),
        head=nn.Linear(8, 2),
    )
    assert_slim(net, inputs_like((6,)), stem=(8, 6), stem_2=(8, 6), head=(2, 8), head_2=(2, 8))


def test_trap_24_duplicate_channels_with_opposite_weights_are_kept() -> None:
    net = Net(lambda m, x: m.head(torch.tanh(m.stem(x))), stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 3, padding=1))
    with torch.no_grad():
        for name in ("weight", "bias"):
            net.get_parameter(f"stem.{name}")[1] = net.get_parameter(f"stem.{name}")[0]
        net.get_parameter("head.weight")[:, 1] = -net.get_parameter("head.weight")[:, 0]
    assert_slim(net, IMAGES, stem=(8, 3), head=(2, 8))
