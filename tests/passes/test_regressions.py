"""Graphs that once came out wrong, each as the behaviour that it should have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers import inputs_like
from tests.passes.traps.net import Net, ablate, assert_slim, ignore

TOKENS = inputs_like((5, 8))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Operands beside the one whose channels flow through


def test_layers_that_compute_an_attention_mask_are_needed() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        q, k, v = m.qkv(x).split(4, -1)
        bias = m.outer(F.gelu(m.inner(x)))[:, None]
        return m.head(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], attn_mask=bias)[:, 0])

    net = Net(forward, qkv=nn.Linear(8, 12), inner=nn.Linear(8, 6), outer=nn.Linear(6, 5), head=nn.Linear(4, 3))
    ignore(net.head, [1])
    ignore(net.outer, [2])
    assert_slim(net, TOKENS, qkv=(11, 8), inner=(5, 8), outer=(5, 5), head=(3, 3))


def test_a_mask_per_head_loses_the_heads_that_go() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        q, k, v = m.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        return m.head(F.scaled_dot_product_attention(q, k, v, attn_mask=m.bias).transpose(1, 2).flatten(2))

    net = Net(forward, qkv=nn.Linear(8, 24), head=nn.Linear(8, 3), bias=nn.Parameter(torch.randn(2, 5, 5)))
    ignore(net.head, range(4, 8))
    graph = assert_slim(net, TOKENS, qkv=(12, 8), head=(3, 4)).graph_module
    assert graph.get_parameter("bias").shape == (1, 5, 5)


INDEXED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "embedding": lambda m, code: m.table(code),
    "index": lambda m, code: m.table.weight[code],
    "index_select": lambda m, code: m.table.weight.index_select(0, code.flatten()),
}


@pytest.mark.parametrize("name", INDEXED)
def test_layers_that_compute_an_index_are_needed(name: str) -> None:
    """A quantiser: the nearest entry of a code book, chosen by what two layers compute."""
    net = Net(
        lambda m, x: m.head(INDEXED[name](m, m.score(F.gelu(m.stem(x))).argmax(-1))),
        stem=nn.Linear(8, 8),
        score=nn.Linear(8, 7),
        table=nn.Embedding(7, 5),
        head=nn.Linear(5, 3),
    )
    ablate(net.stem, range(3))
    ignore(net.head, [1])
    with torch.no_grad():
        net.get_parameter("stem.bias")[:3] = 3.0
    assert_slim(net, inputs_like((8,)), stem=(5, 8), score=(7, 5))


@pytest.mark.parametrize(
    "pick", [lambda x, o: x.index_select(1, o), lambda x, o: x[:, o]], ids=["index_select", "index"]
)
def test_reordered_input_channels_stay_in_order(pick: Callable[[Tensor, Tensor], Tensor]) -> None:
    net = Net(
        lambda m, x: m.head(F.relu(m.stem(m.norm(pick(x, m.order))))),
        stem=nn.Conv2d(3, 6, 3),
        norm=nn.InstanceNorm2d(3, affine=True),
        head=nn.Conv2d(6, 3, 1),
        order=torch.tensor([2, 0, 1]),
    )
    ablate(net.stem, range(3))
    assert_slim(net, inputs_like((3, 6, 6)), stem=(3, 3), head=(3, 3))


# Axes of equal sizes that pair other indices


def _contracted(m: Any, x: Tensor) -> Any:
    """(channel width) against (width channel)."""
    q, k = m.a(x).permute(0, 2, 3, 1).flatten(2), m.b(x).permute(0, 2, 1, 3).flatten(2)
    return m.head(q @ k.transpose(1, 2))


def _batched(m: Any, x: Tensor) -> Any:
    """(width head) against (head width)."""
    q = m.a(torch.tanh(m.pre(x))).unflatten(-1, (4, 4)).permute(0, 1, 3, 2, 4).flatten(1, 2)
    k = m.b(x).unflatten(-1, (4, 4)).permute(0, 3, 1, 2, 4).flatten(1, 2)
    return m.head(torch.softmax(q @ q.transpose(-1, -2), -1) @ k)


def _attended(m: Any, x: Tensor) -> Any:
    q = m.a(torch.tanh(m.pre(x))).unflatten(-1, (4, 4)).permute(0, 1, 3, 2, 4).flatten(1, 2)
    k = m.b(x).unflatten(-1, (4, 4)).permute(0, 3, 1, 2, 4).flatten(1, 2)
    return m.head(F.scaled_dot_product_attention(q, q, k))


def test_a_contraction_pairs_indices_not_sizes() -> None:
    net = Net(_contracted, a=nn.Linear(6, 4), b=nn.Linear(6, 4), head=nn.Linear(5, 3))
    ablate(net.a, [0])
    ablate(net.b, [1])
    with torch.no_grad():
        net.get_parameter("a.bias")[0] = 0.0
        net.get_parameter("b.bias")[1] = 0.0
    assert_slim(net, inputs_like((4, 5, 6)))


@pytest.mark.parametrize("forward", [_batched, _attended])
def test_heads_are_paired_by_index_not_by_size(forward: Callable[[Any, Tensor], Any]) -> None:
    net = Net(forward, pre=nn.Linear(6, 6), a=nn.Linear(6, 16), b=nn.Linear(6, 16), head=nn.Linear(4, 3))
    ablate(net.b, range(4))  # one head of b is zero
    with torch.no_grad():
        net.get_parameter("b.bias")[:4] = 0.0
        net.get_parameter("a.weight")[4:, 0] = 0.0  # the first channel of pre feeds only one head of a
        net.get_parameter("a.weight")[:4, 1:] = 0.0
    assert_slim(net, inputs_like((4, 5, 6)))


# Rewritten graphs that did not run


@pytest.mark.parametrize("before", [3, 1])
def test_padding_channels_may_all_go(before: int) -> None:
    """Then nothing is padded, and the operator has nothing to do."""
    net = Net(
        lambda m, x: m.head(F.pad(m.stem(x), [0, 0, 0, 0, before, 0]).mean((2, 3))),
        stem=nn.Conv2d(3, 4, 3),
        head=nn.Linear(4 + before, 2),
    )
    ignore(net.head, [0])
    assert_slim(net, inputs_like((3, 6, 6)), stem=(4, 3), head=(2, 4))


def test_views_do_not_rely_on_the_strides_of_the_full_model() -> None:
    """Rotary halves of one channel each: concatenation then chooses another layout."""

    def place(m: Any, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * m.cos - b * m.sin, b * m.cos + a * m.sin], dim=-1)

    def forward(m: Any, x: Tensor) -> Any:
        q, k, v = (layer(x).view(x.shape[0], 6, 2, 4).transpose(1, 2) for layer in (m.q, m.k, m.v))
        q, k = place(m, q), place(m, k)
        weights = torch.softmax(torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)), dim=-1)
        return m.head(torch.bmm(weights, v.flatten(0, 1)).view(x.shape[0], 2, 6, 4).transpose(1, 2).flatten(2))

    layers = {name: nn.Linear(8, 8) for name in ("q", "k", "v", "head")}
    net = Net(forward, **layers, cos=torch.randn(6, 2), sin=torch.randn(6, 2))
    for layer in (net.q, net.k):
        ablate(layer, [1, 3, 5, 7])
        with torch.no_grad():
            layer.get_parameter("bias")[[1, 3, 5, 7]] = 0.0
    assert_slim(net, inputs_like((6, 8)), q=(4, 8), k=(4, 8), v=(8, 8))


class Overwriting(nn.Module):
    """Writes a number into its first channel, which export lifts into an attribute of this module."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 0] = 0.5
        return y


