"""Attention weights, normalisation, recurrent layers and branches (traps 17 to 19)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sparsefx
from tests.helpers import inputs_like
from tests.passes.traps.net import Net, ablate, assert_slim, assert_widths, ignore

IMAGES = inputs_like((3, 8, 8))
TOKENS = inputs_like((6, 5))
EMPTY = torch.ones(6, 6, dtype=torch.bool)
EMPTY[2] = False  # the third query attends to nothing
SOME = torch.ones(6, 6, dtype=torch.bool).tril()


def _attending(attend: Callable[..., Tensor], dead: list[int], **parts: nn.Module | Tensor) -> Net:
    """One head of eight channels, of which v holds some at a constant."""
    net = Net(
        lambda m, x: m.head(attend(m, x, m.q(x)[:, None], m.k(x)[:, None], m.v(x)[:, None])[:, 0]),
        q=nn.Linear(5, 4),
        k=nn.Linear(5, 4),
        v=nn.Linear(5, 8),
        head=nn.Linear(8, 3),
        **parts,
    )
    ablate(net.v, dead)
    return net


ROWS_SUM_TO_ONE: dict[str, Callable[..., Tensor]] = {
    "no mask": lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, v),
    "causal": lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "constant mask": lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=m.mask),
    "additive mask": lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=m.bias),
    "softmax and product": lambda m, x, q, k, v: torch.softmax(q @ k.transpose(-1, -2) + m.bias, -1) @ v,
    "another scale": lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=1.0),
}


@pytest.mark.parametrize("name", ROWS_SUM_TO_ONE)
def test_trap_17_a_uniform_v_passes_where_every_row_attends_to_something(name: str) -> None:
    bias = torch.randn(6, 6).masked_fill(~SOME, -torch.inf)
    net = _attending(ROWS_SUM_TO_ONE[name], [0, 1, 2], mask=SOME, bias=bias)
    assert_slim(net, TOKENS, q=(4, 5), v=(5, 5), head=(3, 5))


MAY_BE_EMPTY: dict[str, Callable[..., Tensor]] = {
    "constant mask": lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=m.empty),
    "additive mask": lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=m.bias),
    "computed mask": lambda m, x, q, k, v: F.scaled_dot_product_attention(
        q, k, v, attn_mask=(m.score(x) > 0).transpose(1, 2)[:, None]
    ),
    "padding": lambda m, x, q, k, v: F.scaled_dot_product_attention(
        q, k, v, attn_mask=(x[:, None, None, :, 0] > 0).expand(-1, 1, 6, -1)
    ),
}


@pytest.mark.parametrize("name", MAY_BE_EMPTY)
def test_trap_17_a_row_that_attends_to_nothing_is_zero(name: str) -> None:
    """There the constant does not come through: the channel stays; zeros may go in any case."""
    bias = torch.zeros(6, 6).masked_fill(~EMPTY, -torch.inf)
    net = _attending(MAY_BE_EMPTY[name], [0, 1, 2, 3], empty=EMPTY, bias=bias, score=nn.Linear(5, 1))
    nn.init.zeros_(net.get_parameter("score.bias"))
    with torch.no_grad():
        net.get_parameter("v.bias")[3] = 0.0
    assert_slim(net, TOKENS, v=(7, 5), head=(3, 7))


def test_trap_17_a_softmax_over_an_empty_row_is_not_a_number() -> None:
    """So is the model's output there, and the rewritten one's: the weights do not vanish with a constant v."""
    bias = torch.zeros(6, 6).masked_fill(~EMPTY, -torch.inf)
    net = _attending(lambda m, x, q, k, v: torch.softmax(q @ k.transpose(-1, -2) + m.bias, -1) @ v, [0, 1], bias=bias)
    with torch.no_grad():
        net.get_parameter("v.weight")[6] = 0.0
    rewritten = assert_slim(net, TOKENS)
    out = rewritten.graph_module(*TOKENS(2))
    assert out[:, 2].isnan().all() and out[:, [0, 1, 3, 4, 5]].isfinite().all()


def test_trap_17_a_v_that_differs_from_token_to_token_does_not_pass() -> None:
    net = _attending(
        lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, v + m.table), [0, 1, 2], table=torch.randn(6, 8)
    )
    net.get_buffer("table")[:, 2:4] = 0.5  # channel 2 stays uniform
    assert_slim(net, TOKENS, v=(7, 5), head=(3, 7))


def test_trap_17_attention_with_dropout_keeps_everything() -> None:
    """The functional form drops weights even in evaluation: rows do not sum to one."""
    net = _attending(lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.5), [0, 1, 2])
    graph = sparsefx.compile(net, TOKENS(2), target="torch", verify=False).graph_module
    assert_widths(graph, q=(4, 5), v=(8, 5), head=(3, 8))


def test_trap_17_weights_that_are_no_softmax_do_not_pass_constants() -> None:
    net = _attending(lambda m, x, q, k, v: torch.sigmoid(q @ k.transpose(-1, -2)) @ v, [0, 1, 2])
    with torch.no_grad():
        net.get_parameter("v.bias")[0] = 0.0
    assert_slim(net, TOKENS, v=(7, 5), head=(3, 7))


def test_trap_17_a_softmax_that_is_changed_afterwards_does_not_sum_to_one() -> None:
    def attend(m: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.softmax(q @ k.transpose(-1, -2), -1)
        return (weights * SOME) @ v

    assert_slim(_attending(attend, [0, 1, 2]), TOKENS, v=(8, 5), head=(3, 8))


def test_trap_17_a_softmax_over_the_other_axis_does_not_sum_to_one() -> None:
    net = _attending(lambda m, x, q, k, v: torch.softmax(q @ k.transpose(-1, -2), -2) @ v, [0, 1, 2])
    assert_slim(net, TOKENS, v=(8, 5), head=(3, 8))


def test_trap_17_values_that_all_samples_share() -> None:
    net = _attending(lambda m, x, q, k, v: F.scaled_dot_product_attention(q, k, m.table), [], table=torch.randn(6, 8))
    ignore(net.head, [3])
    assert_slim(net, TOKENS)


# Norms


def test_trap_18_a_large_constant_in_an_instance_norm_is_reported() -> None:
    """In float32, 10000.3 less its own mean is not zero, and is divided by almost nothing: the model is unsteady."""
    norm = nn.InstanceNorm2d(8, affine=True)
    net = Net(lambda m, x: m.head(m.norm(m.stem(x))), stem=nn.Conv2d(3, 8, 1), norm=norm, head=nn.Conv2d(8, 2, 1))
    ablate(net.stem, range(4))
    x = torch.randn(2, 3, 9, 7)
    sparsefx.compile(net, (x,), target="torch")
    nn.init.constant_(net.get_parameter("stem.bias"), 10000.3)
    with pytest.raises(sparsefx.VerificationError, match="unstable"):
        sparsefx.compile(net, (x,), target="torch")


def test_trap_18_constants_in_an_instance_norm_become_its_shift() -> None:
    norm = nn.InstanceNorm2d(8, affine=True)
    net = Net(lambda m, x: m.head(m.norm(m.stem(x))), stem=nn.Conv2d(3, 8, 1), norm=norm, head=nn.Conv2d(8, 2, 1))
    ablate(net.stem, range(3))
    nn.init.normal_(norm.bias)
    with torch.no_grad():
        norm.weight[5] = 0.0
    assert_slim(net, IMAGES, stem=(4, 3), head=(2, 4))


def _last(norm: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """A norm over the last axis, of channels on the second."""
    return norm(h.movedim(1, -1)).movedim(-1, 1)


NORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "group": lambda m, h: F.group_norm(h, 4, m.scale, m.shift),
    "one group": lambda m, h: F.group_norm(h, 1, m.scale, m.shift),
    "layer": lambda m, h: _last(lambda t: F.layer_norm(t, (8,), m.scale, m.shift), h),
    "root mean square": lambda m, h: _last(lambda t: F.rms_norm(t, (8,), m.scale), h),
    "all axes": lambda m, h: F.layer_norm(h, (8, 8, 8)),
    "group, by an expression": lambda m, h: F.group_norm(h, 2, 1 + m.scale, m.shift * 2),
    "layer, by an expression": lambda m, h: _last(lambda t: F.layer_norm(t, (8,), m.scale.sigmoid(), m.shift * 2), h),
    "root mean square, by an expression": lambda m, h: _last(lambda t: F.rms_norm(t, (8,), 1 + m.scale), h),
}


@pytest.mark.parametrize("name", NORMS)
def test_trap_18_norms_over_channels_keep_all_of_them(name: str) -> None:
    """Constants and unread channels take part in the statistics of the others."""
    net = Net(
        lambda m, x: m.head(NORMS[name](m, m.stem(x))),
        stem=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(8, 2, 1),
        scale=nn.Parameter(torch.randn(8)),
        shift=nn.Parameter(torch.randn(8)),
    )
    ablate(net.stem, range(3))
    ignore(net.head, [7])
    assert_slim(net, IMAGES, stem=(8, 3), head=(2, 8))


def test_trap_18_a_norm_over_positions_lets_channels_go() -> None:
    net = Net(lambda m, x: m.head(F.layer_norm(m.stem(x), (8, 8))), stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))
    ignore(net.head, [6, 7])
    assert_slim(net, IMAGES, stem=(6, 3), head=(2, 6))


# Recurrent layers and control flow


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_trap_19_recurrent_layers_keep_what_they_touch(kind: Callable[..., nn.Module]) -> None:
    net = Net(
        lambda m, x: m.head(torch.tanh(m.mix(m.recurrent(m.stem(x))[0]))),
        stem=nn.Linear(5, 8),
        recurrent=kind(8, 7, batch_first=True),
        mix=nn.Linear(7, 6),
        head=nn.Linear(6, 3),
    )
    ablate(net.stem, range(3))
    ablate(net.mix, [0])
    ignore(net.mix, [4])
    ignore(net.head, [5])
    assert_slim(net, TOKENS, stem=(8, 5), mix=(4, 7), head=(3, 4))


BRANCHES: dict[str, tuple[Callable[[Any, Tensor], Tensor], Callable[[Any, Tensor], Tensor]]] = {
    "functions": (lambda m, t: torch.sin(t) * 2, lambda m, t: torch.cos(t)),
    "layers": (lambda m, t: m.a(t), lambda m, t: m.b(t)),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_trap_19_branches_keep_what_they_touch(name: str) -> None:
    """Which of them runs depends on the input; so does everything behind them."""
    yes, no = BRANCHES[name]

    def forward(m: Any, x: Tensor) -> Any:
        y = torch.cond(x[0].sum() > 0, lambda t: yes(m, t), lambda t: no(m, t), (m.stem(x),))
        return m.head(torch.tanh(m.mix(y)))

    parts = {"stem": nn.Linear(5, 8), "a": nn.Linear(8, 8), "b": nn.Linear(8, 8)}
    net = Net(forward, **parts, mix=nn.Linear(8, 6), head=nn.Linear(6, 3))
    for layer in (net.stem, net.a, net.b):
        ablate(layer, range(3))
    ablate(net.mix, [0])
    ignore(net.mix, [4])
    ignore(net.head, [5])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch, about its own compiler
        assert_slim(net, inputs_like((5,)), stem=(8, 5), mix=(4, 8), head=(3, 4))
