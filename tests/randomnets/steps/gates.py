"""Steps in which something computed from a tensor scales, shifts or selects it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import SPATIAL_DIMS, Apply, Factory, Step, Value, activation, parameter
from .convolutions import CONVOLUTIONS


def squeeze_excite(draw: Draw, value: Value) -> Step:
    """Global mean, bottleneck, gate per channel: with 1x1 convolutions, or with linear layers."""
    channels, inner = value.channels, draw.choice((4, 2, 3, 6))
    dims = list(range(2, value.sample.ndim))
    act, gate = activation(draw, inner), draw.choice((nn.Sigmoid, nn.Hardsigmoid))()
    if draw.chance(50):
        conv = CONVOLUTIONS[len(dims) - 1]
        layers = nn.Sequential(conv(channels, inner, 1), act, conv(inner, channels, 1), gate)
        return Step(
            "squeeze-excite", Apply(lambda m, x: x * m.layers(x.mean(dims, keepdim=True)), layers=layers), value.layout
        )
    layers = nn.Sequential(nn.Linear(channels, inner), act, nn.Linear(inner, channels), gate)

    def forward(m: Any, x: Tensor) -> Tensor:
        scale: Tensor = m.layers(x.mean(dims))
        return x * scale.reshape(*scale.shape, *[1] * len(dims))

    return Step("squeeze-excite linear", Apply(forward, layers=layers), value.layout)


def spatial_gate(draw: Draw, value: Value) -> Step:
    """One number per position for all channels: from a convolution, or from mean and max over channels (CBAM)."""
    conv = CONVOLUTIONS[SPATIAL_DIMS[value.layout] - 1]
    if draw.chance(50):
        gate = conv(value.channels, 1, 1)
        return Step("spatial gate", Apply(lambda m, x: x * torch.sigmoid(m.gate(x)), gate=gate), value.layout)
    gate = conv(2, 1, 3, padding=1)

    def forward(m: Any, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(m.gate(seen))

    return Step("spatial gate of mean and max", Apply(forward, gate=gate), value.layout)


def layer_scale(draw: Draw, value: Value) -> Step:
    """A constant per channel, some of it zero."""
    scale = parameter(value.channels, *[1] * (value.sample.ndim - 1 - value.axis))
    with torch.no_grad():
        scale[torch.rand(value.channels) < 0.01 * draw.choice((0, 0, 30, 60))] = 0.0
    return Step("layer scale", Apply(lambda m, x: x * m.scale, scale=scale), value.layout)


def table(draw: Draw, value: Value) -> Step:
    """A constant per channel and position, added or multiplied."""
    numbers = parameter(1, *value.sample.shape[1:])
    if draw.chance(50):
        return Step("position table", Apply(lambda m, x: x + m.table, table=numbers), value.layout)
    return Step("position gate", Apply(lambda m, x: x * m.table, table=numbers), value.layout)


def masked(draw: Draw, value: Value) -> Step:
    """where and masked_fill with a constant condition over positions, channels, or the input's sign."""
    shape = list(value.sample.shape[1:])
    if draw.chance(50):
        shape = [n if j == value.axis - 1 else 1 for j, n in enumerate(shape)]
    condition = torch.rand(shape) < 0.4
    kinds = {
        "masked_fill": lambda m, x: x.masked_fill(m.condition, 0.3),
        "where": lambda m, x: torch.where(m.condition, x, torch.zeros_like(x)),
        "where live": lambda m, x: torch.where(x > 0, x, m.other * x),
        "where sigmoid": lambda m, x: torch.where(m.condition, torch.sigmoid(x), x),
        "multiply by mask": lambda m, x: x * m.condition,
    }
    kind = draw.choice(sorted(kinds))
    other = parameter(value.channels, *[1] * (value.sample.ndim - 1 - value.axis))
    return Step(f"mask: {kind}", Apply(kinds[kind], condition=condition, other=other), value.layout)


def arithmetic(draw: Draw, value: Value) -> Step:
    """Elementwise functions written out: of one tensor, of numbers, of itself twice."""
    kinds = {
        "x + tanh(x)": lambda m, x: x + torch.tanh(x),
        "x * sigmoid(2x)": lambda m, x: x * torch.sigmoid(2 * x),
        "1 - x": lambda m, x: 1 - x,
        "clamp": lambda m, x: x.clamp(-1.5, 1.0),
        "square": lambda m, x: x.pow(2) - x,
        "soft abs": lambda m, x: torch.sqrt(x * x + 0.1),
        "divide": lambda m, x: x / (1 + x.abs()),
        "maximum": lambda m, x: torch.maximum(x, m.other),
        "lerp": lambda m, x: torch.lerp(x, torch.sin(x), 0.3),
        "addcmul": lambda m, x: torch.addcmul(x, x, torch.cos(x), value=0.5),
        "detached": lambda m, x: x + 0.5 * x.detach().clone(),
        "single precision": lambda m, x: x + torch.tanh(x.to(torch.float64)),
        "difference": lambda m, x: 2.0 * x - F.softsign(x),
        "stack": lambda m, x: torch.stack([x, torch.tanh(x)], dim=1).mean(dim=1),
        "stack and unbind": lambda m, x: torch.stack([x, torch.sin(x)], dim=-1).unbind(-1)[1] + x,
        "dropout": lambda m, x: F.dropout(x, 0.5, training=False),
    }
    kind = draw.choice(sorted(kinds))
    other = parameter(value.channels, *[1] * (value.sample.ndim - 1 - value.axis))
    return Step(f"arithmetic: {kind}", Apply(kinds[kind], other=other), value.layout)


def feature_wise(draw: Draw, value: Value) -> Step:
    """Scale and shift computed from the global mean (FiLM, AdaIN), packed in one layer or two."""
    channels, dims = value.channels, list(range(2, value.sample.ndim))
    act = activation(draw, 5)
    if draw.chance(60):
        layer = nn.Sequential(nn.Linear(channels, 5), act, nn.Linear(5, 2 * channels))
        offset = draw.choice((1.0, 0.0))

        def packed(m: Any, x: Tensor) -> Tensor:
            scale, shift = m.layer(x.mean(dims)).chunk(2, dim=-1)
            tail = [1] * len(dims)
            return x * (offset + scale.reshape(*scale.shape, *tail)) + shift.reshape(*shift.shape, *tail)

        return Step("feature-wise affine", Apply(packed, layer=layer), value.layout)
    layer = nn.Linear(channels, channels)

    def shift_only(m: Any, x: Tensor) -> Tensor:
        shift: Tensor = m.layer(x.mean(dims))
        return x + shift[(...,) + (None,) * len(dims)]

    return Step("feature-wise shift", Apply(shift_only, layer=layer), value.layout)


GATE_STEPS: tuple[Factory, ...] = (squeeze_excite, squeeze_excite, spatial_gate, feature_wise)
ANY_STEPS: tuple[Factory, ...] = (layer_scale, table, masked, arithmetic)  # for any layout
