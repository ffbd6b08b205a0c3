"""Oriented shapes in clutter: a procedural image task that is harder than digits.

An image has a target, a shape filled with stripes, at a random place, size, turn and colour, over a background of
noise and random bars; the class is the pair of shape (disc, square, triangle, ring) and direction of the stripes in
it (0, 45, 90 or 135 degrees): sixteen classes. Neither colour nor place tells anything, and a bar has the edges of
a square, so that shape and texture must be seen and combined. The same seed always gives the same images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .task import TensorTask, generator_for

SHAPES, DIRECTIONS = 4, 4
SIDE = 20


def make_textures(train: int = 4000, test: int = 1000, seed: int = 0) -> TensorTask:
    """`train` and `test` images of shape (n, 3, 20, 20), values around 0; classes equally often."""
    images, labels = _draw(train + test, generator_for(seed, SIDE))
    return TensorTask(images[:train], labels[:train], images[train:], labels[train:], SHAPES * DIRECTIONS)


def _draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    labels = torch.arange(count) % (SHAPES * DIRECTIONS)
    labels = labels[torch.randperm(count, generator=generator)]
    place = torch.linspace(-1, 1, SIDE)
    y, x = place.view(1, SIDE, 1), place.view(1, 1, SIDE)
    size = uniform(0.55, 0.75, 1, 1)
    x, y = (x - uniform(-0.25, 0.25, 1, 1)) / size, (y - uniform(-0.25, 0.25, 1, 1)) / size
    inside = _shapes(x, y, uniform(-math.pi, math.pi, 1, 1))[torch.arange(count), labels // DIRECTIONS]
    turn = (labels % DIRECTIONS).view(-1, 1, 1) * (math.pi / DIRECTIONS) + uniform(-0.15, 0.15, 1, 1)
    phase = uniform(0, 2 * math.pi, 1, 1)
    stripes = torch.sign(torch.sin(uniform(7, 9, 1, 1) * (x * turn.cos() + y * turn.sin()) + phase))
    colours = uniform(-1, 1, 2, 3, 1, 1)
    colours = colours / colours.norm(dim=2, keepdim=True)
    target = torch.where(stripes[:, None] > 0, colours[:, 0], -colours[:, 0])
    background = 0.5 * _bars(count, generator) + colours[:, 1] * 0.3
    images = torch.where(inside[:, None], target, background)
    return images + 0.25 * torch.randn(images.shape, generator=generator), labels


def _shapes(x: Tensor, y: Tensor, turn: Tensor) -> Tensor:
    """Which pixels lie inside of each shape, turned; (n, shapes, side, side)."""
    u, v = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    radius = (x.square() + y.square()).sqrt()
    triangle = (v > -0.6) & (v < 1.0 - 1.6 * u.abs())
    ring = (radius < 1) & (radius > 0.5)
    return torch.stack([radius < 0.85, torch.maximum(u.abs(), v.abs()) < 0.75, triangle, ring], dim=1)


def _bars(count: int, generator: torch.Generator) -> Tensor:
    """Three bars of random colour, place, width and direction in every image; (n, 3, side, side)."""
    place = torch.linspace(-1, 1, SIDE)
    y, x = place.view(1, SIDE, 1), place.view(1, 1, SIDE)
    canvas = torch.zeros(count, 3, SIDE, SIDE)
    for _ in range(3):
        turn, middle, width = (torch.rand(count, 1, 1, generator=generator) for _ in range(3))
        across = x * (turn * math.pi).cos() + y * (turn * math.pi).sin()
        bar = (across - (2 * middle - 1)).abs() < 0.08 + 0.12 * width
        colour = 2 * torch.rand(count, 3, 1, 1, generator=generator) - 1
        canvas = torch.where(bar[:, None], colour, canvas)
    return canvas
