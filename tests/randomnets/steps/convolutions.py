"""Convolutions of one to three dimensions: strides, paddings, dilations, groups, transposed, shared by layouts."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import SPATIAL_DIMS, Apply, Factory, Step, Value, activation, batch_norm, width

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _kernel(draw: Draw, value: Value) -> tuple[int, ...]:
    """A window that fits, not always square."""
    side = draw.choice((1, 3, 2, 5))
    sides = [side if draw.chance(85) or side == 1 else 1 for _ in value.size]
    return tuple(min(s, n) for s, n in zip(sides, value.size, strict=True))


def _padding(draw: Draw, kernel: tuple[int, ...], value: Value, dilation: int, stride: int) -> Any:
    fits = all(dilation * (k - 1) + 1 <= n for k, n in zip(kernel, value.size, strict=True))
    half = tuple(dilation * (k // 2) for k in kernel)
    options: list[Any] = [half]
    if fits:
        options += [0, tuple(draw.integer(0, max(h, 1)) for h in half)]
    if stride == 1 and all(k % 2 for k in kernel):  # torch warns of even windows
        options.append("same")
    return draw.choice(options)


def _groups(draw: Draw, inputs: int, outputs: int) -> int:
    options = [g for g in range(2, inputs + 1) if inputs % g == 0 and outputs % g == 0]
    return draw.choice(options) if options and draw.chance(30) else 1


def plain(draw: Draw, value: Value, outputs: int, *, keep_size: bool = False) -> nn.Module:
    """A convolution with some of everything; `keep_size` holds the positions fixed."""
    kernel = _kernel(draw, value)
    if keep_size:
        kernel = tuple(k - 1 + k % 2 for k in kernel)
    stride = 1 if keep_size or min(value.size) < 5 else draw.choice((1, 1, 2))
    dilation = (
        draw.choice((1, 1, 2)) if all(2 * (k - 1) + 1 <= n for k, n in zip(kernel, value.size, strict=True)) else 1
    )
    padding = "same" if keep_size else _padding(draw, kernel, value, dilation, stride)
    mode = draw.choice(("zeros", "zeros", "zeros", "reflect", "circular", "replicate"))
    if mode in ("reflect", "circular") and any(
        dilation * (k - 1) >= n for k, n in zip(kernel, value.size, strict=True)
    ):
        mode = "zeros"
    groups = _groups(draw, value.channels, outputs)
    return CONVOLUTIONS[SPATIAL_DIMS[value.layout] - 1](
        value.channels, outputs, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        bias=draw.chance(60), padding_mode=mode,
    )  # fmt: skip


def block(draw: Draw, value: Value) -> Step:
    """Convolution, batch normalisation, activation: in one of the usual orders."""
    outputs, dims = width(draw), SPATIAL_DIMS[value.layout]
    conv = plain(draw, value, outputs)
    order = draw.choice(("conv bn act", "bn act conv", "conv act", "conv bn", "act conv bn"))
    parts = {
        "conv": lambda: conv,
        "bn": lambda: batch_norm(dims, value.channels if order.startswith("bn") else outputs),
        "act": lambda: activation(draw, value.channels if order.startswith(("bn", "act")) else outputs),
    }
    grouped = "grouped " if getattr(conv, "groups", 1) > 1 else ""
    return Step(f"{grouped}convolution", nn.Sequential(*[parts[p]() for p in order.split()]), value.layout)


def convolution(draw: Draw, value: Value) -> Step:
    return Step("convolution alone", plain(draw, value, width(draw)), value.layout)


def depthwise(draw: Draw, value: Value) -> Step:
    """One filter per channel, or several (a channel multiplier), then often a pointwise layer."""
    channels, dims = value.channels, SPATIAL_DIMS[value.layout]
    multiplier = draw.choice((1, 1, 2, 3)) if channels <= 8 else 1
    kernel, stride = tuple(min(3, n) for n in value.size), draw.choice((1, 1, 2)) if min(value.size) > 4 else 1
    padding = draw.choice((1, 0)) if min(value.size) > 3 else 1
    conv = CONVOLUTIONS[dims - 1](
        channels, channels * multiplier, kernel, stride=stride, padding=padding, groups=channels, bias=draw.chance(50)
    )
    parts: list[nn.Module] = [conv]
    if draw.chance(60):
        parts += [batch_norm(dims, channels * multiplier), activation(draw, channels * multiplier)]
    if draw.chance(60):
        parts.append(CONVOLUTIONS[dims - 1](channels * multiplier, width(draw), 1))
    return Step("depthwise" if multiplier == 1 else "depthwise multiplier", nn.Sequential(*parts), value.layout)


def transposed(draw: Draw, value: Value) -> Step | None:
    if max(value.size) > 7:
        return None
    stride = draw.choice((1, 2))
    kernel = draw.choice((2, 3, 1, 4))
    outputs = width(draw, most=8)
    conv = TRANSPOSED[SPATIAL_DIMS[value.layout] - 1](
        value.channels, outputs, kernel, stride=stride, padding=draw.integer(0, (kernel - 1) // 2),
        output_padding=draw.integer(0, stride - 1), groups=_groups(draw, value.channels, outputs), bias=draw.chance(60),
    )  # fmt: skip
    return Step("transposed convolution", conv, value.layout)


def padded(draw: Draw, value: Value) -> Step:
    """F.pad in front of an unpadded convolution: asymmetric, any fill value, any mode."""
    sides = [draw.integer(0, 2) for _ in range(2 * len(value.size))]
    mode = draw.choice(("constant", "constant", "reflect", "replicate", "circular"))
    if mode in ("reflect", "circular") and min(value.size) <= 2:
        mode = "constant"
    fill = draw.choice((0.0, 0.5)) if mode == "constant" else 0.0
    kernel = tuple(min(3, n) for n in value.size)
    conv = CONVOLUTIONS[SPATIAL_DIMS[value.layout] - 1](value.channels, width(draw), kernel)

    def forward(m: Any, x: Tensor) -> Any:
        return m.conv(F.pad(x, sides, mode=mode, value=fill) if mode == "constant" else F.pad(x, sides, mode=mode))

    return Step(f"pad {mode}", Apply(forward, conv=conv), value.layout)


def normal_block(draw: Draw, value: Value, outputs: int) -> nn.Module:
    """Convolution, norm and activation that keep the positions."""
    dims = SPATIAL_DIMS[value.layout]
    norm = batch_norm(dims, outputs) if draw.chance(75) else nn.Identity()
    return nn.Sequential(plain(draw, value, outputs, keep_size=True), norm, activation(draw, outputs))


CONVOLUTION_STEPS: tuple[Factory, ...] = (block, block, block, convolution, depthwise, transposed, padded)
