"""The masks that sparse training starts with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .budget import allocate, budget_beside
from .criteria import magnitude
from .distributions import DISTRIBUTIONS
from .selection import highest_of_all
from .sparse_layer import SparseLayer


def initial_masks(
    layers: Mapping[str, SparseLayer], distribution: str, nonzeros: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Masks of the layers that are not kept dense; with those, `nonzeros` weights are left, to one weight.

    Random in every layer with the counts of the distribution; the largest magnitudes for "global".
    """
    weights = {name: layer.weight for name, layer in layers.items() if not layer.kept_dense}
    left = budget_beside(layers, nonzeros)
    if distribution == "global":
        anywhere = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        return highest_of_all(lambda name: magnitude(weights[name]), anywhere, left)
    counts = layer_budgets(layers, distribution, nonzeros)
    return {name: random_mask(weight.shape, counts[name], generator) for name, weight in weights.items()}


def layer_budgets(layers: Mapping[str, SparseLayer], distribution: str, nonzeros: int) -> dict[str, int]:
    """How many of `nonzeros` each layer gets that is not kept dense."""
    weights = {name: layer.weight for name, layer in layers.items() if not layer.kept_dense}
    sizes = {name: weight.numel() for name, weight in weights.items()}
    left = budget_beside(layers, nonzeros)
    return allocate(DISTRIBUTIONS[distribution](weights, left), sizes, left)


def random_mask(shape: torch.Size, count: int, generator: torch.Generator) -> Tensor:
    """On the CPU, so that a seed means the same mask on every device."""
    mask = torch.zeros(shape.numel(), dtype=torch.bool)
    mask[torch.randperm(shape.numel(), generator=generator)[:count]] = True
    return mask.reshape(shape)
