"""Steps that join two tensors of a net, and branches that leave one and come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..draw import Draw
from ..values import SPATIAL_DIMS, Apply, Factory, Step, Value, activation, width
from .convolutions import CONVOLUTIONS, normal_block

Join = Callable[[Draw, Value, Value], Step | None]


def add(draw: Draw, a: Value, b: Value) -> Step | None:
    if a.sample.shape != b.sample.shape or a.layout != b.layout:
        return None
    kinds = {
        "add": lambda m, x, y: x + y,
        "weighted": lambda m, x, y: torch.add(x, y, alpha=0.5),
        "subtract": lambda m, x, y: x - y,
        "maximum": lambda m, x, y: torch.maximum(x, y),
        "gate": lambda m, x, y: x * torch.sigmoid(y),
        "where": lambda m, x, y: torch.where(x > 0, x, y),
        "mean of stack": lambda m, x, y: torch.stack([x, y]).mean(dim=0),
        "divide": lambda m, x, y: x / (1 + y * y),
        "relu of sum": lambda m, x, y: F.relu(x + y),
    }
    kind = draw.choice(list(kinds))
    return Step(f"join: {kind}", Apply(kinds[kind]), a.layout)


def concat(draw: Draw, a: Value, b: Value) -> Step | None:
    if a.layout != b.layout or a.size != b.size or a.channels + b.channels > 28:
        return None
    axis = a.axis
    if draw.chance(20):
        return Step("concat, twice", Apply(lambda m, x, y: torch.cat([x, y, torch.tanh(x)], dim=axis)), a.layout)
    return Step("concat", Apply(lambda m, x, y: torch.cat([x, y], dim=axis)), a.layout)


def project_and_add(draw: Draw, a: Value, b: Value) -> Step | None:
    """A residual sum whose shortcut needs another width: projected, padded, or cropped."""
    if a.layout != b.layout or a.size != b.size or a.channels == b.channels:
        return None
    axis, behind = a.axis, a.sample.ndim - 1 - a.axis
    if b.channels < a.channels and draw.chance(60):
        amounts = [*[0, 0] * behind, 0, a.channels - b.channels]
        return Step("padded shortcut", Apply(lambda m, x, y: x + F.pad(y, amounts)), a.layout)
    if b.channels > a.channels and draw.chance(60):
        return Step("cropped shortcut", Apply(lambda m, x, y: x + y.narrow(axis, 0, x.shape[axis])), a.layout)
    if a.layout in SPATIAL_DIMS:
        project: nn.Module = CONVOLUTIONS[SPATIAL_DIMS[a.layout] - 1](b.channels, a.channels, 1)
    else:
        project = nn.Linear(b.channels, a.channels)
    return Step("projected shortcut", Apply(lambda m, x, y: x + m.project(y), project=project), a.layout)


def resize_and_concat(draw: Draw, a: Value, b: Value) -> Step | None:
    """Tensors of different sizes: one is resampled to the other's (U-Net, FPN)."""
    if a.layout != "image" or b.layout != "image" or a.size == b.size or a.channels + b.channels > 28:
        return None
    size = list(a.size)
    mode = draw.choice(("nearest", "bilinear"))
    return Step(
        "resize and concat",
        Apply(lambda m, x, y: torch.cat([x, F.interpolate(y, size=size, mode=mode)], dim=1)),
        "image",
    )


def condition(draw: Draw, a: Value, b: Value) -> Step | None:
    """A vector scales and shifts, or is broadcast and concatenated."""
    if b.layout != "vector" or a.layout not in SPATIAL_DIMS:
        return None
    channels, tail = a.channels, (None,) * SPATIAL_DIMS[a.layout]
    if draw.chance(40) and a.channels + b.channels <= 28:
        return Step(
            "vector broadcast and concat",
            Apply(lambda m, x, y: torch.cat([x, y[(..., *tail)].expand(-1, -1, *x.shape[2:])], dim=1)), a.layout,
        )  # fmt: skip

    def forward(m: Any, x: Tensor, y: Tensor) -> Tensor:
        scale, shift = m.layer(y).chunk(2, dim=1)
        return x * (1 + scale[(..., *tail)]) + shift[(..., *tail)]

    return Step("vector conditions", Apply(forward, layer=nn.Linear(b.channels, 2 * channels)), a.layout)


