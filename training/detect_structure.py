"""Find the most specific structure that a mask has.

An upper bound (n:m, window) holds by chance in any mask that is sparse enough. It is only reported where the
non-zeros fill at least half of what it allows.
"""

from __future__ import annotations

from torch import Tensor

from .mask_structure import (
    MaskStructure,
    ablated_channels,
    counts_per_group,
    fan_ins,
    whole_blocks,
    whole_channels,
)
from .weight_layout import WeightLayout

_N_M = ((1, 4), (2, 4), (4, 8))
_BLOCKS = ((32, 32), (16, 16), (8, 8), (1, 32), (32, 1), (4, 4), (1, 16), (16, 1), (1, 8), (8, 1), (1, 4), (4, 1))
_FILLED = 0.5


def detect_structure(mask: Tensor, layout: WeightLayout | None = None) -> MaskStructure:
    """The most specific structure of a boolean mask of any shape.

    An exact n:m pattern comes before constant fan-in, which it implies; one with fewer non-zeros comes after it.
    """
    layout = layout or WeightLayout()
    grid = layout.grid(mask)
    ablated = ablated_channels(grid)
    if grid.all():
        return MaskStructure("dense", ablated=ablated, layout=layout)  # ablated: channels without weights
    if whole_channels(grid):
        return MaskStructure("channel", ablated=ablated, layout=layout)
    active = grid.flatten(0, 1)[grid.flatten(0, 1).flatten(1).any(1)][None]
    exact = _n_m(active, exact=True)
    if exact:
        return MaskStructure("n_m", n=exact[0], m=exact[1], ablated=ablated, layout=layout)
    counts = fan_ins(grid)
    if (counts == counts[0]).all():
        return MaskStructure("constant_fan_in", fan_in=int(counts[0]), ablated=ablated, layout=layout)
    return _bounded(active, grid, layout, ablated)


def _bounded(active: Tensor, grid: Tensor, layout: WeightLayout, ablated: tuple[int, ...]) -> MaskStructure:
    """Kernel, n:m with room left, window, block, or nothing; `active` is the grid without ablated channels."""
    positions = grid.shape[3]
    if positions > 1 and (grid.any(3) == grid.all(3)).all():
        return MaskStructure("kernel", ablated=ablated, layout=layout)
    bounded = _n_m(active, exact=False)
    if bounded:
        return MaskStructure("n_m", n=bounded[0], m=bounded[1], ablated=ablated, layout=layout)
    most = int(grid.sum(3).amax())
    if most < positions and float(active.float().mean()) >= _FILLED * most / positions:
        return MaskStructure("window", window=most, ablated=ablated, layout=layout)
    block = next((b for b in _BLOCKS if whole_blocks(grid, b)), None)
    if block:
        return MaskStructure("block", block=block, ablated=ablated, layout=layout)
    return MaskStructure("unstructured", ablated=ablated, layout=layout)


def _n_m(active: Tensor, *, exact: bool) -> tuple[int, int] | None:
    """The first n:m pattern of active neurons: exactly n everywhere, or at most n and half full."""
    for n, m in _N_M:
        if active.shape[2] % m:
            continue
        counts = counts_per_group(active, m)
        if (counts == n).all() if exact else (counts <= n).all() and float(counts.float().mean()) >= _FILLED * n:
            return n, m
    return None
