"""Inputs of a random net, and the module that brings each to a layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .draw import Draw
from .values import Apply, parameter

Make = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Start:
    name: str
    layout: str
    module: nn.Module
    make: Make
    embedding: nn.Parameter | None = None  # for output weights tied to it


def _normal(layout: str, *shape: int) -> Start:
    def make(batch: int, generator: torch.Generator) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)

    return Start(f"input {layout}", layout, nn.Identity(), make)


def _embedded(draw: Draw) -> Start:
    """Token numbers, an embedding, and positions: a table added, or an embedding of arange."""
    words, tokens, channels = 7, draw.choice((6, 4, 9)), draw.choice((8, 4, 6))
    table, positions = parameter(words, channels), nn.Embedding(tokens, channels)
    by_arange = draw.chance(50)

    def forward(m: Any, x: Tensor) -> Tensor:
        embedded = nn.functional.embedding(x, m.table)
        if by_arange:
            return embedded + m.positions(torch.arange(x.shape[1]))  # type: ignore[no-any-return]
        return embedded + m.positions.weight  # type: ignore[no-any-return]

    def make(batch: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, words, (batch, tokens), generator=generator)

    return Start("input embedded", "tokens", Apply(forward, table=table, positions=positions), make, table)


def _start(draw: Draw, layout: str) -> Start:
    if layout == "image":
        side = draw.choice((8, 6, 9))
        return _normal("image", draw.choice((3, 1, 4)), side, draw.choice((side, 6)))
    if layout == "signal":
        return _normal("signal", draw.choice((3, 2)), draw.choice((10, 7)))
    if layout == "volume":
        return _normal("volume", 2, 5, 4, 5)
    if layout == "tokens":
        return _normal("tokens", draw.choice((6, 9, 4)), draw.choice((6, 8)))
    if layout == "vector":
        return _normal("vector", 6)
    return _embedded(draw)


def draw_starts(draw: Draw, *, any_size: bool = False) -> list[Start]:
    if any_size:
        return [_normal("image", draw.choice((3, 1, 4)), 12, 10)]
    first = draw.choice((*["image"] * 7, *["tokens"] * 3, "embedded", "signal", "volume", "vector"))
    starts = [_start(draw, first)]
    if draw.chance(15):
        starts.append(_start(draw, draw.choice((first, "vector"))))
    return starts
