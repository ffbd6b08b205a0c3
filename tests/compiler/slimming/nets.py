"""Small networks in float64 with ablated filters, and how far a slim module is from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers import MakeInputs, inputs_like, randomise, worst_error

IMAGE: tuple[tuple[int, ...], ...] = ((3, 9, 8),)


def lively(model: nn.Module, shapes: Sequence[Sequence[int]] = IMAGE, seed: int = 0) -> tuple[Any, MakeInputs]:
    """The model in float64 and evaluation mode with random affine parameters and statistics, and its inputs."""
    generator = torch.Generator().manual_seed(seed)
    make_inputs = inputs_like(*shapes, seed=seed)
    model = model.double()
    inputs = make_inputs(16)
    randomise(model, lambda: model(*inputs), generator)
    return model.eval(), make_inputs


def ablate(model: nn.Module, *layers: str, every: int = 2) -> None:
    """Zero every other filter (or every third ...) of some layers; their biases stay."""
    for name in layers:
        layer = model.get_submodule(name)
        with torch.no_grad():
            if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                layer.weight[:, ::every] = 0
            else:
                layer.weight[::every] = 0


def error(small: nn.Module, model: nn.Module, make_inputs: MakeInputs) -> float:
    """In standard deviations of the output over inputs, for batches of 1, 2 and 3."""
    return worst_error(small, model, make_inputs)


class Block(nn.Module):
    """A layer, a norm and an activation in front of a padded convolution and a head."""

    def __init__(self, first: nn.Module, width: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.norm = first, norm if norm is not None else nn.BatchNorm2d(width)
        self.act = nn.Hardswish()
        self.second = nn.Conv2d(width, 6, 3, padding=1, bias=False)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.act(self.norm(self.first(x))))
        out: Tensor = self.head(torch.tanh(x).mean((2, 3)))
        return out


class Depthwise(nn.Module):
    """An inverted residual: expansion, depthwise convolution, projection."""

    def __init__(self, act: type[nn.Module] = nn.ReLU6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand, self.norm1 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depthwise, self.norm2 = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.project, self.norm3 = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.act, self.head = act(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        y = self.act(self.norm1(self.expand(x)))
        y = self.act(self.norm2(self.depthwise(y)))
        x = x + self.norm3(self.project(y))
        out: Tensor = self.head(x.mean((2, 3)))
        return out
