"""The masks that sparse training starts with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .budget import allocate, budget_beside
from .criteria import magnitude
from .distributions import DISTRIBUTIONS
from .selection import highest
from .sparse_layer import SparseLayer


def initial_masks(
    layers: Mapping[str, SparseLayer], distribution: str, sparsity: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Masks of the layers that are not kept dense; with those, the non-zeros are on target to one weight.

    Random in every layer with the counts of the distribution; the largest magnitudes for "global".
    """
    weights = {name: layer.weight for name, layer in layers.items() if not layer.kept_dense}
    dense = {name: layer.mask.numel() for name, layer in layers.items() if layer.kept_dense}
    size = sum(layer.mask.numel() for layer in layers.values())
    nonzeros = budget_beside(dense, size, sparsity)
    if distribution == "global":
        anywhere = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        return highest({name: magnitude(weight) for name, weight in weights.items()}, anywhere, nonzeros)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    counts = allocate(DISTRIBUTIONS[distribution](weights, nonzeros), sizes, nonzeros)
    return {name: _random_mask(weight.shape, counts[name], generator) for name, weight in weights.items()}


def _random_mask(shape: torch.Size, count: int, generator: torch.Generator) -> Tensor:
    """On the CPU, so that a seed means the same mask on every device."""
    mask = torch.zeros(shape.numel(), dtype=torch.bool)
    mask[torch.randperm(shape.numel(), generator=generator)[:count]] = True
    return mask.reshape(shape)