def test_a_constant_that_export_lifts_into_a_submodule_stays() -> None:
    net = Net(
        lambda m, x: m.head(torch.tanh(m.hidden(m.overwriting(x)))),
        overwriting=Overwriting(),
        hidden=nn.Linear(4, 6),
        head=nn.Linear(6, 3),
    )
    ablate(net.hidden, range(3))
    assert_slim(net, inputs_like((5, 4)), hidden=(3, 4), head=(3, 3))


def test_removal_goes_on_while_smaller_sizes_make_more_understood() -> None:
    """Grouped queries as an axis of their own: once a head has one channel, a view no longer cuts across channels."""

    def forward(m: Any, x: Tensor) -> Any:
        b = x.shape[0]
        q = m.q(x).view(b, 4, 2, 4).transpose(1, 2).view(b, 1, 2, 4, 4)
        k, v = (layer(x).view(b, 4, 1, 4).transpose(1, 2) for layer in (m.k, m.v))
        weights = torch.softmax(torch.einsum("bgrnd,bgmd->bgrnm", q, k), dim=-1)
        return m.head(torch.einsum("bgrnm,bgmd->bgrnd", weights, v).reshape(b, 2, 4, 4).transpose(1, 2).flatten(2))

    net = Net(forward, q=nn.Linear(8, 8), k=nn.Linear(8, 4), v=nn.Linear(8, 4), head=nn.Linear(8, 3))
    for layer, rows in ((net.q, [1, 2, 3, 5, 6, 7]), (net.k, [1, 2, 3]), (net.v, [1, 2, 3])):
        ablate(layer, rows)
        with torch.no_grad():
            layer.get_parameter("bias")[rows] *= float(layer is net.v)
    ignore(net.head, range(1, 8))
    assert assert_slim(net, inputs_like((4, 8))).removed > 0
