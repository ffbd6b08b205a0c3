"""Sparse amenable channels: those that training makes sparser or smaller than they were (Chase, section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .criteria import magnitude
from .sparse_layer import SparseLayer

RATIO = 0.2  # v of Chase's Table 14


def channel_magnitudes(layer: SparseLayer) -> Tensor:
    """UMM of every output channel, shape (channels,)."""
    return magnitude(layer.layout.rows(layer.weight)).mean(1)


def channel_sparsities(layer: SparseLayer) -> Tensor:
    """WS of every output channel, shape (channels,)."""
    return 1 - layer.layout.rows(layer.mask).float().mean(1)


def fallen_share(first: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> float:
    """Share of channels with (UMM_0 - UMM_i) / UMM_0 > v; a channel that started at 0 is not among them."""
    return _share([1 - value / first[name].to(value.device) for name, value in now.items()])


def risen_share(first: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> float:
    """Share of channels with (WS_i - WS_0) / WS_0 > v; a channel that started dense is, once it has a zero."""
    return _share([value / first[name].to(value.device) - 1 for name, value in now.items()])


def _share(changes: list[Tensor]) -> float:
    return float(torch.cat(changes).gt(RATIO).float().mean())
