"""Infinities, rounding and cancellation (traps 13 and 14)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from sparsefx.passes.capture import capture
from tests.helpers import inputs_like, rewrite
from tests.passes.traps.net import Net, ablate, assert_slim, assert_widths, ignore

IMAGES = inputs_like((3, 8, 8))


ANNIHILATED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "times a constant": lambda m, h: h * m.zeros,
    "divided": lambda m, h: m.zeros / torch.exp(h),
    "masked": lambda m, h: h.masked_fill(m.zeros == 0, 0.7),
    "chosen": lambda m, h: torch.where(m.zeros == 0, 0.7, h),
    "layer scale": lambda m, h: m.norm(h),
}


@pytest.mark.parametrize("name", ANNIHILATED)
def test_trap_13_zeros_annihilate_what_is_finite(name: str) -> None:
    zeros = torch.ones(1, 8, 1, 1)
    zeros[:, [0, 1, 6]] = 0.0
    norm = nn.BatchNorm2d(8)
    with torch.no_grad():
        norm.weight.mul_(zeros.flatten())
        norm.bias.fill_(0.3)
    net = Net(
        lambda m, x: m.head(torch.tanh(ANNIHILATED[name](m, F.gelu(m.stem(x))))),
        stem=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(8, 2, 3),
        zeros=zeros,
        norm=norm,
    )
    assert_slim(net, IMAGES, stem=(5, 3), head=(2, 5))


def test_trap_13_equality_is_promised_for_finite_values_only() -> None:
    """0 * inf is NaN in the model; the channel is gone from the rewritten one, which stays finite."""
    net = Net(
        lambda m, x: m.head(torch.exp(m.stem(x)) * m.zeros),
        stem=nn.Linear(6, 8),
        head=nn.Linear(8, 2),
        zeros=torch.ones(8),
    )
    net.get_buffer("zeros")[:3] = 0.0
    slim = assert_slim(net, inputs_like((6,)), stem=(5, 6), head=(2, 5)).graph_module
    with torch.no_grad():
        net.get_parameter("stem.weight")[:3] *= 1e6
        x = torch.randn(4, 6, dtype=torch.float64)
        assert net(x).isnan().any()
        assert slim(x).isfinite().all()


def test_trap_13_infinite_values_that_are_needed_stay_infinite() -> None:
    net = Net(
        lambda m, x: m.head(torch.cat([m.stem(x), m.still.expand(x.shape[0], 3)], 1)),
        stem=nn.Linear(6, 8),
        head=nn.Linear(11, 2),
        still=torch.tensor([[torch.inf, 1.0, -2.0]]),
    )
    ablate(net.stem, range(3))
    ignore(net.head, [7])
    with torch.no_grad():
        net.get_parameter("head.weight")[1, 8] = 0.0  # 0 * inf: NaN in the second output
    rewritten = assert_slim(net.double(), inputs_like((6,)), stem=(4, 6))
    assert rewritten.graph_module(torch.zeros(1, 6).double())[0, 0].isinf()


def test_trap_13_a_table_that_is_zero_at_length_one_is_not_zero() -> None:
    """A rotary sine depends on the length; at the first token, and so for one token, it is zero."""

    def forward(m: Any, x: Tensor) -> Any:
        h = m.stem(x)
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * m.speed
        return m.head(h * torch.sin(angle) + m.other(x) * torch.cos(angle))

    parts = {"stem": nn.Linear(6, 8), "other": nn.Linear(6, 8), "head": nn.Linear(8, 3)}
    net = Net(forward, **parts, speed=torch.linspace(0.1, 1.0, 8)).double().eval()
    ignore(net.head, [5])
    sizes = {"inputs": ({0: Dim("batch"), 1: Dim("length")},)}
    graph = capture(net, (torch.randn(2, 4, 6).double(),), dynamic_shapes=sizes)
    rewrite(graph)
    assert_widths(graph, stem=(7, 6), other=(7, 6), head=(3, 7))
    for length in (1, 2, 7):
        x = torch.randn(3, length, 6, dtype=torch.float64)
        torch.testing.assert_close(graph(x), net(x).detach(), rtol=1e-12, atol=1e-12)


def test_trap_13_a_speed_of_zero_makes_a_sine_of_zeros() -> None:
    net = Net(
        lambda m, x: m.head(m.stem(x) * torch.sin(m.speed)),
        stem=nn.Linear(6, 8),
        head=nn.Linear(8, 3),
        speed=torch.ones(8),
    )
    net.get_buffer("speed")[2:5] = 0.0
    assert_slim(net, inputs_like((6,)), stem=(5, 6), head=(3, 5))


def test_trap_13_what_an_annihilated_logarithm_reads_stays_in_its_domain() -> None:
    """Its result is multiplied by zero; were its operand to change, it could be the logarithm of a negative number."""

    def forward(m: Any, x: Tensor) -> Any:
        h = torch.tanh(m.stem(x))
        return m.head(h + m.gate * torch.log(m.inside(h)))

    parts = {"stem": nn.Conv2d(3, 8, 1), "inside": nn.Conv2d(8, 8, 1), "head": nn.Conv2d(8, 3, 1)}
    net = Net(forward, **parts, gate=nn.Parameter(torch.randn(8, 1, 1)))
    ablate(net.stem, [0])
    ablate(net.inside, [5, 6, 7])
    ignore(net.head, [0])
    with torch.no_grad():
        net.get_parameter("stem.bias")[0] = 1.5
        inside, bias = net.get_parameter("inside.weight"), net.get_parameter("inside.bias")
        bias.fill_(9.0)
        bias[5:] = 0.0
        inside[:5, 0] = 0.0
        inside[5:, 0] = 1.0
        inside[5:, 1] = 0.1  # log(0.905 + 0.1 tanh)
        net.get_parameter("gate")[[0, 5, 6, 7]] = 0.0
    assert_slim(net, inputs_like((3, 4, 4)))


@pytest.mark.parametrize(
    ("mode", "antialias"),
    [
        ("bicubic", False),
        ("bicubic", True),
        ("bilinear", False),
        ("bilinear", True),
        ("nearest", False),
        ("area", False),
    ],
)
def test_trap_14_resampling_with_negative_coefficients(mode: str, antialias: bool) -> None:
    """Bicubic weights are partly negative, but whatever they are, a live map stays alive and a uniform one uniform."""
    net = Net(
        lambda m, x: m.head(F.interpolate(m.stem(x), size=(5, 11), mode=mode, antialias=antialias)),
        stem=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(8, 2, 1),
    )
    ablate(net.stem, range(3))
    ignore(net.head, [7])
    assert_slim(net, IMAGES, stem=(4, 3), head=(2, 4))


def test_trap_14_positional_maps_through_bicubic_resampling() -> None:
    net = Net(
        lambda m, x: m.head(F.interpolate(m.window(m.stem(x)), scale_factor=2, mode="bicubic")),
        stem=nn.Conv2d(3, 24, 1),
        window=nn.Conv2d(24, 24, 3, padding=1, groups=24),
        head=nn.Conv2d(24, 2, 1),
    )
    ablate(net.stem, range(20))
    assert_slim(net, IMAGES, stem=(12, 3), head=(2, 12))


def _half(net: Net, dtype: torch.dtype, x: Tensor) -> tuple[torch.fx.GraphModule, Tensor]:
    """Rewrite a model of low precision; the largest error beside that of the model itself, in float64."""
    net = net.to(dtype).eval()
    graph = capture(net, (x.to(dtype),))
    rewrite(graph)
    with torch.no_grad():
        have, own = graph(x.to(dtype)).double(), net(x.to(dtype)).double()
        want = net.double()(x.to(dtype).double())
    assert have.isfinite().all() or not want.isfinite().all()
    return graph, ((have - want).abs().max() / ((own - want).abs().max() + 1e-3 * want.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_trap_14_half_precision_does_not_overflow_in_the_analysis(dtype: torch.dtype) -> None:
    """Constants whose partial sums exceed the largest half, though their sum does not."""
    net = Net(lambda m, x: m.head(m.stem(x)), stem=nn.Linear(6, 260), head=nn.Linear(260, 2))
    ablate(net.stem, range(256))
    with torch.no_grad():
        net.get_parameter("stem.bias")[:256] = 500.0
        net.get_parameter("head.weight")[:, :128] = 2.0
        net.get_parameter("head.weight")[:, 128:256] = -2.0
    graph, relative = _half(net, dtype, torch.randn(3, 6))
    assert_widths(graph, stem=(4, 6), head=(2, 4))
    assert relative <= 3.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_trap_14_many_edges_are_not_counted_in_half_precision(dtype: torch.dtype) -> None:
    """More inputs than a bfloat16 can count (256): each of them has its edge."""
    net = Net(lambda m, x: m.head(torch.tanh(m.stem(x))), stem=nn.Linear(6, 600), head=nn.Linear(600, 2))
    with torch.no_grad():
        net.get_parameter("head.weight").copy_(torch.cat([torch.ones(2, 300), -torch.ones(2, 300)], 1) / 32)
    graph, relative = _half(net, dtype, torch.randn(3, 6))
    assert_widths(graph, stem=(600, 6), head=(2, 600))
    assert relative <= 3.0


def test_trap_14_constants_that_cancel_are_summed_in_float64() -> None:
    """1e7 - 1e7 + 1 in the bias of a float32 layer, whatever the order."""
    net = Net(lambda m, x: m.head(m.stem(x)), stem=nn.Linear(6, 8), head=nn.Linear(8, 2))
    ablate(net.stem, range(4))
    with torch.no_grad():
        net.get_parameter("stem.bias")[:4] = torch.tensor([3e7, 0.1, -3e7, 0.2])
        net.get_parameter("head.weight")[:, :4] = 1.0
    x = torch.randn(4, 6)
    graph = capture(net.eval(), (x,))
    rewrite(graph)
    assert_widths(graph, head=(2, 4))
    with torch.no_grad():
        torch.testing.assert_close(graph(x).double(), net.double()(x.double()), rtol=1e-6, atol=1e-6)
