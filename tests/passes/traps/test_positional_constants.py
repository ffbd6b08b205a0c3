"""Constants that vary over positions, and the channels that carry what was removed (traps 5 to 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsefx.passes.graph import INDICES
from sparsefx.passes.indices import ChannelIndices
from tests.helpers import inputs_like
from tests.passes.traps.net import Net, ablate, assert_slim

IMAGES = inputs_like((3, 12, 12))
LIVE = 4


def _windowed(window: nn.Module, dead: int, head: nn.Module | None = None) -> Net:
    """A stem with `dead` constant channels, a window over each channel, and a head of three outputs."""
    width = LIVE + dead
    net = Net(
        lambda m, x: m.head(m.window(m.stem(x))),
        stem=nn.Conv2d(3, width, 1),
        window=window,
        head=head or nn.Conv2d(width, 3, 1),
    )
    ablate(net.stem, range(dead))
    return net


# The independent maps that uniform constants take behind a border, not counting the uniform one: that goes to the bias
WINDOWS: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "k3": (lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c), 8),
    "k5": (lambda c: nn.Conv2d(c, c, 5, padding=2, groups=c), 24),
    "k3 of stride 2": (lambda c: nn.Conv2d(c, c, 3, padding=1, stride=2, groups=c), 3),  # it meets two borders of four
    "padded on two sides": (lambda c: nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(c, c, 3, groups=c)), 3),
    "transposed, unpadded": (lambda c: nn.ConvTranspose2d(c, c, 3, groups=c), 9),
    "transposed, stride 2": (lambda c: nn.ConvTranspose2d(c, c, 3, stride=2, padding=1, output_padding=1, groups=c), 8),
    "average": (lambda c: nn.AvgPool2d(3, padding=1, stride=1), 1),  # one map for all channels
    "depthwise without border": (lambda c: nn.Conv2d(c, c, 3, groups=c), 0),
}


@pytest.mark.parametrize("dead", [30, 40])
@pytest.mark.parametrize("name", WINDOWS)
def test_trap_05_and_trap_06_constants_behind_a_border(name: str, dead: int) -> None:
    """However many channels are removed, one carrier per independent map stays for them."""
    window, maps = WINDOWS[name]
    assert_slim(_windowed(window(LIVE + dead), dead), IMAGES, stem=(LIVE + maps, 3), head=(3, LIVE + maps))


@pytest.mark.parametrize(("kernel", "side"), [(3, 2), (3, 1), (5, 3), (5, 4)])
def test_trap_06_windows_that_are_larger_than_the_image(kernel: int, side: int) -> None:
    """No more maps than positions, nor than taps, can be independent."""
    window = nn.Conv2d(30, 30, kernel, padding=kernel // 2, groups=30)
    maps = min(side, kernel) ** 2 - 1
    net = _windowed(window, 30 - LIVE)
    assert_slim(net, inputs_like((3, side, side)), stem=(LIVE + maps, 3), head=(3, LIVE + maps))


def test_trap_05_a_padded_window_of_its_middle_tap_leaves_constants_uniform() -> None:
    """What counts is the value at the reader, not the padding."""
    window = nn.Conv2d(14, 14, 3, padding=1, groups=14)
    with torch.no_grad():
        window.weight *= F.pad(torch.ones(1, 1), (1, 1, 1, 1))
    assert_slim(_windowed(window, 10), IMAGES, stem=(LIVE, 3), head=(3, LIVE))


def test_trap_05_positional_constants_into_a_padded_reader() -> None:
    """The reader's own border makes even the uniform map one that needs a carrier."""
    window = nn.Conv2d(34, 34, 3, padding=1, groups=34)
    net = _windowed(window, 30, nn.Conv2d(34, 3, 3, padding=1))
    assert_slim(net, IMAGES, stem=(LIVE + 9, 3), head=(3, LIVE + 9))


def test_trap_05_positional_maps_are_each_judged_on_their_own_scale() -> None:
    """Constants twelve orders of magnitude apart, and weights the other way round."""
    net = Net(
        lambda m, x: m.head(m.window(m.stem(x))),
        stem=nn.Conv2d(3, 8, 1),
        window=nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        head=nn.Conv2d(8, 4, 1),
    )
    ablate(net.stem, range(6))
    with torch.no_grad():
        for rows, scale in ((slice(0, 3), 1e6), (slice(3, 6), 1e-6)):
            net.get_parameter("stem.bias")[rows] *= scale
            net.get_parameter("head.weight")[:, rows] /= scale
    assert_slim(net, inputs_like((3, 12, 12)))


def _tokens(m: Any, x: Tensor) -> Tensor:
    return torch.cat([m.token.expand(x.shape[0], 1, -1), m.patches(x)], 1)


TOKENS: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "class token": (_tokens, 1),  # a constant at the token, another at all patches
    "position table": (lambda m, x: m.patches(x) + m.table[:, 1:], 4),
    "both": (lambda m, x: _tokens(m, x) + m.table, 5),
    "sum over channels": (lambda m, x: m.patches(x) + m.table[:, 1:].mean(2, keepdim=True), 1),
}


