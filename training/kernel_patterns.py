"""Campfire's masks of convolution kernels and of fully connected layers (section 2.1 and appendix A).

Each function takes magnitudes in the grid of a layer, (groups, outputs, inputs, positions), and a sparsity, and
returns a boolean mask of that shape: the smallest magnitudes of a place are pruned, as many as the sparsity says,
rounded down. Of equal magnitudes the later ones go. What is pruned already has magnitude -1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def window_mask(grid: Tensor, sparsity: float, most: int | None = None) -> Tensor:
    """Prune inside each kernel (Algorithm 3); with `most`, no kernel has more non-zeros than that."""
    positions = grid.shape[3]
    return _keep_largest(grid, positions - max(rounded_share(positions, sparsity), positions - (most or positions)))


def kernel_mask(grid: Tensor, sparsity: float) -> Tensor:
    """CK: prune whole kernels of each output channel, ranked by their largest magnitude (Algorithm 1)."""
    largest = grid.amax(3)
    return _keep_largest(largest, grid.shape[2] - rounded_share(grid.shape[2], sparsity))[..., None].expand_as(grid)


def combined_mask(grid: Tensor, window_sparsity: float, kernel_sparsity: float) -> Tensor:
    """Prune inside kernels first, then whole kernels by what that leaves of them (Algorithm 4)."""
    window = window_mask(grid, window_sparsity)
    return window & kernel_mask(torch.where(window, grid, -1.0), kernel_sparsity)


def fine_mask(grid: Tensor, sparsity: float) -> Tensor:
    """Prune the whole layer, but for the largest input of every output."""
    pruned = rounded_share(grid.numel(), sparsity)
    first = _keep_largest(grid.flatten(2), 1).reshape(grid.shape)
    order = torch.argsort(torch.where(first, torch.inf, grid).reshape(-1), descending=True, stable=True)
    kept = max(grid.numel() - pruned, int(first.sum()))
    mask = torch.zeros(grid.numel(), dtype=torch.bool, device=grid.device)
    mask[order[:kept]] = True
    return mask.reshape(grid.shape)


def block_mask(grid: Tensor, sparsity: float, size: int) -> Tensor:
    """Prune whole blocks of (size outputs, size inputs) by the sum of their magnitudes, but for the largest of every
    row of blocks, so that each output keeps an input; what no whole block covers stays.
    """
    groups, outputs, inputs, positions = grid.shape
    rows, columns = outputs // size, inputs // size
    mask = torch.ones_like(grid, dtype=torch.bool)
    if rows and columns:
        tiled = grid[:, : rows * size, : columns * size].reshape(groups, rows, size, columns, size, positions)
        kept = fine_mask(tiled.sum((2, 4)), sparsity)
        whole = kept[:, :, None, :, None].expand_as(tiled)
        mask[:, : rows * size, : columns * size] = whole.reshape(groups, rows * size, columns * size, positions)
    return mask


def _keep_largest(values: Tensor, count: int) -> Tensor:
    """The `count` largest along the last axis."""
    order = torch.argsort(values, dim=-1, descending=True, stable=True)
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, order[..., :count], True)


def rounded_share(count: int, sparsity: float) -> int:
    """The share of a count, rounded down; what is a whole number but for the rounding of floats is one."""
    return int(count * sparsity + 1e-9)