def cross_attention(draw: Draw, a: Value, b: Value) -> Step | None:
    if a.layout != "tokens" or b.layout != "tokens":
        return None
    heads, dim = draw.choice((2, 1)), 4
    q, kv = nn.Linear(a.channels, heads * dim), nn.Linear(b.channels, 2 * heads * dim)
    out = nn.Linear(heads * dim, a.channels)

    def forward(m: Any, x: Tensor, y: Tensor) -> Tensor:
        query = m.q(x).unflatten(-1, (heads, dim)).transpose(1, 2)
        key, value = m.kv(y).unflatten(-1, (2, heads, dim)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + m.out(mixed.transpose(1, 2).flatten(2))

    return Step("cross attention", Apply(forward, q=q, kv=kv, out=out), "tokens")


def concat_tokens(draw: Draw, a: Value, b: Value) -> Step | None:
    if a.layout != "tokens" or b.layout != "tokens" or a.channels != b.channels or a.size[0] + b.size[0] > 36:
        return None
    return Step("concat tokens", Apply(lambda m, x, y: torch.cat([x, y], dim=1)), "tokens")


JOINS: tuple[Join, ...] = (
    add,
    add,
    concat,
    project_and_add,
    resize_and_concat,
    condition,
    cross_attention,
    concat_tokens,
)


# Branches


class Branches(nn.Module):
    """Parallel branches, summed with the input or concatenated."""

    def __init__(self, branches: list[nn.Module], after: nn.Module, join: str, axis: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.after = after
        self.join, self.axis = join, axis

    def forward(self, x: Tensor) -> Any:
        results = [branch(x) for branch in self.branches]
        if self.join == "concat":
            return self.after(torch.cat(results, dim=self.axis))
        if self.join == "dense":
            return self.after(torch.cat([x, *results], dim=self.axis))
        return self.after(x + sum(results[1:], results[0]))


def residual(draw: Draw, value: Value) -> Step:
    """x + f(x), one branch or two; basic or bottleneck; with an activation behind or not."""
    branches = []
    for _ in range(draw.choice((1, 1, 1, 2))):
        inner = draw.choice((value.channels, 4, 8, 6))
        first = normal_block(draw, value, inner)
        last = normal_block(draw, Value(value.layout, first(value.sample)), value.channels)
        branches.append(nn.Sequential(first, last[:2] if isinstance(last, nn.Sequential) else last))
    after = activation(draw, value.channels) if draw.chance(60) else nn.Identity()
    return Step("residual block", Branches(branches, after, "sum", 1), value.layout)


def inception(draw: Draw, value: Value) -> Step:
    branches = [normal_block(draw, value, width(draw, most=6)) for _ in range(draw.choice((2, 3)))]
    return Step("inception block", Branches(branches, nn.Identity(), "concat", 1), value.layout)


def dense_block(draw: Draw, value: Value) -> Step | None:
    """Each layer sees all before it."""
    if value.channels > 12:
        return None
    layers: list[nn.Module] = []
    for _ in range(draw.choice((2, 1, 3))):
        grown = Value(value.layout, _chain(value.sample, layers))
        layers.append(Branches([normal_block(draw, grown, 3)], nn.Identity(), "dense", 1))
    return Step("dense block", nn.Sequential(*layers), value.layout)


def _chain(x: Tensor, layers: list[nn.Module]) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


BRANCH_STEPS: tuple[Factory, ...] = (residual, residual, inception, dense_block)