@pytest.mark.parametrize("name", TOKENS)
def test_trap_05_class_tokens_and_position_tables(name: str) -> None:
    """Constant channels of patches differ from token to token."""
    place, maps = TOKENS[name]
    net = Net(
        lambda m, x: m.head(place(m, x)),
        patches=nn.Linear(6, 16),
        head=nn.Linear(16, 3),
        token=nn.Parameter(torch.randn(1, 1, 16)),
        table=nn.Parameter(torch.randn(1, 6, 16)),
    )
    ablate(net.patches, range(12))
    assert_slim(net, inputs_like((5, 6)), patches=(LIVE + maps, 6), head=(3, LIVE + maps))


# One removed channel of the largest constant stays, and carries all the others of its group

CARRIED: dict[str, tuple[nn.Module, int]] = {
    "stride": (nn.Conv2d(10, 3, 3, stride=2, padding=1), 1),
    "dilation": (nn.Conv2d(10, 3, 3, dilation=3, padding=3), 1),
    "even same": (nn.Conv2d(10, 3, 4, padding="same"), 1),
    "even same with dilation": (nn.Conv2d(10, 3, (2, 4), padding="same", dilation=(1, 3)), 1),
    "uneven padding": (nn.Conv2d(10, 3, (3, 1), padding=(0, 1)), 1),
    "explicit padding": (nn.Sequential(nn.ZeroPad2d((2, 0, 1, 0)), nn.Conv2d(10, 3, 3)), 1),
    "transposed": (nn.ConvTranspose2d(10, 3, 3), 1),
    "transposed, stride 2": (nn.ConvTranspose2d(10, 3, 3, stride=2, output_padding=1, padding=1), 1),
    "transposed, of one tap": (nn.ConvTranspose2d(10, 3, 1, stride=2), 1),
    "reflect": (nn.Conv2d(10, 3, 3, padding=1, padding_mode="reflect"), 0),
    "replicate": (nn.Conv2d(10, 3, 3, padding=1, padding_mode="replicate"), 0),
    "circular": (nn.Conv2d(10, 3, 3, padding=1, padding_mode="circular"), 0),
    "unpadded": (nn.Conv2d(10, 3, 3, stride=2, dilation=2), 0),
}


@pytest.mark.parametrize("name", CARRIED)
def test_trap_07_one_ablated_channel_carries_all_of_them(name: str) -> None:
    window, carriers = CARRIED[name]
    net = Net(lambda m, x: m.window(m.stem(x)), stem=nn.Conv2d(3, 10, 1), window=window)
    ablate(net.stem, range(6))
    rewritten = assert_slim(net, IMAGES, stem=(4 + carriers, 3))
    constants = net.get_parameter("stem.bias").detach()[:6]
    expected = [int(constants.abs().argmax())] * carriers + [6, 7, 8, 9]
    assert _kept_outputs(rewritten.graph_module, "stem_weight") == expected


def test_trap_07_three_dimensions_and_one() -> None:
    volumes = Net(lambda m, x: m.window(m.stem(x)), stem=nn.Conv3d(2, 7, 1), window=nn.Conv3d(7, 3, 3, padding=1))
    sounds = Net(
        lambda m, x: m.window(m.stem(x)), stem=nn.Conv1d(2, 7, 1), window=nn.ConvTranspose1d(7, 3, 4, stride=3)
    )
    for net, shape, widths in ((volumes, (2, 4, 4, 4), (3, 4)), (sounds, (2, 9), (4, 3))):
        ablate(net.stem, range(4))
        assert_slim(net, inputs_like(shape), stem=(4, 2), window=widths)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("dead", [[0, 1, 2], [0, 1, 2, 4, 5, 6, 8, 9, 10]], ids=["one group", "every group"])
def test_trap_07_a_grouped_layer_needs_one_carrier_per_group(kind: type[nn.Conv2d], dead: Iterable[int]) -> None:
    """A group reads none of the other groups' channels; all groups stay equally wide."""
    net = Net(lambda m, x: m.window(m.stem(x)), stem=nn.Conv2d(3, 12, 1), window=kind(12, 6, 3, padding=1, groups=3))
    ablate(net.stem, dead)
    width = 4 if len(list(dead)) == 3 else 2
    window = (6, width) if kind is nn.Conv2d else (3 * width, 2)
    assert_slim(net, IMAGES, stem=(3 * width, 3), window=window)


def _kept_outputs(graph_module: torch.fx.GraphModule, weight: str) -> list[int]:
    """Original indices of a layer's remaining outputs."""
    layer = next(n for n in graph_module.graph.nodes if weight in [o.name for o in n.all_input_nodes])
    indices: ChannelIndices = layer.meta[INDICES]
    return [int(index) for index in indices.outputs]
