"""SET against a reference written with loops, and the chance that its growth leaves to every weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import SET

from .helpers import Plain, adam, assert_masked, seeded, sgd, train
from .references import active, after_optimizer_step, largest, mask_of, masks_of


def evolving(model: nn.Module, optimizer: Optimizer | None = None, **options: Any) -> SET:
    return SET(model, optimizer or sgd(model), **{"total_steps": 30, "update_interval": 3, **options})


def test_defaults_are_the_papers_with_intervals_scaled_to_short_runs() -> None:
    model = Plain()
    settings = SET(model, sgd(model), total_steps=100_000).settings
    assert (settings.sparsity, settings.drop_fraction, settings.update_interval) == (0.9, 0.3, 1000)
    assert settings.distribution == "erdos_renyi_kernel"
    intervals = [SET(model, sgd(model), total_steps=n).settings.update_interval for n in (50_000, 1000, 100, 30, 1)]
    assert intervals == [1000, 20, 10, 6, 1]


@pytest.mark.parametrize(("interval", "steps"), [(7, [7, 14, 21]), (10, [10, 20]), (15, [15]), (16, [])])
def test_the_last_update_leaves_an_interval_of_training(interval: int, steps: list[int]) -> None:
    model = seeded(Plain)
    sparsifier = evolving(model, update_interval=interval)
    train(model, sparsifier, 30)
    assert [update.step for update in sparsifier.history] == steps
    assert {update.drop_fraction for update in sparsifier.history} <= {0.3}, "zeta does not decay"


@given(
    seed=st.integers(0, 1000),
    sparsity=st.floats(0.2, 0.95),
    zeta=st.floats(0.05, 1.0),
    make=st.sampled_from([sgd, adam]),
)
@settings(max_examples=15, deadline=None)
def test_an_update_drops_the_smallest_magnitudes_of_every_layer_and_grows_as_many(
    seed: int, sparsity: float, zeta: float, make: Callable[[nn.Module], Optimizer]
) -> None:
    model = seeded(lambda: Plain(4), seed)
    sparsifier = evolving(model, make(model), sparsity=sparsity, drop_fraction=zeta, seed=seed)
    train(model, sparsifier, 2)
    old = masks_of(sparsifier)
    weights = after_optimizer_step(model, sparsifier, 2)
    train(model, sparsifier, 1, first=2)
    for name, new in masks_of(sparsifier).items():
        drop = int(zeta * old[name].sum())
        kept = mask_of(largest(weights[name], active(old[name]), int(old[name].sum()) - drop), new.size)
        assert (new & kept).sum() == kept.sum(), "nothing but the smallest went"
        assert (new & ~kept).sum() == drop, "as many have grown"
        values = sparsifier.layers[name].weight.numpy().reshape(-1)
        assert np.array_equal(values[kept], weights[name][kept]), "the optimizer has made its step"
        assert not values[new & ~old[name]].any(), "what has grown starts at zero"
    assert_masked(sparsifier)


def test_what_has_grown_starts_without_momentum() -> None:
    model = seeded(Plain)
    sparsifier = evolving(model, adam(model), sparsity=0.5, drop_fraction=0.5, distribution="uniform")
    train(model, sparsifier, 2)
    old = {name: layer.mask for name, layer in sparsifier.layers.items()}
    train(model, sparsifier, 1, first=2)
    for name, layer in sparsifier.layers.items():
        grown = layer.mask & ~old[name]
        moments = [v for v in sparsifier.state[layer.parameter].values() if isinstance(v, Tensor) and v.ndim]
        assert grown.any() and len(moments) == 3
        assert not any(moment[grown].any() for moment in moments)
        assert all(moment[layer.mask & old[name]].any() for moment in moments)


def grown_by(seed: int) -> list[int]:
    """Which of 20 masked and 6 just dropped weights one update grows; the 14 largest come first."""
    model = nn.Sequential(nn.Linear(8, 5, bias=False))
    sparsifier = evolving(model, sparsity=0.5, update_interval=1, seed=seed)
    layer = sparsifier.layers["0.weight"]
    layer.mask = (torch.arange(40) < 20).reshape(5, 8)
    with torch.no_grad():
        layer.parameter.copy_(torch.arange(40, 0, -1).reshape(5, 8) * layer.mask)
    sparsifier.step()
    return layer.mask.reshape(-1)[14:].nonzero().flatten().tolist()


def test_growth_is_uniform_over_all_weights_that_are_not_kept() -> None:
    """The statistic has a chi-square distribution with 25 degrees of freedom: above 80 once in nine million."""
    seeds, candidates, share = 1500, 26, 6 / 26
    counts = np.zeros(candidates)
    for seed in range(seeds):
        grown = grown_by(seed)
        assert len(grown) == 6
        counts[grown] += 1
    expected, variance = seeds * share, seeds * share * (1 - share)
    statistic = ((counts - expected) ** 2).sum() / variance * (candidates - 1) / candidates
    assert statistic < 80


def test_growth_follows_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = grown_by(3)
    torch.manual_seed(1)
    assert grown_by(3) == first
    assert grown_by(4) != first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_fraction": 0.0}, r"drop_fraction must be in \(0, 1\], found 0.0"),
        ({"update_interval": 0}, "update_interval must be positive, found 0"),
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\), found 1.0"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SparsefxError, match=message):
        evolving(Plain(), **options)
