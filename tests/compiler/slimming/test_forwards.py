"""Forwards that compute with sizes: what smaller parameters would break stays, or is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from tests.compiler.slimming.nets import ablate, error, lively
from tests.helpers import TOLERANCE


class Literal(nn.Module):
    """Two layers with something in between that may fix the number of channels."""

    def __init__(self, between: Callable[[Tensor], Tensor], read: int) -> None:
        super().__init__()
        self.before, self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 1), nn.Linear(read, 4)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.between(torch.relu(self.first(torch.relu(self.before(x))))))
        return out


def fixed_view(x: Tensor) -> Tensor:
    return x.amax((2, 3)).view(-1, 32)


def fixed_split(x: Tensor) -> Tensor:
    a, b = x.amax((2, 3)).split([16, 16], 1)
    return a * b.sigmoid()


def fixed_slice(x: Tensor) -> Tensor:
    x = x.amax((2, 3))
    return x[:, :16] - x[:, 16:]


def fixed_shuffle(x: Tensor) -> Tensor:
    n, _, h, w = x.shape
    return x.view(n, 4, 8, h, w).transpose(1, 2).reshape(n, 32, h, w).amax((2, 3))


def scaled(x: Tensor) -> Tensor:
    return x.amax((2, 3)) / math.sqrt(x.shape[1])


def free_view(x: Tensor) -> Tensor:
    return x.amax((2, 3)).view(x.shape[0], -1)


def free_flatten(x: Tensor) -> Tensor:
    return x[:, :, :2, :2].flatten(1)


def halves(x: Tensor) -> Tensor:
    a, b = x.amax((2, 3)).chunk(2, 1)
    return a * b.sigmoid()


@pytest.mark.parametrize(
    ("between", "read"), [(fixed_view, 32), (fixed_split, 16), (fixed_slice, 16), (fixed_shuffle, 32), (scaled, 32)]
)
def test_fixed_sizes_are_found_before_the_module_is_handed_out(between: Callable[[Tensor], Tensor], read: int) -> None:
    model, make_inputs = lively(Literal(between, read))
    ablate(model, "before", "first")
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert error(small, model, make_inputs) <= TOLERANCE
    assert small.before.out_channels < 16, "what the literal does not concern goes all the same"
    assert small.first.out_channels == 32
    (reason,) = small.config["kept_for_forward"]
    assert reason.startswith("forward fixes sizes at ") and "test_forwards.py:" in reason


@pytest.mark.parametrize(("between", "read", "kept"), [(free_view, 32, 16), (free_flatten, 128, 16), (halves, 16, 16)])
def test_sizes_that_forward_computes_follow(between: Callable[[Tensor], Tensor], read: int, kept: int) -> None:
    model, make_inputs = lively(Literal(between, read))
    ablate(model, "first")
    with torch.no_grad():
        model.first.bias[::2] = 0
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert error(small, model, make_inputs) <= TOLERANCE
    assert small.first.out_channels == kept
    assert small.config["kept_for_forward"] == []


class Attention(nn.Module):
    """Attention written out; its scale and heads are computed from sizes or given."""

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.scale = scale
        self.query, self.key, self.value = (nn.Linear(8, 16) for _ in range(3))
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        y = nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


@pytest.mark.parametrize("scale", [None, 0.5])
def test_an_attention_scale_that_follows_the_width_keeps_the_width(scale: float | None) -> None:
    model, make_inputs = lively(Attention(scale), [(5, 8)])
    with torch.no_grad():
        for layer in (model.query, model.key, model.value):
            layer.weight[[0, 1, 8, 9]] = 0
            layer.bias[[0, 1, 8, 9]] = 0
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert error(small, model, make_inputs) <= TOLERANCE
    assert {layer.out_features for layer in (small.query, small.key, small.value)} == {16 if scale is None else 12}


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)).mean(1)
        return out


def test_multihead_attention_stays_and_what_is_beside_it_goes() -> None:
    model, make_inputs = lively(Encoder(), [(5, 8)])
    ablate(model, "layer.linear1", every=2)
    with torch.no_grad():
        model.layer.self_attn.in_proj_weight[::3] = 0
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert error(small, model, make_inputs) <= TOLERANCE
    assert small.layer.linear1.out_features == small.layer.linear2.in_features == 16
    assert small.layer.self_attn.in_proj_weight.shape == (24, 8)


class Branching(nn.Module):
    """Takes another path where a layer has become smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        if self.first.out_features < 16:
            x = x * 2
        out: Tensor = self.second(x)
        return out


def test_another_path_keeps_the_channels() -> None:
    model, make_inputs = lively(Branching(), [(6,)])
    ablate(model, "first")
    small, _ = sparsefx.slim(model, make_inputs(2))
    assert small.first.out_features == 16
    assert error(small, model, make_inputs) <= TOLERANCE


class Counting(nn.Module):
    """Depends on the number of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        count = sum(p.numel() for p in self.parameters())
        out: Tensor = self.second(torch.relu(self.first(x * (count / 180.0))))
        return out


def test_what_cannot_be_kept_is_refused_with_the_line_and_the_way_out() -> None:
    model, make_inputs = lively(Counting(), [(6,)])
    ablate(model, "first")
    with pytest.raises(sparsefx.VerificationError, match=r'(?s)test_forwards.py:\d+.*target="torch"\).graph_module'):
        sparsefx.slim(model, make_inputs(2))
