"""Modules called twice, tied parameters, weights computed in forward, constants from buffers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import SPATIAL_DIMS, Apply, Factory, Step, Value, activation, batch_norm, parameter, width
from . import convolutions


def called_twice(draw: Draw, value: Value) -> Step:
    """One layer applied again to its own output, or to two scalings of the input."""
    layer = convolutions.plain(draw, value, value.channels, keep_size=True)
    act = activation(draw, value.channels)
    again = draw.chance(60)

    def forward(m: Any, x: Tensor) -> Tensor:
        if again:
            return m.layer(m.act(m.layer(x)))  # type: ignore[no-any-return]
        return m.layer(x) + m.act(m.layer(torch.tanh(x)))  # type: ignore[no-any-return]

    return Step("module called twice", Apply(forward, layer=layer, act=act), value.layout)


def tied(draw: Draw, value: Value) -> Step:
    """Two layers on one weight, each with its own bias and norm."""
    dims = SPATIAL_DIMS[value.layout]
    first = convolutions.CONVOLUTIONS[dims - 1](value.channels, value.channels, 1)
    second = convolutions.CONVOLUTIONS[dims - 1](value.channels, value.channels, 1)
    second.weight = first.weight
    norm = batch_norm(dims, value.channels)
    return Step("tied weights", nn.Sequential(first, norm, activation(draw, value.channels), second), value.layout)


def functional(draw: Draw, value: Value) -> Step:
    """A 1x1 convolution whose weight is an expression of parameters: standardised, scaled, transposed, summed."""
    outputs = width(draw)
    dims = SPATIAL_DIMS[value.layout]
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    tail = (1,) * dims
    kinds = {
        "standardised": lambda m: (m.weight - m.weight.mean(1, keepdim=True)) / (m.weight.std(1, keepdim=True) + 0.1),
        "scaled": lambda m: m.weight * m.scale,
        "masked": lambda m: m.weight * m.mask,
        "low rank": lambda m: (m.weight.flatten(1) @ m.weight.flatten(1).t() @ m.weight.flatten(1)).reshape(
            m.weight.shape
        ),
        "normalised": lambda m: F.normalize(m.weight, dim=1),
        "plain": lambda m: m.weight,
    }
    if value.channels == 1:
        del kinds["standardised"]
    kind = draw.choice(sorted(kinds))
    layer = Apply(
        lambda m, x: convolve(x, kinds[kind](m), m.bias),
        weight=parameter(outputs, value.channels, *tail, scale=0.5), bias=parameter(outputs),
        scale=parameter(outputs, 1, *tail), mask=(torch.rand(outputs, 1, *tail) < 0.6).double(),
    )  # fmt: skip
    return Step(f"functional weight: {kind}", layer, value.layout)


def dynamic_weight(draw: Draw, value: Value) -> Step | None:
    """Mixture of experts: the weight of a product depends on the input."""
    if value.layout not in ("image", "signal"):
        return None
    channels = value.channels
    make = nn.Linear(channels, channels * 3)

    def forward(m: Any, x: Tensor) -> Tensor:
        weight = m.make(x.flatten(2).mean(2)).reshape(x.shape[0], 3, channels)
        mixed = torch.matmul(weight, x.flatten(2))
        return mixed.reshape(x.shape[0], 3, *x.shape[2:])

    return Step("dynamic weight", Apply(forward, make=make), value.layout)


def buffers(draw: Draw, value: Value) -> Step:
    """Constants that are not parameters: fixed normalisation, blur filters, coordinates appended as channels."""
    if value.layout == "image" and draw.chance(60):
        kernel = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
        blur = torch.outer(kernel, kernel) / 16
        if draw.chance(50):
            fixed = blur.expand(value.channels, 1, 3, 3).clone()
            return Step(
                "blur", Apply(lambda m, x: F.conv2d(x, m.blur, padding=1, groups=x.shape[1]), blur=fixed), value.layout
            )

        def coordinates(m: Any, x: Tensor) -> Tensor:
            rows = torch.linspace(-1, 1, x.shape[2], dtype=x.dtype)[None, None, :, None]
            return torch.cat([x, rows.expand(x.shape[0], 1, x.shape[2], x.shape[3])], dim=1)

        return Step("coordinates", Apply(coordinates), value.layout)
    tail = [1] * (value.sample.ndim - 1 - value.axis)
    mean, scale = torch.randn(value.channels, *tail).double(), torch.rand(value.channels, *tail).double() + 0.5
    return Step("fixed normalisation", Apply(lambda m, x: (x - m.mean) / m.scale, mean=mean, scale=scale), value.layout)


SHARING_STEPS: tuple[Factory, ...] = (called_twice, tied, functional, functional, dynamic_weight, buffers)
