"""Random masks that never change."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import MaskSet, Random

from .helpers import Plain, adam, assert_masked, seeded, sgd, train


def random(model: nn.Module, **options: Any) -> Random:
    return Random(model, sgd(model), **{"total_steps": 30, **options})


def counts(masks: MaskSet) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


SHAPES = {
    "conv1.weight": (8, 3, 3, 3),
    "conv2.weight": (16, 8, 3, 3),
    "conv3.weight": (16, 16, 1, 1),
    "fc.weight": (5, 16),
}
SIZES = {name: prod(shape) for name, shape in SHAPES.items()}


def erdos_renyi_kernel(nonzeros: int) -> dict[str, float]:
    """The scale is found by halving an interval."""
    low, high = 0.0, 100.0
    for _ in range(100):
        scale = (low + high) / 2
        density = {name: min(1.0, scale * sum(shape) / SIZES[name]) for name, shape in SHAPES.items()}
        low, high = (low, scale) if sum(density[name] * SIZES[name] for name in SIZES) > nonzeros else (scale, high)
    return density


@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("distribution", ["erdos_renyi_kernel", "uniform", "uniform_first_dense", "global"])
def test_counts_are_those_of_the_distribution(distribution: str, sparsity: float) -> None:
    model = seeded(Plain)
    nonzeros = round(sum(SIZES.values()) * (1 - sparsity))
    rest = (nonzeros - SIZES["conv1.weight"]) / (sum(SIZES.values()) - SIZES["conv1.weight"])
    magnitudes = np.sort(np.concatenate([model.get_parameter(n).detach().abs().numpy().ravel() for n in SIZES]))
    density = {
        "erdos_renyi_kernel": erdos_renyi_kernel(nonzeros),
        "uniform": dict.fromkeys(SIZES, 1 - sparsity),
        "uniform_first_dense": {**dict.fromkeys(SIZES, rest), "conv1.weight": 1.0},
        "global": {n: float((model.get_parameter(n).abs() >= magnitudes[-nonzeros]).float().mean()) for n in SIZES},
    }[distribution]
    if distribution == "uniform_first_dense" and sparsity == 0.9:
        with pytest.raises(SparsefxError, match="hold 216 weights, more than the 170 that the sparsity allows"):
            random(model, sparsity=sparsity, distribution=distribution)
        return
    found = counts(random(model, sparsity=sparsity, distribution=distribution).masks())
    assert sum(found.values()) == nonzeros
    for name, count in found.items():
        assert abs(count - density[name] * SIZES[name]) < 1, name


@pytest.mark.parametrize("distribution", ["erdos_renyi_kernel", "uniform", "global"])
def test_the_seed_decides_and_weights_do_not(distribution: str) -> None:
    def masks(seed: int, scramble: bool = False) -> MaskSet:
        model = seeded(Plain)
        if scramble:
            with torch.no_grad():
                for name in SIZES:  # the same magnitudes elsewhere
                    model.get_parameter(name).copy_(model.get_parameter(name).flatten().flip(0).reshape(SHAPES[name]))
        return random(model, seed=seed, distribution=distribution).masks()

    torch.manual_seed(0)
    first = masks(0)
    torch.manual_seed(1)
    assert masks(0, scramble=True) == first
    assert counts(masks(1)) == counts(first)
    assert not torch.equal(masks(1)["conv3.weight"], first["conv3.weight"])


def test_every_weight_has_the_same_chance() -> None:
    """By Hoeffding's inequality one of the 40 counts is 75 off less than once in a million times."""
    times = torch.zeros(5, 8)
    for seed in range(600):
        model = nn.Sequential(nn.Linear(8, 5))
        times += random(model, sparsity=0.75, seed=seed).masks()["0.weight"]
    assert (times - 150).abs().max() < 75


@pytest.mark.parametrize("make", [sgd, adam])
def test_masks_never_change(make: Any) -> None:
    model = seeded(Plain)
    sparsifier = Random(model, make(model), total_steps=30)
    before, weights = sparsifier.masks(), model.get_parameter("conv2.weight").detach().clone()
    train(model, sparsifier, 30, after=lambda step: assert_masked(sparsifier))
    assert sparsifier.masks() == before and sparsifier.history == []
    assert not torch.equal(model.get_parameter("conv2.weight"), weights), "the others are trained"
    assert (sparsifier.settings.sparsity, sparsifier.settings.distribution) == (0.9, "erdos_renyi_kernel")
