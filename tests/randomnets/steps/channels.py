"""Steps that move channels about: shuffles, splits, slices, padding, pixel shuffles, permutations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import SPATIAL_DIMS, Apply, Factory, Step, Value, activation
from . import convolutions


def shuffle(draw: Draw, value: Value) -> Step | None:
    """Channels as (groups, rest), transposed: by view, by reshape and permute, or by the operator itself."""
    groups = draw.divisor(value.channels)
    if groups in (1, value.channels):
        return None
    if draw.chance(25) and value.layout == "image":
        return Step("channel shuffle", nn.ChannelShuffle(groups), value.layout)

    def forward(m: Any, x: Tensor) -> Tensor:
        split = x.view(x.shape[0], groups, value.channels // groups, *x.shape[2:])
        return split.transpose(1, 2).contiguous().view(x.shape)

    return Step("channel shuffle", Apply(forward), value.layout)


def split_transform(draw: Draw, value: Value) -> Step | None:
    """Split, send some parts through a layer, join again in any order (ShuffleNet, Res2Net, CSP)."""
    if value.channels < 4 or value.layout not in SPATIAL_DIMS:
        return None
    sizes = draw.sizes(value.channels, draw.choice((2, 3)))
    if draw.chance(40):
        sizes = [len(part) for part in torch.arange(value.channels).chunk(2)]
    chunked = len(sizes) == 2 and sizes[0] == (value.channels + 1) // 2 and draw.chance(60)
    parts = [Value(value.layout, piece) for piece in value.sample.split(sizes, dim=1)]
    layers = nn.ModuleList(
        convolutions.normal_block(draw, part, part.channels) if draw.chance(60) else nn.Identity() for part in parts
    )
    order = sorted(range(len(sizes)), key=lambda _: draw.integer(0, 9))
    chained = draw.chance(30) and len(set(sizes)) == 1

    def forward(m: Any, x: Tensor) -> Tensor:
        pieces = x.chunk(2, dim=1) if chunked else x.split(sizes, dim=1)
        done: list[Tensor] = []
        for layer, piece in zip(m.layers, pieces, strict=True):
            done.append(layer(piece + done[-1] if chained and done else piece))
        return torch.cat([done[i] for i in order], dim=1)

    return Step("chunk" if chunked else "split", Apply(forward, layers=layers), value.layout)


def gated_halves(draw: Draw, value: Value) -> Step | None:
    """One half of the channels gates the other: GLU and its relatives."""
    if value.channels % 2 or value.channels < 4:
        return None
    axis, act = value.axis, activation(draw, value.channels // 2)
    if draw.chance(30):
        return Step("glu", nn.GLU(dim=axis), value.layout)

    def forward(m: Any, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=axis)
        gated: Tensor = a * (m.act(b) if isinstance(m.act, nn.PReLU) is False else torch.sigmoid(b))
        return gated

    return Step("gated halves", Apply(forward, act=act), value.layout)


def slice_channels(draw: Draw, value: Value) -> Step | None:
    """A range, a strided range, the reverse, or a permutation of the channels."""
    if value.channels < 3:
        return None
    axis, channels = value.axis, value.channels
    start = draw.integer(0, channels // 3)
    end = draw.integer(start + max(1, channels // 2), channels)
    order = torch.randperm(channels)
    moves = {
        "range": lambda m, x: x.narrow(axis, start, min(end, channels) - start),
        "negative range": lambda m, x: x[:, -(channels - 1) :] if axis == 1 else x[..., -(channels - 1) :],
        "stride": lambda m, x: x[:, ::2] if axis == 1 else x[..., ::2],
        "flip": lambda m, x: x.flip(axis),
        "permute by buffer": lambda m, x: x.index_select(axis, m.order),
        "permute by index": lambda m, x: x[:, m.order] if axis == 1 else x[..., m.order],
        "duplicate by index": lambda m, x: x[:, m.order[:3].repeat(2)] if axis == 1 else x[..., m.order[:3].repeat(2)],
        "roll channels": lambda m, x: torch.roll(x, 1, axis),
        "repeat": lambda m, x: torch.cat([x, x], dim=axis),
        "repeat_interleave": lambda m, x: x.repeat_interleave(2, dim=axis),
        "tile": lambda m, x: x.repeat(*[2 if j == axis else 1 for j in range(x.ndim)]),
    }
    kind = draw.choice(sorted(moves))
    if channels > 12 and kind in ("repeat", "repeat_interleave", "tile"):
        return None
    return Step(f"channels: {kind}", Apply(moves[kind], order=order), value.layout)


def pad_channels(draw: Draw, value: Value) -> Step | None:
    """Zeros (or another value) for more channels, as parameter-free shortcuts do; a crop with negative numbers."""
    if value.channels > 12:
        return None
    before, after = draw.integer(0, 3), draw.integer(0, 3)
    if draw.chance(20) and value.channels > 3:
        before, after = -1, 2
    fill = draw.choice((0.0, 0.0, 1.5))
    behind = value.sample.ndim - 1 - value.axis
    amounts = [*[0, 0] * behind, before, after]
    return Step("pad channels", Apply(lambda m, x: F.pad(x, amounts, value=fill)), value.layout)


def pixel_shuffle(draw: Draw, value: Value) -> Step | None:
    """Four channels become 2x2 positions, by the operator or by views."""
    if value.layout != "image" or value.channels % 4 or max(value.size) > 6:
        return None
    if draw.chance(60):
        return Step("pixel shuffle", nn.PixelShuffle(2), "image")

    def forward(m: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // 4, 2 * h, 2 * w)

    return Step("pixel shuffle by view", Apply(forward), "image")


def pixel_unshuffle(draw: Draw, value: Value) -> Step | None:
    """2x2 positions become channels: by the operator, by views, or by slices and cat (Focus, patch merging)."""
    if value.layout != "image" or value.channels > 6 or any(n % 2 or n < 4 for n in value.size):
        return None
    kind = draw.choice(("operator", "view", "slices"))
    if kind == "operator":
        return Step("pixel unshuffle", nn.PixelUnshuffle(2), "image")
    if kind == "slices":
        return Step(
            "space to depth by slices",
            Apply(lambda m, x: torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)),
            "image",
        )

    def forward(m: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(b, 4 * c, h // 2, w // 2)

    return Step("space to depth by view", Apply(forward), "image")


def regroup(draw: Draw, value: Value) -> Step | None:
    """Views that treat channels as (groups, rest): norms and sums per group, or the batch joined with channels."""
    groups = draw.divisor(value.channels)
    if value.axis != 1 or groups == 1:
        return None
    rest = value.channels // groups
    kind = draw.choice(
        ("sum over groups", "max over groups", "mean within groups", "batch times channels", "scale groups")
    )
    scale = torch.rand(groups, 1) + 0.5

    def forward(m: Any, x: Tensor) -> Tensor:
        if kind == "batch times channels":
            return torch.tanh(x.reshape(x.shape[0] * value.channels, -1)).reshape(x.shape)
        split = x.reshape(x.shape[0], groups, rest, -1)
        tail = x.shape[2:]
        if kind == "scale groups":
            return (split * m.scale[:, None].to(x.dtype)).reshape(x.shape)
        if kind == "mean within groups":
            return split.mean(dim=2).reshape(x.shape[0], groups, *tail)
        joined = split.sum(dim=1) if kind == "sum over groups" else split.amax(dim=1)
        return joined.reshape(x.shape[0], rest, *tail)

    return Step(f"regroup: {kind}", Apply(forward, scale=scale), value.layout)


CHANNEL_STEPS: tuple[Factory, ...] = (
    shuffle, split_transform, split_transform, gated_halves, slice_channels, slice_channels, pad_channels,
    pixel_shuffle, pixel_unshuffle, regroup,
)  # fmt: skip
