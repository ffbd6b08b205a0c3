"""IEE against a second implementation, and what its options promise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import Optimizer

from sparsefx.passes.errors import MaskError, SparsefxError
from sparsefx.training import IEE
from sparsefx.training.n_m import can_hold, largest_n_of_m
from sparsefx.training.sparse_layer import SparseLayer
from sparsefx.training.weight_layout import WeightLayout

from .helpers import Plain, adam, assert_masked, seeded, sgd, train
from .iee_reference import LAST, STAGES, STEPS, Reference, fraction


def iee(model: nn.Module, optimizer: Optimizer | None = None, **options: Any) -> IEE:
    return IEE(model, optimizer or sgd(model), **{"total_steps": STEPS, "stages": STAGES, **options})


KINDS: dict[str, dict[str, Any]] = {
    "by layer": {"sparsity": 0.7},
    "uniform": {"sparsity": 0.8, "distribution": "uniform"},
    "global": {"sparsity": 0.7, "distribution": "global"},
    "2:4": {"n_m": (2, 4)},
}


@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_of_every_cycle(kind: str, make: Callable[[nn.Module], Optimizer]) -> None:
    """Weights to the bit, while exploring too: all of them, biases and BatchNorm; optimizer state of active weights."""
    model, reference = seeded(Plain), Reference(seeded(Plain), make, kind)
    sparsifier = iee(model, make(model), **KINDS[kind])
    reference.start({layer.name: layer.mask.clone() for layer in sparsifier.explored})
    expected = reference.follow()
    kept_dense = {"conv1.weight"} if kind == "2:4" else set()
    assert {n for n, layer in sparsifier.layers.items() if layer.kept_dense} == kept_dense

    def check(step: int) -> None:
        next(expected)
        assert sparsifier.nonzeros == sparsifier.target_nonzeros
        for name, mask in reference.masks.items():
            assert torch.equal(sparsifier.layers[name].mask, mask), (step, name)
        for (name, value), other in zip(model.state_dict().items(), reference.model.state_dict().values(), strict=True):
            assert torch.equal(value, other), (step, name)
        if not sparsifier.exploring:
            assert_masked(sparsifier)
            assert_same_state(sparsifier, reference)

    train(model, sparsifier, STEPS, first=1, after=check)


def assert_same_state(sparsifier: IEE, reference: Reference) -> None:
    """The optimizer remembers what it would without any exploration."""
    for name, layer in sparsifier.layers.items():
        found = sparsifier.optimizer.state[layer.parameter]
        wanted = reference.optimizer.state[reference.model.get_parameter(name)]
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in found), name


def test_updates_come_at_the_end_of_stages_until_three_quarters_of_training() -> None:
    model = seeded(Plain)
    sparsifier = iee(model)
    exploring = []

    def check(step: int) -> None:
        if sparsifier.exploring:
            exploring.append(step)

    train(model, sparsifier, STEPS, first=1, after=check)
    assert [update.step for update in sparsifier.history] == [3, 9, 12, 18, 21, 27]
    for prune, grow in zip(sparsifier.history[::2], sparsifier.history[1::2], strict=True):
        assert prune.drop_fraction == pytest.approx(fraction(prune.step))
        budgets = [int(layer.mask.sum()) for layer in sparsifier.explored]
        assert prune.dropped == grow.grown == sum(int(fraction(prune.step) * budget) for budget in budgets)
        assert prune.grown == grow.dropped == 0
    assert exploring == [5, 6, 7, 8, 14, 15, 16, 17, 23, 24, 25, 26], "from the end of stage J to that of stage Q"


def test_with_a_learning_rate_of_zero_every_exploration_finds_the_initial_weights() -> None:
    model = seeded(Plain)
    initial = {name: value.detach().clone() for name, value in model.named_parameters()}
    sparsifier = iee(model, torch.optim.SGD(model.parameters(), lr=0.0), drop_fraction=0.5)

    def check(step: int) -> None:
        for name, layer in sparsifier.layers.items():
            mask = torch.ones_like(layer.mask) if sparsifier.exploring else layer.mask
            assert torch.equal(layer.weight, initial[name] * mask)

    train(model, sparsifier, LAST, first=1, after=check)
    assert sum(update.grown for update in sparsifier.history) > 0


@pytest.mark.parametrize("make", [sgd, adam])
def test_exploration_moves_inactive_weights_and_nothing_else(make: Callable[[nn.Module], Optimizer]) -> None:
    model = seeded(Plain)
    sparsifier = iee(model, make(model))
    train(model, sparsifier, 5)
    assert sparsifier.exploring
    masks = {name: layer.mask for name, layer in sparsifier.layers.items()}
    before, optimizer = copy.deepcopy((model.state_dict(), sparsifier.exploration.state()["optimizer_state"]))
    others = {p: copy.deepcopy(v) for p, v in sparsifier.state.items()}
    train(model, sparsifier, 3, first=5)
    for name, mask in masks.items():
        moved = model.get_parameter(name) != before[name]
        assert moved.any() and not moved[mask].any(), name
    train(model, sparsifier, 1, first=8)
    for name, value in model.state_dict().items():
        active = masks.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value[active], before[name][active]), name
    for name in masks:
        state = sparsifier.state[sparsifier.layers[name].parameter]
        assert state.keys() == optimizer[name].keys() and len(state) > 0
        assert all(torch.equal(value, optimizer[name][key]) for key, value in state.items()), "momentum of active ones"
    for parameter, state in others.items():
        assert all(torch.equal(value, sparsifier.state[parameter][key]) for key, value in state.items())


def test_n_m_keeps_layers_dense_whose_inputs_are_no_multiple_of_m() -> None:
    model = seeded(Plain)
    sparsifier = iee(model, n_m=(1, 4), dense=["fc"])
    reasons = {"conv1.weight": "its inputs are no multiple of 4", "fc.weight": "kept dense by pattern"}
    assert sparsifier.dense_layers == reasons
    assert sparsifier.settings.sparsity == 0.75
    train(model, sparsifier, STEPS)
    masks = sparsifier.masks()
    assert masks.density("conv1.weight") == masks.density("fc.weight") == 1.0
    for name in ("conv2.weight", "conv3.weight"):
        structure = masks.structure(name)
        assert (structure.kind, structure.n, structure.m) == ("n_m", 1, 4)
        assert (masks[name].unflatten(1, (-1, 4)).sum(2) == 1).all()


def test_a_model_that_cannot_hold_n_of_m_is_refused() -> None:
    with pytest.raises(MaskError, match=r"nothing to sparsify: .*its inputs are no multiple of 4"):
        iee(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)), n_m=(2, 4))


@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from([(4, 12), (6, 4, 3), (4, 8, 2, 2), (8, 4, 1, 3)]),
    layout=st.sampled_from([WeightLayout(), WeightLayout(groups=2), WeightLayout(1), WeightLayout(1, groups=2)]),
    n_m=st.sampled_from([(1, 2), (2, 4), (3, 4)]),
)
@settings(max_examples=60, deadline=None)
def test_n_of_m_consecutive_inputs_are_the_largest(
    seed: int, shape: tuple[int, ...], layout: WeightLayout, n_m: tuple[int, int]
) -> None:
    """Inputs are axis 1; of transposed convolutions axis 0, in as many parts as there are groups."""
    n, m = n_m
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    axis = 1 - layout.output_axis
    inputs = shape[axis] // (layout.groups if layout.output_axis else 1)
    layer = SparseLayer("", nn.Parameter(weight), layout, torch.ones(shape, dtype=torch.bool))
    assert can_hold(layer, m) == (inputs % m == 0)
    if inputs % m:
        return
    values = weight.transpose(0, axis).flatten(1)
    expected = torch.zeros_like(values, dtype=torch.bool)
    for first in range(0, shape[axis], m):
        for column in range(values.shape[1]):
            group = range(first, first + m)
            for row in sorted(group, key=lambda row: -float(values[row, column]))[:n]:
                expected[row, column] = True
    mask = largest_n_of_m(layer, weight, n, m)
    assert torch.equal(mask.transpose(0, axis).flatten(1), expected)


def test_defaults_are_the_papers_with_stages_scaled_to_short_runs() -> None:
    model = Plain()
    settings = IEE(model, sgd(model), total_steps=90_000).settings
    assert (settings.sparsity, settings.drop_fraction, settings.stop) == (0.9, 0.3, 0.75)
    assert (settings.stages, settings.distribution, settings.n_m) == ((150, 150, 150), "erdos_renyi_kernel", None)
    stages = [IEE(model, sgd(model), total_steps=n).settings.stages for n in (9000, 6000, 600, 50, 30)]
    assert stages == [(length, length, length) for length in (150, 100, 10, 10, 6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": (3, 0, 3)}, "stage J must be positive, found 0"),
        ({"stages": (10, 10, 11)}, r"stages \(10, 10, 11\) do not fit into 30 steps; shorten them"),
        ({"n_m": (4, 4)}, r"n_m must be \(n, m\) with 0 < n < m, found \(4, 4\)"),
        ({"drop_fraction": 0.0}, r"drop_fraction must be in \(0, 1\], found 0.0"),
        ({"stop": 1.5}, r"stop must be in \(0, 1\], found 1.5"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SparsefxError, match=message):
        iee(Plain(), **options)
