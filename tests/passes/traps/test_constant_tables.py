"""Constant tables: writes into slices, indices, masks, position biases (trap 12)."""

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


def test_trap_12_slice_scatter_joins_what_is_written_with_what_is_there() -> None:
    """Rows of one map are written into another: a channel is a constant only where both are, and the same."""

    def forward(m: Any, x: Tensor) -> Any:
        y = F.gelu(m.a(x))
        y[:, :, 2:4] = m.b(x)[:, :, :2]
        y[:, :, :, 1:2] = m.column
        return m.head(y)

    parts = {"a": nn.Conv2d(3, 8, 1), "b": nn.Conv2d(3, 8, 1), "head": nn.Conv2d(8, 2, 1)}
    net = Net(forward, **parts, column=torch.randn(8, 1, 1))
    ablate(net.a, range(4))
    ignore(net.head, [6, 7])
    assert_slim(net, IMAGES, a=(6, 3), b=(6, 3), head=(2, 6))


def test_trap_12_slice_scatter_of_constants_only() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        y[:, :, 2:4] = m.b(x)[:, :, :2]
        return m.head(y)

    net = Net(forward, a=nn.Conv2d(3, 12, 1), b=nn.Conv2d(3, 12, 1), head=nn.Conv2d(12, 2, 1))
    ablate(net.a, range(8))
    ablate(net.b, range(8))
    assert_slim(net, IMAGES, a=(5, 3), b=(5, 3), head=(2, 5))  # two values for all rows: one carrier and a bias


WRITES: dict[str, tuple[Any, float]] = {
    "rows": ((slice(None), slice(None), slice(2, 4)), 0.5),
    "a column": ((..., 0), 0.5),
    "a channel": ((slice(None), 5), -2.0),
    "channels": ((slice(None), slice(3, 6)), 0.0),
}


@pytest.mark.parametrize("name", WRITES)
def test_trap_12_numbers_written_into_a_live_map(name: str) -> None:
    """Whatever is cut, the number ends up where it was written."""
    where, number = WRITES[name]

    def forward(m: Any, x: Tensor) -> Any:
        y = F.gelu(m.a(x))
        y[where] = number
        return m.head(y)

    net = Net(forward, a=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))
    ablate(net.a, [0, 1])
    ignore(net.head, [2, 3])
    assert_slim(net, IMAGES)


@pytest.mark.parametrize(
    "start", [lambda x: x.new_zeros((6, 6)), lambda x: torch.zeros(6, 6, dtype=x.dtype)], ids=["new_zeros", "zeros"]
)
def test_trap_12_a_mask_that_is_written_region_by_region_is_a_table(start: Callable[[Tensor], Tensor]) -> None:
    """Swin's mask: nothing of it depends on the input, so nothing of it is computed at run time."""

    def forward(m: Any, x: Tensor) -> Any:
        regions = start(x)
        for number, rows in enumerate((slice(0, 3), slice(3, 5), slice(5, 6))):
            regions[rows, 1:4] = number
        difference = regions.flatten()[:, None] - regions.flatten()[None]
        mask = difference.masked_fill(difference != 0, -100.0)
        q = m.q(x).flatten(1, 2)
        return m.head(torch.softmax(q @ q.transpose(1, 2) + mask, -1) @ m.v(x).flatten(1, 2))

    net = Net(forward, q=nn.Linear(5, 4), v=nn.Linear(5, 8), head=nn.Linear(8, 3))
    ablate(net.v, range(3))
    ignore(net.head, [7])
    graph = assert_pipeline(net, inputs_like((6, 6, 5)), v=(4, 5), head=(3, 4))
    assert not [n.name for n in graph.graph.nodes if "scatter" in n.name or "fill" in n.name]


def test_trap_12_a_slice_of_channels_written_to() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = F.gelu(m.a(x))
        y[:, 2:5] = m.b(x)
        return m.head(y)

    net = Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(3, 3, 1), head=nn.Conv2d(8, 2, 1))
    ablate(net.a, [0, 1])
    ignore(net.head, [3, 6])
    assert_slim(net, IMAGES)


ORDER = torch.tensor([5, 0, 2, 2, 7, 1])


def test_trap_12_channels_picked_by_a_constant_table() -> None:
    """Channels that are not picked go; one that is picked twice goes only if neither copy is read."""
    net = Net(
        lambda m, x: m.head(F.gelu(m.stem(x))[:, m.order]),
        stem=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(6, 2, 1),
        order=ORDER,
    )
    ignore(net.head, [1, 2])
    assert_slim(net, IMAGES, stem=(4, 3), head=(2, 5))


def test_trap_12_constants_picked_by_a_constant_table() -> None:
    """Both copies of one constant are folded."""
    net = Net(
        lambda m, x: m.head(m.stem(x).index_select(1, m.order)),
        stem=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(6, 2, 3),
        order=ORDER,
    )
    ablate(net.stem, [2, 7])
    assert_slim(net, IMAGES, stem=(3, 3), head=(2, 3))


def test_trap_12_positions_picked_by_a_constant_table() -> None:
    net = Net(
        lambda m, x: m.head(F.gelu(m.stem(x)).flatten(2)[:, :, m.order].mean(2)),
        stem=nn.Conv2d(3, 8, 1),
        head=nn.Linear(8, 2),
        order=ORDER,
    )
    ablate(net.stem, range(3))
    ignore(net.head, [7])
    assert_slim(net, IMAGES, stem=(4, 3), head=(2, 4))


def test_trap_12_a_table_of_position_biases_is_folded_before_it_meets_the_scores() -> None:
    """Swin's bias: a table indexed by constants, reshaped, run through a function, cut with the heads that go."""

    def forward(m: Any, x: Tensor) -> Any:
        q, k, v = m.qkv(x).unflatten(-1, (3, 4, 2)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = 4 * torch.sigmoid(m.table[m.order.repeat(6)].reshape(6, 6, 4).permute(2, 0, 1))
        weights = torch.softmax(q @ k.transpose(-1, -2) + bias, -1)
        return m.head((weights @ v).transpose(1, 2).flatten(2))

    net = Net(forward, qkv=nn.Linear(6, 24), head=nn.Linear(8, 3), table=nn.Parameter(torch.randn(8, 4)), order=ORDER)
    ignore(net.head, [2, 3, 4])
    assert_pipeline(net, inputs_like((6, 6)), qkv=(18, 6), head=(3, 6))
