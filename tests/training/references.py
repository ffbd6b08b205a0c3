"""Mask updates in plain loops over flat arrays, for the tests that compare methods with them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsefx.training import Sparsifier

from .helpers import backward

Values = NDArray[Any]


def largest(values: Values, among: Iterable[int], count: int) -> list[int]:
    """Places of the `count` largest magnitudes; of equal ones the first."""
    return sorted(among, key=lambda i: (-abs(values[i]), i))[:count]


def mask_of(places: Iterable[int], size: int) -> Values:
    mask = np.zeros(size, dtype=bool)
    mask[list(places)] = True
    return mask


def active(mask: Values) -> list[int]:
    return [i for i in range(mask.size) if mask[i]]


def flat(tensors: Mapping[str, Tensor]) -> dict[str, Values]:
    return {name: tensor.detach().cpu().numpy().reshape(-1).copy() for name, tensor in tensors.items()}


def masks_of(sparsifier: Sparsifier) -> dict[str, Values]:
    return flat({name: layer.mask for name, layer in sparsifier.layers.items()})


def gradients_of(sparsifier: Sparsifier) -> dict[str, Values]:
    return flat({name: layer.parameter.grad for name, layer in sparsifier.layers.items()})


def largest_of_network(values: Mapping[str, Values], masks: Mapping[str, Values], count: int) -> dict[str, Values]:
    """Masks of the `count` largest magnitudes of all layers in one list, among the masked-in weights."""
    pooled = np.concatenate([values[name] for name in masks])
    kept = mask_of(largest(pooled, active(np.concatenate(list(masks.values()))), count), pooled.size)
    ends = np.cumsum([mask.size for mask in masks.values()])[:-1]
    return dict(zip(masks, np.split(kept, ends), strict=True))


def mask_gradients(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        gradient.mul_(mask)


def after_optimizer_step(model: nn.Module, sparsifier: Sparsifier, step: int) -> dict[str, Values]:
    """The weights that a plain step of the optimizer with masked gradients leads to, on a copy of the model."""
    copied, optimizer = copy.deepcopy((model, sparsifier.optimizer))
    optimizer.zero_grad()
    backward(copied, step)
    mask_gradients(copied, {name: layer.mask for name, layer in sparsifier.layers.items()})
    optimizer.step()
    return flat({name: copied.get_parameter(name) for name in sparsifier.layers})


def same_masks(sparsifier: Sparsifier, expected: Mapping[str, Values]) -> bool:
    found = masks_of(sparsifier)
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)
