"""GMP and GraNet against references written with loops: whole trainings, update by update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import Optimizer

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import GMP, GraNet

from .helpers import Plain, adam, assert_masked, backward, seeded, sgd, train
from .references import (
    Values,
    active,
    after_optimizer_step,
    flat,
    gradients_of,
    largest,
    largest_of_network,
    mask_of,
    masks_of,
    same_masks,
)

STEPS = 24


def gmp(model: nn.Module, optimizer: Optimizer | None = None, **options: Any) -> GMP:
    return GMP(model, optimizer or sgd(model), **{"total_steps": STEPS, "update_interval": 3, **options})


def granet(model: nn.Module, optimizer: Optimizer | None = None, **options: Any) -> GraNet:
    return GraNet(model, optimizer or sgd(model), **{"total_steps": STEPS, "update_interval": 3, **options})


def count_by_equation_1(step: int, size: int, options: dict[str, Any]) -> int:
    """Non-zeros after `step`: those of the last multiple of the interval, between t_0 and the last one before t_f."""
    t_0, interval = round(options["start"] * STEPS), options["update_interval"]
    updates = [t for t in range(t_0 + 1, round(options["stop"] * STEPS) + 1) if t % interval == 0]
    passed = [t for t in updates if t <= step]
    if not passed:
        return round(size * (1 - options["initial_sparsity"]))
    left = (1 - (passed[-1] - t_0) / (updates[-1] - t_0)) ** 3
    s_t = options["sparsity"] + (options["initial_sparsity"] - options["sparsity"]) * left
    return round(size * (1 - s_t))


schedules = st.fixed_dictionaries(
    {
        "sparsity": st.floats(0.6, 0.97),
        "initial_sparsity": st.sampled_from([0.0, 0.3, 0.5]),
        "update_interval": st.integers(1, 5),
        "start": st.sampled_from([0.0, 0.1, 0.3]),
        "stop": st.sampled_from([0.6, 0.75, 1.0]),
    }
)


@given(seed=st.integers(0, 1000), options=schedules, make=st.sampled_from([sgd, adam]))
@settings(max_examples=8, deadline=None)
def test_every_step_of_gmp(seed: int, options: dict[str, Any], make: Callable[[nn.Module], Optimizer]) -> None:
    model = seeded(lambda: Plain(4), seed)
    sparsifier = gmp(model, make(model), seed=seed, **options)
    masks = masks_of(sparsifier)
    for step in range(1, STEPS + 1):
        weights = after_optimizer_step(model, sparsifier, step)
        count = count_by_equation_1(step, sparsifier.size, options)
        masks = largest_of_network(weights, masks, count)
        train(model, sparsifier, 1, first=step)
        assert sparsifier.nonzeros == sparsifier.target_nonzeros == count
        assert same_masks(sparsifier, masks), "one threshold for all layers, and no pruned weight returns"
        assert_masked(sparsifier)
        left = flat({name: layer.weight for name, layer in sparsifier.layers.items()})
        assert all(np.array_equal(left[n][mask], weights[n][mask]) for n, mask in masks.items())


def test_gmp_prunes_the_first_and_the_last_layer_too() -> None:
    model = seeded(Plain)
    with torch.no_grad():
        model.get_parameter("conv1.weight").mul_(1e-3)
        model.get_parameter("fc.weight").mul_(1e-2)
    sparsifier = gmp(model, update_interval=2, stop=0.1)
    train(model, sparsifier, 2)
    assert not sparsifier.layers["conv1.weight"].mask.any() and not sparsifier.layers["fc.weight"].mask.any()
    assert sparsifier.nonzeros == round(sparsifier.size * 0.1)


def test_gmp_updates_between_start_and_stop_only() -> None:
    model = seeded(Plain)
    sparsifier = gmp(model, update_interval=4, start=0.2, stop=0.75)
    train(model, sparsifier, STEPS)
    assert [update.step for update in sparsifier.history] == [8, 12, 16]
    assert {(update.grown, update.drop_fraction) for update in sparsifier.history} == {(0, 0.0)}


def ratio(step: int, first: float = 0.5, last: float = 0.005) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * step / STEPS)) / 2


def regenerated(weight: Values, mask: Values, gradient: Values, r: float) -> Values:
    """Eq. 2 and 3 of GraNet for one layer that has been pruned already."""
    drop = math.ceil(r * int(mask.sum()))
    kept = largest(weight, active(mask), int(mask.sum()) - drop)
    others = active(~mask_of(kept, mask.size))
    return mask_of([*kept, *largest(gradient, others, drop)], mask.size)


@given(seed=st.integers(0, 1000), options=schedules, make=st.sampled_from([sgd, adam]))
@settings(max_examples=8, deadline=None)
def test_every_step_of_granet(seed: int, options: dict[str, Any], make: Callable[[nn.Module], Optimizer]) -> None:
    model = seeded(lambda: Plain(4), seed)
    sparsifier = granet(model, make(model), seed=seed, **options)
    masks = masks_of(sparsifier)
    interval = options["update_interval"]
    first = round(options["start"] * STEPS) // interval * interval + interval
    last_pruning = round(options["stop"] * STEPS) // interval * interval
    updates = [t for t in range(first, STEPS + 1, interval) if t <= max(STEPS - interval, last_pruning)]
    for step in range(1, STEPS + 1):
        old = masks
        weights = flat({name: layer.weight for name, layer in sparsifier.layers.items()})
        sparsifier.zero_grad()
        backward(model, step)
        if step in updates:
            count = count_by_equation_1(step, sparsifier.size, options)
            pruned, gradients = largest_of_network(weights, old, count), gradients_of(sparsifier)
            masks = {
                n: regenerated(weights[n], pruned[n], gradients[n], ratio(step)) if gradients[n].any() else pruned[n]
                for n in old
            }
        sparsifier.step()
        assert sparsifier.nonzeros == sparsifier.target_nonzeros == count_by_equation_1(step, sparsifier.size, options)
        assert same_masks(sparsifier, masks)
        assert_masked(sparsifier)
        if step in updates:
            assert_no_optimizer_step(sparsifier, weights, old)
    assert [update.step for update in sparsifier.history] == updates


def assert_no_optimizer_step(sparsifier: GraNet, weights: dict[str, Values], old: dict[str, Values]) -> None:
    """An update takes the place of the optimizer's step; what has grown is zero."""
    left = flat({name: layer.weight for name, layer in sparsifier.layers.items()})
    for name, mask in masks_of(sparsifier).items():
        assert np.array_equal(left[name][mask], weights[name][mask])
        assert not left[name][mask & ~old[name]].any()


