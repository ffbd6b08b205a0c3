"""Assignments in place, single channels, lists of channels, and tensors joined along the batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import SPATIAL_DIMS, Apply, Factory, Step, Value, parameter
from .convolutions import plain


def in_place(draw: Draw, value: Value) -> Step | None:
    """Written to in place: export turns these into scatters and copies."""
    if value.channels < 3:
        return None
    axis, part = value.axis, value.channels // 2

    def channels(x: Tensor) -> Tensor:
        return x.narrow(axis, 0, part)

    def assign(m: Any, x: Tensor) -> Tensor:
        y = x.clone()
        channels(y).copy_(torch.tanh(channels(x)))
        return y

    def scale(m: Any, x: Tensor) -> Tensor:
        y = x + 0.0
        channels(y).mul_(2.0)
        return y

    def position(m: Any, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 0] = 0.5
        return y

    def whole(m: Any, x: Tensor) -> Tensor:
        return (x * 1.0).add_(0.3).relu_().mul_(x)

    def built(m: Any, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[:, 1:] = torch.sin(x[:, :-1])
        return y + x

    kind, function = draw.choice(
        (("whole", whole), ("channels", assign), ("scale", scale), ("index", position), ("shift", built))
    )
    return Step(f"in place: {kind}", Apply(function), value.layout)


def single_channels(draw: Draw, value: Value) -> Step | None:
    """One channel for all: selected, kept as an axis of one, unbound, gathered into a list."""
    if value.channels < 3:
        return None
    a, c = value.axis, value.channels
    kinds = {
        "select": lambda m, x: x + x.select(a, 1).unsqueeze(a),
        "narrow": lambda m, x: x * torch.sigmoid(x.narrow(a, c - 1, 1)),
        "unbind": lambda m, x: torch.stack([x.unbind(a)[i] for i in (2, 0)], dim=a),
        "list": lambda m, x: torch.cat([torch.sin(x.narrow(a, 1, 2)), x.narrow(a, 0, 1)], dim=a),
        "fourier": lambda m, x: torch.cat([torch.sin(x.narrow(a, 0, 2)), torch.cos(x.narrow(a, 0, 2)), x], dim=a),
        "sum of halves": lambda m, x: x.narrow(a, 0, c // 2) + x.narrow(a, c - c // 2, c // 2),
        "tensor_split": lambda m, x: torch.cat(x.tensor_split(3, dim=a)[::-1], dim=a),
        "zeros appended": lambda m, x: torch.cat([x, torch.zeros_like(x.narrow(a, 0, 2))], dim=a),
        "new zeros appended": lambda m, x: torch.cat(
            [x, x.new_zeros([2 if j == a else n for j, n in enumerate(x.shape)])], dim=a
        ),
        "ones appended": lambda m, x: torch.cat([torch.ones_like(x.narrow(a, 0, 1)), x], dim=a),
        "swapped": lambda m, x: torch.cat([x.narrow(a, 1, c - 1), x.narrow(a, 0, 1)], dim=a) * 0.5 + x,
    }
    if c > 12:
        del kinds["fourier"]
    kind = draw.choice(sorted(kinds))
    return Step(f"single channels: {kind}", Apply(kinds[kind]), value.layout)


def over_batch(draw: Draw, value: Value) -> Step:
    """Along the batch: centred by its mean, or two versions of the input side by side in one batch."""
    if value.layout in SPATIAL_DIMS and draw.chance(60):
        layer = plain(draw, value, value.channels, keep_size=True)

        def siamese(m: Any, x: Tensor) -> Tensor:
            both = m.layer(torch.cat([x, torch.tanh(x)], dim=0))
            return both[: x.shape[0]] + 0.5 * both[x.shape[0] :]  # torch.export cannot chunk a dynamic axis

        return Step("two in one batch", Apply(siamese, layer=layer), value.layout)
    return Step("batch mean", Apply(lambda m, x: x - 0.5 * x.mean(dim=0, keepdim=True)), value.layout)


def products(draw: Draw, value: Value) -> Step | None:
    """Products spelled with mm, addmm, matmul on vectors, and a bias added by hand."""
    if value.layout != "vector":
        return None
    matrix, shift = parameter(value.channels, 6, scale=0.6), parameter(6)
    kinds = {
        "mm": lambda m, x: torch.mm(x, m.matrix),
        "addmm": lambda m, x: torch.addmm(m.shift, x, m.matrix),
        "matmul and bias": lambda m, x: x @ m.matrix + m.shift,
        "linear of transposed": lambda m, x: F.linear(x, m.matrix.t(), m.shift),
        "outer sum": lambda m, x: (x[:, :, None] * m.matrix[None]).sum(dim=1),
        "left": lambda m, x: (m.matrix.t() @ x.t()).t(),
    }
    kind = draw.choice(sorted(kinds))
    return Step(f"product: {kind}", Apply(kinds[kind], matrix=matrix, shift=shift), "vector")


def factored(draw: Draw, value: Value) -> Step | None:
    """Channels as (a, b), one factor treated apart: a layer over b alone, or factors swapped before a layer."""
    first = draw.divisor(value.channels)
    second = value.channels // first
    if value.layout not in ("tokens", "vector") or 1 in (first, second):
        return None
    layer = nn.Linear(second, second)
    scale, table = parameter(first, 1), parameter(first, second)
    kinds = {
        "layer within": lambda m, x: m.layer(x.unflatten(-1, (first, second))).flatten(-2),
        "swap": lambda m, x: x.unflatten(-1, (first, second)).transpose(-1, -2).flatten(-2),
        "scale": lambda m, x: (x.unflatten(-1, (first, second)) * m.scale).flatten(-2),
        "table": lambda m, x: (x.unflatten(-1, (first, second)) + m.table).flatten(-2),
        "softmax within": lambda m, x: torch.softmax(x.unflatten(-1, (first, second)), dim=-1).flatten(-2),
        "mean of first": lambda m, x: x.unflatten(-1, (first, second)).mean(dim=-2),
        "select first": lambda m, x: x.unflatten(-1, (first, second))[..., 0, :],
        "select second": lambda m, x: x.unflatten(-1, (first, second))[..., 1],
        "flip first": lambda m, x: x.unflatten(-1, (first, second)).flip(-2).flatten(-2),
        "normalise second": lambda m, x: F.normalize(x.unflatten(-1, (first, second)), dim=-1, eps=0.1).flatten(-2),
        "split second": lambda m, x: torch.cat(
            x.unflatten(-1, (first, second)).split([1, second - 1], -1)[::-1], -1
        ).flatten(-2),
    }
    kind = draw.choice(sorted(kinds))
    return Step(f"factored: {kind}", Apply(kinds[kind], layer=layer, scale=scale, table=table), value.layout)


INDEXING_STEPS: tuple[Factory, ...] = (in_place, single_channels, in_place, single_channels, over_batch)
TOKEN_INDEXING_STEPS: tuple[Factory, ...] = (in_place, single_channels, factored, products, factored, over_batch)
