"""Pooling, resampling and norms: each channel by itself, or over groups of channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import SPATIAL_DIMS, Apply, Factory, Step, Value, activation, batch_norm, parameter

_MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE_MAX = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_ADAPTIVE_AVERAGE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


def max_pool(draw: Draw, value: Value) -> Step | None:
    if min(value.size) < 4:
        return None
    kernel = draw.choice((2, 3))
    dilation = draw.choice((1, 1, 2)) if min(value.size) >= 2 * (kernel - 1) + 1 else 1
    pool = _MAX[SPATIAL_DIMS[value.layout] - 1](
        kernel, stride=draw.choice((2, 1)), padding=draw.integer(0, kernel // 2), dilation=dilation,
        ceil_mode=draw.chance(40),
    )  # fmt: skip
    return Step("max pool", pool, value.layout)


def average_pool(draw: Draw, value: Value) -> Step | None:
    if min(value.size) < 3:
        return None
    dims, kernel = SPATIAL_DIMS[value.layout], draw.choice((2, 3))
    options: dict[str, Any] = {
        "stride": draw.choice((2, 1)),
        "padding": draw.integer(0, kernel // 2),
        "ceil_mode": draw.chance(40),
        "count_include_pad": draw.chance(60),
    }
    if dims > 1 and draw.chance(20):
        options["divisor_override"] = draw.choice((3, 1))
    return Step("average pool", _AVERAGE[dims - 1](kernel, **options), value.layout)


def adaptive_pool(draw: Draw, value: Value) -> Step | None:
    if min(value.size) < 3:
        return None
    pools = draw.choice((_ADAPTIVE_AVERAGE, _ADAPTIVE_MAX))
    return Step("adaptive pool", pools[SPATIAL_DIMS[value.layout] - 1](draw.choice((2, 3, 1))), value.layout)


def upsample(draw: Draw, value: Value) -> Step | None:
    if max(value.size) > 6:
        return None
    dims = SPATIAL_DIMS[value.layout]
    smooth = ("linear", "bilinear", "trilinear")[dims - 1]
    mode = draw.choice(("nearest", smooth, "nearest-exact", "bicubic") if dims == 2 else ("nearest", smooth))
    corners = draw.chance(30) if mode in (smooth, "bicubic") else None
    if draw.chance(50):
        size = tuple(n + draw.integer(0, 3) for n in value.size)
        return Step("upsample", nn.Upsample(size=size, mode=mode, align_corners=corners), value.layout)
    return Step("upsample", nn.Upsample(scale_factor=2, mode=mode, align_corners=corners), value.layout)


def group_norm(draw: Draw, value: Value) -> Step:
    groups = draw.divisor(value.channels)
    if groups == value.channels and value.sample[0, 0].numel() < 2:
        groups = 1
    return Step("group norm", nn.GroupNorm(groups, value.channels, affine=draw.chance(80)), value.layout)


def instance_norm(draw: Draw, value: Value) -> Step | None:
    if value.sample[0, 0].numel() < 4:
        return None
    norm = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[SPATIAL_DIMS[value.layout] - 1]
    return Step("instance norm", norm(value.channels, affine=draw.chance(60)), value.layout)


def norm_then_activation(draw: Draw, value: Value) -> Step:
    norm = batch_norm(SPATIAL_DIMS[value.layout], value.channels)
    return Step("batch norm", nn.Sequential(norm, activation(draw, value.channels)), value.layout)


def activate(draw: Draw, value: Value) -> Step:
    return Step("activation", activation(draw, value.channels), value.layout)


def channels_last_norm(draw: Draw, value: Value) -> Step:
    """Layer norm over the channels of an image: permute there and back, as ConvNeXt does."""
    last = [0, *range(2, value.sample.ndim), 1]
    first = [0, value.sample.ndim - 1, *range(1, value.sample.ndim - 1)]

    def forward(m: Any, x: Tensor) -> Tensor:
        normalised: Tensor = m.norm(x.permute(last)).permute(first)
        return normalised

    return Step("layer norm channels last", Apply(forward, norm=nn.LayerNorm(value.channels)), value.layout)


def spatial_norm(draw: Draw, value: Value) -> Step | None:
    """Layer norm over the last axis of positions, or a standardisation of each channel written by hand."""
    if value.size[-1] < 3:
        return None
    if draw.chance(50):
        return Step("layer norm over positions", nn.LayerNorm(value.size[-1]), value.layout)
    dims = list(range(2, value.sample.ndim))

    def forward(m: Any, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=dims, keepdim=True)
        return m.scale * centred * torch.rsqrt(x.var(dim=dims, keepdim=True, correction=0) + 0.1)  # type: ignore[no-any-return]

    scale = parameter(value.channels, *[1] * len(dims))
    return Step("standardise by hand", Apply(forward, scale=scale), value.layout)


def shifted(draw: Draw, value: Value) -> Step | None:
    """Positions rolled, flipped, cropped, strided, mirrored."""
    if min(value.size) < 3:
        return None
    axis = draw.integer(2, value.sample.ndim - 1)
    moves = {
        "roll": lambda m, x: torch.roll(x, 1, axis),
        "flip": lambda m, x: torch.flip(x, [axis]),
        "crop": lambda m, x: x.narrow(axis, 1, x.shape[axis] - 1),
        "stride": lambda m, x: x[:, :, ::2],
        "negative pad": lambda m, x: F.pad(x, (-1, 1)),
        "mirror": lambda m, x: torch.cat([x, torch.flip(x, [axis])], dim=axis),
        "shift by cat": lambda m, x: torch.cat(
            [x.narrow(axis, 1, 2), torch.zeros_like(x.narrow(axis, 0, 1))], dim=axis
        ),
    }
    kind = draw.choice(sorted(moves))
    return Step(f"positions: {kind}", Apply(moves[kind]), value.layout)


WINDOW_STEPS: tuple[Factory, ...] = (
    max_pool, average_pool, adaptive_pool, upsample, group_norm, instance_norm, norm_then_activation, activate,
    channels_last_norm, spatial_norm, shifted, max_pool, average_pool, upsample,
)  # fmt: skip
