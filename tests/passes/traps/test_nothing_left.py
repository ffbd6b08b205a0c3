"""Nothing left to compute, and nothing left to remove (traps 20 and 22)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsefx.passes.capture import capture
from tests.helpers import copied, inputs_like, rewrite, slim
from tests.passes.traps.net import Net, ablate, assert_pipeline, assert_slim, assert_widths, ignore, widths

IMAGES = inputs_like((3, 8, 8))
TOKENS = inputs_like((6, 8))


def _deep(*dead: str) -> Net:
    """Three layers, a residual block and a classifier; the listed layers are all zero."""

    def forward(m: Any, x: Tensor) -> Any:
        x = F.gelu(m.stem(x))
        x = x + m.down(F.gelu(m.up(x)))
        return m.head(F.gelu(m.last(x)).mean((2, 3)))

    net = Net(
        forward,
        stem=nn.Conv2d(3, 8, 3, padding=1),
        up=nn.Conv2d(8, 12, 3, padding=1, stride=1),
        down=nn.Conv2d(12, 8, 1),
        last=nn.Conv2d(8, 10, 3, padding=1),
        head=nn.Linear(10, 4),
    )
    for name in dead:
        layer = net.get_submodule(name)
        ablate(layer, range(len(layer.get_parameter("weight"))))
    return net


@pytest.mark.parametrize("dead", ["stem", "up", "down", "last", "head"])
def test_trap_20_a_layer_of_zeros(dead: str) -> None:
    """No convolution is left without filters, and the output keeps the batch of the input."""
    rewritten = assert_slim(_deep(dead), IMAGES)
    assert rewritten.removed > 0
    left = widths(assert_pipeline(_deep(dead), IMAGES))
    alive: set[str] = {"stem": set(), "up": {"stem", "last", "head"}, "down": {"stem", "last", "head"}}.get(dead, set())
    assert set(left) == alive


def test_trap_20_everything_is_zero() -> None:
    graph = assert_pipeline(_deep("stem", "up", "down", "last", "head"), IMAGES)
    assert not widths(graph)
    assert graph(torch.randn(5, 3, 8, 8).double()).shape == (5, 4)


def test_trap_20_one_channel_is_left() -> None:
    net = _deep()
    for name in ("stem", "up", "down", "last"):
        ablate(net.get_submodule(name), range(1, len(net.get_parameter(f"{name}.weight"))))
    assert_slim(net, IMAGES, up=(1, 2), last=(1, 2), head=(4, 1))  # a carrier at each padded layer


def test_trap_20_constant_outputs_beside_live_ones() -> None:
    net = Net(
        lambda m, x: {"dead": m.dead(x).softmax(1), "live": m.live(x), "row": m.dead(x)[:, 0]},
        dead=nn.Linear(6, 4),
        live=nn.Linear(6, 3),
    )
    ablate(net.dead, range(4))
    make_inputs = inputs_like((6,))
    assert_slim(net, make_inputs, live=(3, 6))
    assert_pipeline(net, make_inputs, live=(3, 6), dead=None)


def _tangled() -> Net:
    """Residual sums, groups and gates, sparse at random."""

    def forward(m: Any, x: Tensor) -> Any:
        x = F.gelu(m.stem(x))
        for layer, gate in ((m.a, m.gate), (m.b, m.gate), (m.c, m.other)):
            x = x + F.gelu(layer(x)) * torch.sigmoid(gate(x.mean((2, 3), keepdim=True)))
        return m.head(torch.cat([x, m.a(x)], 1))

    net = Net(
        forward,
        stem=nn.Conv2d(3, 12, 1),
        a=nn.Conv2d(12, 12, 3, padding=1, groups=3),
        b=nn.Conv2d(12, 12, 3, padding=1),
        c=nn.Conv2d(12, 12, 1, groups=2),
        gate=nn.Conv2d(12, 12, 1),
        other=nn.Conv2d(12, 12, 1),
        head=nn.Conv2d(24, 2, 1),
    )
    with torch.no_grad():
        for module in net.children():
            for weight in (module.get_parameter("weight"), module.get_parameter("bias")):
                weight[torch.rand(len(weight)) < 0.5] = 0.0
        net.get_parameter("head.weight")[:, torch.rand(24) < 0.5] = 0.0
    return net


@pytest.mark.parametrize("seed", range(6))
def test_trap_22_the_same_channels_stay_every_time_and_nothing_the_second_time(seed: int) -> None:
    torch.manual_seed(seed)
    net = _tangled()
    first, second = slim(net, IMAGES), slim(net, IMAGES)
    assert first.removed > 0
    assert widths(first.graph_module) == widths(second.graph_module)
    have, want = (dict(r.graph_module.state_dict()) for r in (first, second))
    assert have.keys() == want.keys()
    assert all(torch.equal(have[name], want[name]) for name in have)
    assert_slim(net, IMAGES)


def test_trap_22_ties_are_broken_the_same_way_on_every_run() -> None:
    """Equal constants: any of them could be the carrier, and any spare channel could fill up a group."""
    window = nn.Conv2d(12, 12, 3, padding=1, groups=3)
    net = Net(lambda m, x: m.window(m.stem(x)), stem=nn.Conv2d(3, 12, 1), window=window)
    ablate(net.stem, range(6))
    with torch.no_grad():
        net.get_parameter("stem.bias")[:6] = 0.5
    stems = [slim(net, IMAGES).graph_module.get_parameter("stem.bias") for _ in range(3)]
    assert all(torch.equal(stems[0], other) for other in stems)
    assert_slim(net, IMAGES, stem=(12, 3), window=(12, 4))


def test_trap_22_dead_channels_that_have_to_stay_are_no_modification() -> None:
    net = Net(lambda m, x: m.head(torch.softmax(m.stem(x), 1)), stem=nn.Linear(6, 8), head=nn.Linear(8, 2))
    ablate(net.stem, range(4))
    ignore(net.head, range(4))
    make_inputs = inputs_like((6,))
    rewritten = rewrite(capture(net.double().eval(), make_inputs(2)), fold=False)
    assert not rewritten.modified
    assert_widths(rewritten.graph_module, stem=(8, 6), head=(2, 8))


def test_trap_22_one_pass_leaves_a_chain_of_any_length_settled() -> None:
    """What the last layer does not need, no layer before it needs, and the other way round for constants."""
    layers = {f"layer_{i}": nn.Linear(8, 8) for i in range(6)}

    def forward(m: Any, x: Tensor) -> Any:
        for name in layers:
            x = torch.tanh(m.get_submodule(name)(x))
        return x[:, :4]

    net = Net(forward, **layers)
    with torch.no_grad():
        for layer in layers.values():
            layer.weight *= torch.eye(8)
    ablate(net.layer_0, [1])
    graph = assert_slim(net, inputs_like((8,)), layer_0=(3, 8), layer_4=(3, 3)).graph_module
    assert not rewrite(copied(graph)).modified
