"""FLOPs by the papers' formulas: their printed figures, and trainings against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsefx.training import GMP, IEE, SET, Random, RigL, Sparsifier
from sparsefx.training.distributions import erdos_renyi_kernel
from sparsefx.training.flops import (
    convolution_outputs,
    iee_training_cost,
    layer_macs,
    rigl_training_cost,
    srigl_flops,
    theoretical_flops,
)

from .helpers import EXAMPLE, Residual, resnet50, seeded, sgd, train

IMAGE = (torch.zeros(1, 3, 224, 224),)


def table_5(sparsity: float) -> float:
    """SRigL's inference FLOPs of ResNet-50; as in the authors' code, the budget is rounded up layer by layer."""
    layers = {name: p.detach() for name, p in resnet50().named_parameters() if p.ndim >= 2}
    nonzeros = sum(weight.numel() - int(sparsity * weight.numel()) for weight in layers.values())
    densities = erdos_renyi_kernel(layers, nonzeros)
    return srigl_flops(layer_macs(resnet50(), IMAGE), densities, convolution_outputs(resnet50(), IMAGE))


@pytest.mark.parametrize(
    ("sparsity", "printed"),
    [(0.0, 8.189482e9), (0.8, 3.395292e9), (0.9, 1.988961e9), (0.95, 1.006217e9), (0.99, 0.210148e9)],
)
def test_inference_flops_of_srigls_table_5(sparsity: float, printed: float) -> None:
    assert table_5(sparsity) == pytest.approx(printed, rel=1e-6, abs=500)  # printed to a thousand


@pytest.mark.parametrize(("sparsity", "printed"), [(0.8, 0.463), (0.9, 0.306)])
def test_average_training_cost_of_iee(sparsity: float, printed: float) -> None:
    """(11 sparse + dense) / 4 of 3 dense; the paper prints 0.45 and 0.30."""
    dense, sparse = table_5(0.0), table_5(sparsity)
    cost = iee_training_cost(sparse, dense, stages=(150, 150, 150), share=0.75)
    assert cost == pytest.approx((11 * sparse + dense) / 4, rel=1e-12)
    assert round(cost / (3 * dense), 3) == printed


def trained(sparsifier: Sparsifier, model: nn.Module, steps: int) -> float:
    train(model, sparsifier, steps)
    return sparsifier.training_flops(layer_macs(model, EXAMPLE))


def forward_flops(model: nn.Module, sparsifier: Sparsifier) -> tuple[float, float]:
    macs = layer_macs(model, EXAMPLE)
    sparse = theoretical_flops(macs, {name: sparsifier.masks().density(name) for name in sparsifier.layers})
    return sparse, theoretical_flops(macs, {})


def test_a_static_training_costs_three_sparse_passes_a_step() -> None:
    model = seeded(Residual)
    sparsifier = Random(model, sgd(model), total_steps=12)
    sparse, _ = forward_flops(model, sparsifier)
    assert trained(sparsifier, model, 12) == pytest.approx(12 * 3 * sparse, rel=1e-9)


def test_a_layer_that_is_not_sparsified_costs_three_dense_passes() -> None:
    model = seeded(Residual)
    sparsifier = Random(model, sgd(model), total_steps=12, exclude=["stem"])
    sparse, dense = forward_flops(model, sparsifier)
    assert sparse < dense
    assert trained(sparsifier, model, 12) == pytest.approx(12 * 3 * sparse, rel=1e-9)


def test_rigl_costs_a_dense_gradient_at_every_update() -> None:
    model = seeded(Residual)
    sparsifier = RigL(model, sgd(model), total_steps=40, update_interval=4, stop=1.0)
    sparse, dense = forward_flops(model, sparsifier)
    assert trained(sparsifier, model, 36) == pytest.approx(36 * rigl_training_cost(sparse, dense, interval=4), rel=1e-9)


def test_set_needs_no_dense_gradient() -> None:
    model = seeded(Residual)
    sparsifier = SET(model, sgd(model), total_steps=40, update_interval=4)
    sparse, _ = forward_flops(model, sparsifier)
    assert trained(sparsifier, model, 40) == pytest.approx(40 * 3 * sparse, rel=1e-9)


def test_iee_costs_what_its_formula_says_but_for_what_is_pruned_in_between() -> None:
    """The formula takes the active weights for constant; a share of 1e-9 is pruned here, which is none."""
    model = seeded(Residual)
    sparsifier = IEE(model, sgd(model), total_steps=48, stages=(4, 4, 4), drop_fraction=1e-9)
    sparse, dense = forward_flops(model, sparsifier)
    cost = iee_training_cost(sparse, dense, stages=(4, 4, 4), share=0.75)
    assert trained(sparsifier, model, 48) == pytest.approx(48 * cost, rel=1e-9)


def test_gradual_pruning_costs_the_density_of_each_step() -> None:
    model = seeded(Residual)
    sparsifier = GMP(model, sgd(model), total_steps=40, update_interval=4)
    macs, expected = layer_macs(model, EXAMPLE), 0.0
    for step in range(40):
        before = {name: sparsifier.masks().density(name) for name in sparsifier.layers}
        expected += 3 * theoretical_flops(macs, before)
        train(model, sparsifier, 1, first=step)
    assert sparsifier.training_flops(macs) == pytest.approx(expected, rel=1e-9)
    state = sparsifier.state_dict()
    again = GMP(model, sgd(model), total_steps=40, update_interval=4)
    again.load_state_dict(state)
    assert again.training_flops(macs) == pytest.approx(expected, rel=1e-9)