def test_regeneration_goes_on_when_pruning_is_over_and_leaves_an_interval() -> None:
    model = seeded(Plain)
    sparsifier = granet(model, update_interval=4, stop=0.5)
    train(model, sparsifier, STEPS)
    assert [update.step for update in sparsifier.history] == [4, 8, 12, 16, 20]
    assert [update.drop_fraction for update in sparsifier.history] == [
        pytest.approx(ratio(step)) for step in (4, 8, 12, 16, 20)
    ]
    nonzeros = [update.nonzeros for update in sparsifier.history]
    assert nonzeros[:3] == sorted(set(nonzeros), reverse=True) and len(set(nonzeros[2:])) == 1
    assert all(update.grown > 0 for update in sparsifier.history[3:])


def test_dense_to_sparse_and_sparse_to_sparse_starts() -> None:
    dense = granet(seeded(Plain), initial_sparsity=0.0)
    assert dense.nonzeros == dense.size
    sparse = granet(seeded(Plain))
    assert sparse.nonzeros == round(sparse.size / 2)
    assert sparse.masks().density("conv3.weight") == 1.0 > sparse.masks().density("conv2.weight"), "by ERK"
    model = seeded(Plain)
    everything = model.get_parameter("conv2.weight").detach().clone()
    mask = granet(model).layers["conv2.weight"].mask
    assert torch.equal(model.get_parameter("conv2.weight"), everything * mask)
    assert not largest_stay(everything, mask), "at random"


def largest_stay(weight: torch.Tensor, mask: torch.Tensor) -> bool:
    return bool(weight[mask].abs().min() >= weight[~mask].abs().max())


def test_a_layer_without_gradient_is_pruned_but_not_regenerated() -> None:
    model = nn.ModuleDict({"used": nn.Linear(6, 6), "unused": nn.Linear(6, 6)})
    sparsifier = granet(model, initial_sparsity=0.0, sparsity=0.5, update_interval=1, stop=0.05)
    with torch.no_grad():
        model["unused"].weight.copy_(torch.arange(1, 37).reshape(6, 6) * 1e-3)
        model["used"].weight.fill_(1.0)
    model["used"](torch.ones(3, 6)).square().sum().backward()
    sparsifier.step()
    assert not sparsifier.layers["unused.weight"].mask.any()
    assert sparsifier.layers["used.weight"].mask.all()


def test_defaults_are_table_7_with_intervals_scaled_to_short_runs() -> None:
    model, steps = Plain(), 160 * 391
    for sparsifier in (
        GMP(model, sgd(model), total_steps=steps),
        GraNet(model, sgd(model), total_steps=steps, initial_sparsity=0.0),
    ):
        dense = sparsifier.settings
        assert (dense.sparsity, dense.initial_sparsity, dense.start) == (0.9, 0.0, 0.0)
        assert (dense.stop * 160, dense.update_interval) == (110, 1000)
    sparse = GraNet(model, sgd(model), total_steps=steps).settings
    assert (sparse.initial_sparsity, sparse.stop * 160, sparse.update_interval) == (0.5, 80, 1000)
    assert (sparse.regeneration, sparse.distribution) == ((0.5, 0.005), "erdos_renyi_kernel")
    for method in (GMP, GraNet):
        intervals = [method(model, sgd(model), total_steps=n).settings.update_interval for n in (50_000, 1000, 100, 30)]
        assert intervals == [1000, 20, 10, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_sparsity": 0.95}, "initial_sparsity must be between 0 and sparsity 0.9, found 0.95"),
        ({"update_interval": 0}, "update_interval must be positive, found 0"),
        ({"start": 0.5, "stop": 0.5}, "0 <= start < stop <= 1 must hold, found 0.5, 0.5"),
        (
            {"update_interval": 5, "start": 0.45, "stop": 0.6},
            "no pruning: there is no multiple of update_interval 5 between steps 10.8 and 14.4",
        ),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    for build in (gmp, granet):
        with pytest.raises(SparsefxError, match=message):
            build(Plain(), **options)
    with pytest.raises(SparsefxError, match=r"regeneration must be shares of the non-zeros, found \(1.5, 0.0\)"):
        granet(Plain(), regeneration=(1.5, 0.0))
