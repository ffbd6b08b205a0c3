"""Intermediate tensors while a random net is built, and the small modules it is built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .draw import Draw

# Layouts: image (B, C, H, W), signal (B, C, L), volume (B, C, D, H, W), tokens (B, N, C), grid (B, H, W, C),
# vector (B, C).
CHANNEL_AXIS = {"image": 1, "signal": 1, "volume": 1, "tokens": 2, "grid": 3, "vector": 1}
SPATIAL_DIMS = {"image": 2, "signal": 1, "volume": 3}


@dataclass(frozen=True)
class Value:
    """A tensor of the net under construction: its layout and what it is for a sample batch."""

    layout: str
    sample: Tensor

    @property
    def axis(self) -> int:
        return CHANNEL_AXIS[self.layout]

    @property
    def channels(self) -> int:
        return int(self.sample.shape[self.axis])

    @property
    def size(self) -> tuple[int, ...]:
        """Sizes of the axes that are neither batch nor channels."""
        return tuple(n for j, n in enumerate(self.sample.shape) if j not in (0, self.axis))


@dataclass(frozen=True)
class Step:
    """One step of a net: its name for the report, and the layout it leaves."""

    name: str
    module: nn.Module
    layout: str


Factory = Callable[[Draw, Value], Step | None]


class Apply(nn.Module):
    """A function of tensors with the modules, parameters and buffers that it is given by name.

    The function's first argument is this module, so that it can use them.
    """

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.register_buffer(name, part)
        self.function = function

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(self, *tensors)


def parameter(*shape: int, scale: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, dtype=torch.float64) * scale)


def activation(draw: Draw, channels: int) -> nn.Module:
    """One of the activations in use; a PReLU has one slope or one per channel."""
    return draw.choice(
        (
            nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.ReLU6, nn.ELU, nn.Mish, nn.Softplus,
            lambda: nn.LeakyReLU(0.1), lambda: nn.PReLU(channels), nn.PReLU, nn.Hardsigmoid, nn.Identity,
        )
    )()  # fmt: skip


def batch_norm(dims: int, channels: int) -> nn.Module:
    return (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](channels)


def width(draw: Draw, *, most: int = 12) -> int:
    """A channel count; even ones, and multiples of four, come up more often."""
    return min(most, draw.choice((4, 8, 6, 12, 3, 5, 2, 16, 1)))
