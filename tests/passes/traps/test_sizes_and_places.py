"""At which sizes, and in which places (traps 3 and 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import GraphModule

from sparsefx.passes.capture import capture
from tests.helpers import inputs_like, rewrite
from tests.passes.traps.net import Net, ablate, assert_slim, assert_widths, ignore

IMAGES = inputs_like((3, 8, 8))

FAR = 6  # columns from the middle of a window to its outermost tap


def _reaching() -> Net:
    """Half of the stem's channels are read by a tap that lies outside of small images."""
    far = nn.Conv2d(8, 4, 3, dilation=FAR, padding=FAR)
    net = Net(lambda m, x: m.far(torch.tanh(m.stem(x))), stem=nn.Conv2d(3, 8, 1), far=far).double().eval()
    with torch.no_grad():
        net.get_parameter("far.weight")[:, :4] *= F.pad(torch.ones(1, 1), (0, 2, 2, 0))
        net.get_parameter("far.weight")[:, 6:] = 0
    return net


def _assert_same(graph: GraphModule, net: nn.Module, *sizes: tuple[int, int]) -> None:
    for size in sizes:
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(graph(x), net(x).detach(), rtol=1e-12, atol=1e-12)


def test_trap_03_what_only_larger_images_need_stays() -> None:
    sizes = {"inputs": ({0: Dim("batch"), 2: Dim("height", min=2), 3: Dim("width", min=2)},)}
    net = _reaching()
    graph = capture(net, (torch.randn(2, 3, 4, 4).double(),), dynamic_shapes=sizes)
    rewrite(graph)
    assert_widths(graph, stem=(6, 3), far=(4, 6))
    _assert_same(graph, net, (3, 3), (5, 9), (12, 8))


def test_trap_03_locked_sizes_are_judged_by_channels_as_well() -> None:
    assert_slim(_reaching(), inputs_like((3, 4, 4)), stem=(6, 3), far=(4, 6))


def test_trap_03_positional_constants_stay_where_sizes_are_dynamic() -> None:
    """Nine values at a border can be handed over for one size, never for all sizes."""
    window = nn.Conv2d(20, 20, 3, padding=1, groups=20)
    net = Net(
        lambda m, x: m.head(m.window(m.stem(x))), stem=nn.Conv2d(3, 20, 1), window=window, head=nn.Conv2d(20, 4, 1)
    )
    ablate(net.double().eval().stem, range(12))
    sizes = {"inputs": ({0: Dim("batch"), 2: Dim("height", min=3), 3: Dim("width", min=3)},)}
    graph = capture(net, (torch.randn(2, 3, 8, 8).double(),), dynamic_shapes=sizes)
    rewrite(graph)
    assert_widths(graph, window=(20, 1), head=(4, 20))
    _assert_same(graph, net, (3, 5), (8, 8), (11, 4))


JOINED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "one side of the width": lambda m, h: torch.cat([h, m.still.expand(h.shape[0], 8, 8, 3)], 3)[..., 8:],
    "both sides": lambda m, h: torch.cat([h, m.still.expand(h.shape[0], 8, 8, 3)], 3)[..., 6:],
    "a window across": lambda m, h: torch.roll(torch.cat([h, m.still.expand(h.shape[0], 8, 8, 3)], 3), 2, 3)[..., :4],
}


@pytest.mark.parametrize("name", JOINED)
def test_trap_04_alive_here_and_needed_there_is_no_uniform_constant(name: str) -> None:
    """Of a map that is half alive and half constant, a reader of the constant half must not get the other's number."""

    def forward(m: Any, x: Tensor) -> Any:
        h = F.gelu(m.stem(x))
        return m.head(JOINED[name](m, h)).flatten(2).mean(2) + m.other(h).mean((2, 3))

    still = nn.Parameter(torch.randn(1, 8, 1, 1))
    net = Net(forward, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 4, 1), other=nn.Conv2d(8, 4, 1), still=still)
    ablate(net.stem, range(4))
    ignore(net.other, range(2, 8))
    ignore(net.head, [6, 7])
    assert_slim(net, IMAGES)


def test_trap_04_a_class_token_in_front_of_live_patches() -> None:
    """Each channel holds a constant at one token, which is all that is read, and live values at the others."""

    def forward(m: Any, x: Tensor) -> Any:
        tokens = torch.cat([m.token.expand(x.shape[0], 1, 8), m.patches(x)], 1)
        return m.head(tokens[:, 0]) + m.other(tokens.mean(1))

    net = Net(
        forward,
        patches=nn.Linear(6, 8),
        head=nn.Linear(8, 3),
        other=nn.Linear(8, 3),
        token=nn.Parameter(torch.randn(1, 1, 8)),
    )
    ignore(net.other, range(1, 8))
    ignore(net.head, [5, 6, 7])
    assert_slim(net, inputs_like((5, 6)), patches=(5, 6), head=(3, 5))
