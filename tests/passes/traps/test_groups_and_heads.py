"""Groups and heads keep equally many channels (trap 21)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers import inputs_like
from tests.passes.traps.net import Net, ablate, assert_slim, ignore

IMAGES = inputs_like((3, 8, 8))
TOKENS = inputs_like((6, 8))


def _grouped(groups: int, kept: list[list[int]], width: int) -> tuple[Net, int]:
    """A grouped layer of which each group needs some of its inputs and outputs."""
    channels = groups * width
    window = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
    net = Net(
        lambda m, x: m.head(F.gelu(m.window(F.gelu(m.stem(x))))),
        stem=nn.Conv2d(3, channels, 1),
        window=window,
        head=nn.Conv2d(channels, 2, 1),
    )
    needed = [g * width + c for g, row in enumerate(kept) for c in row]
    unneeded = sorted(set(range(channels)) - set(needed))
    ignore(net.head, unneeded)
    with torch.no_grad():
        for channel in unneeded:
            window.weight[channel // width * width : (channel // width + 1) * width, channel % width] = 0.0
    return net, len(needed)


@pytest.mark.parametrize(
    ("kept", "groups", "width"),
    [
        ([[0, 1], [2], [1, 3], []], 3, 2),
        ([[0, 1, 2, 3], [0], [0], [0]], 4, 4),
        ([[3], [2], [1], [0]], 4, 1),
        ([[], [], [0, 2, 3], []], 1, 3),
    ],
    ids=["unequal", "one is full", "depthwise", "one is left"],
)
def test_trap_21_groups_keep_equally_many_channels(kept: list[list[int]], groups: int, width: int) -> None:
    """The smallest realisable superset: groups that are needed at all, as wide as the widest of them."""
    net, _ = _grouped(4, kept, 4)
    rewritten = assert_slim(
        net, IMAGES, stem=(groups * width, 3), window=(groups * width, width), head=(2, groups * width)
    )
    convolution = next(n for n in rewritten.graph_module.graph.nodes if "window_weight" in map(str, n.all_input_nodes))
    assert convolution.args[-1] == groups


def test_trap_21_depthwise_multipliers_keep_equally_many_outputs_per_input() -> None:
    window = nn.Conv2d(5, 15, 3, padding=1, groups=5)
    net = Net(
        lambda m, x: m.head(F.gelu(m.window(m.stem(x)))),
        stem=nn.Conv2d(3, 5, 1),
        window=window,
        head=nn.Conv2d(15, 2, 1),
    )
    ignore(net.head, [0, 3, 4, 6, 7, 8, 12])  # needed: 2, 1, 0, 3, 2 of three outputs
    assert_slim(net, IMAGES, stem=(4, 3), window=(12, 1), head=(2, 12))
    ignore(net.head, [9])
    assert_slim(net, IMAGES, stem=(4, 3), window=(8, 1), head=(2, 8))


def test_trap_21_grouped_layers_in_a_row_settle_together() -> None:
    net = Net(
        lambda m, x: m.head(F.gelu(m.b(F.gelu(m.a(F.gelu(m.stem(x))))))),
        stem=nn.Conv2d(3, 12, 1),
        a=nn.Conv2d(12, 12, 3, groups=2),
        b=nn.Conv2d(12, 12, 1, groups=3),
        head=nn.Conv2d(12, 2, 1),
    )
    ignore(net.head, [0, 1, 4, 9, 10])
    ignore(net.b, [2])
    ablate(net.a, [6])
    rewritten = assert_slim(net, IMAGES, head=(2, 9))
    assert rewritten.removed > 0


def _attention(m: Any, x: Tensor) -> Any:
    """Four heads of four channels."""
    q, k, v = (layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (m.q, m.k, m.v))
    return m.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _packed_attention(m: Any, x: Tensor) -> Any:
    q, k, v = m.qkv(x).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4).unbind(0)
    return m.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_trap_21_unequal_heads_keep_equally_many_channels() -> None:
    layers = {name: nn.Linear(8, 16) for name in "qkv"}
    net = Net(_attention, **layers, head=nn.Linear(16, 3))
    ignore(net.head, [0, 4, 5, 8, 9, 10, 11])  # of the heads' channels, 3, 2, none and 4 are needed
    assert_slim(net, TOKENS, q=(12, 8), k=(12, 8), v=(12, 8), head=(3, 12))
    ignore(net.head, [12, 13])
    assert_slim(net, TOKENS, q=(12, 8), k=(12, 8), v=(9, 8), head=(3, 9))


def test_trap_21_packed_heads_keep_equally_many_channels_in_queries_keys_and_values() -> None:
    """One tensor holds all three: v cannot be narrower than q and k."""
    net = Net(_packed_attention, qkv=nn.Linear(8, 48), head=nn.Linear(16, 3))
    ignore(net.head, [0, 4, 5, 8, 9, 10, 11, 12, 13])
    assert_slim(net, TOKENS, qkv=(36, 8), head=(3, 12))


def _grouped_queries(m: Any, x: Tensor) -> Any:
    """Four heads of queries, two heads of keys and values, three channels each."""
    q = m.q(x).unflatten(-1, (4, 3)).transpose(1, 2)
    k, v = (layer(x).unflatten(-1, (2, 3)).transpose(1, 2) for layer in (m.k, m.v))
    return m.head(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))


def _repeated_keys(m: Any, x: Tensor) -> Any:
    q = m.q(x).unflatten(-1, (4, 3)).transpose(1, 2)
    k, v = (layer(x).unflatten(-1, (2, 3)).transpose(1, 2).repeat_interleave(2, 1) for layer in (m.k, m.v))
    return m.head((torch.softmax(q @ k.transpose(-1, -2), -1) @ v).transpose(1, 2).flatten(2))


def _query_grouped(forward: Callable[[Any, Tensor], Any]) -> Net:
    return Net(forward, q=nn.Linear(8, 12), k=nn.Linear(8, 6), v=nn.Linear(8, 6), head=nn.Linear(12, 3))


def test_trap_21_query_heads_go_with_the_key_head_they_share() -> None:
    """A key head goes when none of its query heads is needed; a channel of v when none of them reads it."""
    net = _query_grouped(_grouped_queries)
    ignore(net.head, [0, 1, 2])  # query head 0: its partner 1 keeps key head 0
    assert_slim(net, TOKENS, q=(12, 8), k=(6, 8), v=(6, 8))
    ignore(net.head, [3, 4, 5])
    assert_slim(net, TOKENS, q=(6, 8), k=(3, 8), v=(3, 8), head=(3, 6))
    ignore(net.head, [7, 10])
    assert_slim(net, TOKENS, q=(6, 8), k=(3, 8), v=(2, 8), head=(3, 4))


@pytest.mark.parametrize("forward", [_grouped_queries, _repeated_keys])
def test_trap_21_a_channel_that_no_query_head_reads_goes(forward: Callable[[Any, Tensor], Any]) -> None:
    net = _query_grouped(forward)
    ignore(net.head, [1, 4, 7, 10])
    assert_slim(net, TOKENS, q=(12, 8), k=(6, 8), v=(4, 8), head=(3, 8))
    ignore(net.head, [0, 3])
    assert_slim(net, TOKENS)
