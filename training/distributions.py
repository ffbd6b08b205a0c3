"""Layer-wise distributions: which density every layer gets so that the whole network has the wanted one.

Each function takes the weights by name (shapes suffice, meta tensors will do, except for `global_magnitude`) and the
number of non-zeros for all of them together, and returns densities between 0 and 1. `budget.allocate` makes
whole numbers of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from .criteria import magnitude
from .selection import highest_of_all

Distribution = Callable[[Mapping[str, Tensor], int], dict[str, float]]


def uniform(weights: Mapping[str, Tensor], nonzeros: int) -> dict[str, float]:
    """The same density everywhere."""
    size = sum(weight.numel() for weight in weights.values())
    return dict.fromkeys(weights, nonzeros / size if size else 1.0)


def erdos_renyi_kernel(weights: Mapping[str, Tensor], nonzeros: int) -> dict[str, float]:
    """density_l = eps * sum(shape_l) / prod(shape_l), capped at 1 (Evci et al. 2020, section 3).

    Layers above 1 become dense and eps is solved again over the rest, until none exceeds 1.
    """
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    dense: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in dense]
        left = nonzeros - sum(prod(shapes[name]) for name in dense)
        scale = left / sum(sum(shapes[name]) for name in rest) if rest else 0.0
        density = {name: scale * sum(shapes[name]) / prod(shapes[name]) for name in rest}
        above = {name for name, value in density.items() if value > 1}
        if not above:
            return {name: density.get(name, 1.0) for name in shapes}
        dense |= above


def global_magnitude(weights: Mapping[str, Tensor], nonzeros: int) -> dict[str, float]:
    """The shares that the largest magnitudes of the whole network have in each layer (GraNet, Chase)."""
    eligible = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    kept = highest_of_all(lambda name: magnitude(weights[name]), eligible, nonzeros)
    return {name: float(mask.sum()) / max(mask.numel(), 1) for name, mask in kept.items()}


DISTRIBUTIONS: dict[str, Distribution] = {
    "erdos_renyi_kernel": erdos_renyi_kernel,
    "uniform": uniform,
    "uniform_first_dense": uniform,  # the core keeps the first layer dense
    "global": global_magnitude,
}
