"""Steps from one layout to another: flatten, tokens and back, rows as a signal, vectors unfolded to images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..draw import Draw
from ..values import Apply, Factory, Step, Value, activation, parameter, width


def to_tokens(draw: Draw, value: Value) -> Step | None:
    """Positions as tokens: flatten and transpose, or a permute of channels last."""
    if value.layout not in ("image", "signal", "volume") or not 3 <= value.sample[0, 0].numel() <= 36:
        return None
    if value.layout == "image" and draw.chance(40):
        return Step("image to tokens by permute", Apply(lambda m, x: x.permute(0, 2, 3, 1).flatten(1, 2)), "tokens")
    return Step("to tokens", Apply(lambda m, x: x.flatten(2).transpose(1, 2)), "tokens")


def to_image(draw: Draw, value: Value) -> Step | None:
    if value.layout == "tokens" and value.size[0] in (9, 16, 25, 36):
        side = round(value.size[0] ** 0.5)
        channels = value.channels
        return Step(
            "tokens to image", Apply(lambda m, x: x.transpose(1, 2).reshape(x.shape[0], channels, side, side)), "image"
        )
    if value.layout == "vector":
        outputs = width(draw, most=8)
        lift = nn.Linear(value.channels, outputs * 9)
        kind = draw.choice(("view", "unflatten"))

        def forward(m: Any, x: Tensor) -> Tensor:
            y: Tensor = m.lift(x)
            return y.view(x.shape[0], outputs, 3, 3) if kind == "view" else y.unflatten(1, (outputs, 3, 3))

        return Step("vector to image", Apply(forward, lift=lift), "image")
    if value.layout == "signal":
        return Step("signal to image", Apply(lambda m, x: x.unsqueeze(2)), "image")
    if value.layout == "volume":
        if draw.chance(50) and value.channels * value.size[0] <= 24:
            return Step("volume to image by flatten", Apply(lambda m, x: x.flatten(1, 2)), "image")
        return Step("volume to image by mean", Apply(lambda m, x: x.mean(dim=2)), "image")
    return None


def to_vector(draw: Draw, value: Value) -> Step | None:
    """Global pooling, or flatten followed by a linear layer that sees every position."""
    if value.layout == "vector":
        return None
    positions = [j for j in range(1, value.sample.ndim) if j != value.axis]
    if draw.chance(40) and value.sample[0].numel() <= 600:
        layers = nn.Sequential(nn.Flatten(1), nn.Linear(value.sample[0].numel(), width(draw)), activation(draw, 1))
        return Step("flatten, linear", layers, "vector")
    kinds = {
        "mean": lambda m, x: x.mean(positions),
        "max": lambda m, x: x.amax(positions),
        "sum": lambda m, x: x.sum(positions) / 4,
        "norm": lambda m, x: torch.linalg.vector_norm(x, dim=positions),
    }
    kind = draw.choice(list(kinds))
    return Step(f"global {kind}", Apply(kinds[kind]), "vector")


def to_signal(draw: Draw, value: Value) -> Step | None:
    if value.layout == "tokens":
        return Step("tokens to signal", Apply(lambda m, x: x.transpose(1, 2)), "signal")
    if value.layout == "image" and value.sample[0, 0].numel() <= 64:
        if draw.chance(50):
            return Step("image to signal by flatten", Apply(lambda m, x: x.flatten(2)), "signal")
        return Step("image to signal by mean", Apply(lambda m, x: x.mean(dim=2)), "signal")
    return None


def to_volume(draw: Draw, value: Value) -> Step | None:
    """Groups of channels become depth."""
    if value.layout != "image" or max(value.size) > 8:
        return None
    groups = draw.divisor(value.channels)
    return Step("image to volume", Apply(lambda m, x: x.unflatten(1, (groups, value.channels // groups))), "volume")


def channels_last(draw: Draw, value: Value) -> Step | None:
    """Linear layers on an image with channels last, and back (Swin, ConvNeXt)."""
    if value.layout != "image":
        return None
    outputs = width(draw)
    layers = nn.Sequential(
        nn.LayerNorm(value.channels) if draw.chance(40) else nn.Identity(),
        nn.Linear(value.channels, outputs),
        nn.GELU(),
    )
    module = Apply(lambda m, x: m.layers(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), layers=layers)
    return Step("linear channels last", module, "image")


def windows(draw: Draw, value: Value) -> Step | None:
    """Window attention: roll, partition by views, attention with a relative bias per head, and back."""
    if value.layout != "image" or value.size not in ((4, 4), (6, 6), (8, 8)) or value.channels > 12:
        return None
    side, heads, dim, channels = 2, draw.choice((2, 1, 3)), 4, value.channels
    rows, shift = value.size[0] // side, draw.choice((0, 1))
    table, index = parameter(9, heads), torch.randint(0, 9, (16,))

    def forward(m: Any, x: Tensor) -> Tensor:
        b = x.shape[0]
        x = torch.roll(x.permute(0, 2, 3, 1), (-shift, -shift), (1, 2)) if shift else x.permute(0, 2, 3, 1)
        parts = (
            x.view(b, rows, side, rows, side, channels).permute(0, 1, 3, 2, 4, 5).reshape(b * rows * rows, 4, channels)
        )
        qkv = m.qkv(parts).reshape(-1, 4, 3, heads, dim).permute(2, 0, 3, 1, 4)
        bias = m.table[m.index].view(4, 4, heads).permute(2, 0, 1).unsqueeze(0)
        weights = torch.softmax((qkv[0] * dim**-0.5) @ qkv[1].transpose(-2, -1) + bias, dim=-1)
        mixed = m.out((weights @ qkv[2]).transpose(1, 2).reshape(-1, 4, heads * dim))
        back = (
            mixed.view(b, rows, rows, side, side, channels)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(b, rows * side, rows * side, channels)
        )
        back = torch.roll(back, (shift, shift), (1, 2)) if shift else back
        return back.permute(0, 3, 1, 2)

    qkv, out = nn.Linear(channels, 3 * heads * dim), nn.Linear(heads * dim, channels)
    return Step("window attention", Apply(forward, qkv=qkv, out=out, table=table, index=index), "image")


LAYOUT_STEPS: tuple[Factory, ...] = (to_tokens, to_image, to_vector, to_signal, to_volume)
IMAGE_STEPS: tuple[Factory, ...] = (channels_last, windows)
