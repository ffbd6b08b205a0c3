"""N:M patterns: n of every m consecutive inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from .sparse_layer import SparseLayer


def can_hold(layer: SparseLayer, m: int) -> bool:
    """Whether the inputs of a layer come in groups of m."""
    return layer.layout.grid(layer.mask).shape[2] % m == 0


def largest_n_of_m(layer: SparseLayer, score: Tensor, n: int, m: int) -> Tensor:
    """The mask of a layer with the n highest scores in every m consecutive inputs; of equal ones the first."""
    grid = layer.layout.grid(score)
    groups, outputs, inputs, positions = grid.shape
    tiled = grid.reshape(groups, outputs, inputs // m, m, positions)
    order = torch.argsort(tiled, dim=3, descending=True, stable=True)
    mask = torch.zeros_like(tiled, dtype=torch.bool).scatter_(3, order[:, :, :, :n], True)
    return layer.layout.from_grid(mask.reshape(grid.shape), layer.mask.shape)
