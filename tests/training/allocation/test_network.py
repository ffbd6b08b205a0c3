"""Costs of networks against those of networks that are built smaller."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefx.training.allocation.costs import FLOPs, LayerCosts, Memory, Parameters
from sparsefx.training.allocation.model import network_costs
from sparsefx.training.allocation.network import at_inputs
from sparsefx.training.allocation.separable import solve_separable
from sparsefx.training.allocation.solve import solve
from sparsefx.training.flops import layer_macs

from ..helpers import Residual
from .problems import best_of_all


class Mixed(nn.Module):
    """A residual sum, a concatenation of three, a depthwise and a transposed convolution, and a flattened map."""

    def __init__(self, stem: int = 4, a: int = 3, b: int = 5, wide: int = 6, up: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, 2, 1)
        self.inner = nn.Conv2d(stem, stem, 3, padding=1)
        self.a = nn.Conv2d(stem, a, 1)
        self.b = nn.Conv2d(a + stem, b, 3, padding=1)
        self.wide = nn.Conv2d(stem + a + b, wide, 1, bias=False)
        self.depth = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.up = nn.ConvTranspose2d(wide, up, 2, 2)
        self.fc = nn.Linear(up * 64, 7)

    def forward(self, x: Tensor) -> Tensor:
        stem = F.relu(self.stem(x))
        stem = stem + F.relu(self.inner(stem))
        a = F.relu(self.a(stem))
        b = F.relu(self.b(torch.cat([a, stem], 1)))
        y = F.relu(self.depth(F.relu(self.wide(torch.cat([stem, a, b], 1)))))
        logits: Tensor = self.fc(self.up(y).flatten(1))
        return logits


EXAMPLE = (torch.zeros(2, 3, 8, 8),)
SMALLER = {"stem": 2, "a": 1, "b": 4, "wide": 5, "up": 3}


@pytest.mark.parametrize("costs", [FLOPs(), Parameters(), Memory()])
def test_the_cost_of_widths_is_that_of_a_network_built_with_them(costs: LayerCosts) -> None:
    whole = network_costs(Mixed(), EXAMPLE, costs)
    small = network_costs(Mixed(**SMALLER), EXAMPLE, costs)
    assert [kind.name for kind in whole.kinds] == list(SMALLER)
    kept = list(SMALLER.values())
    assert whole.cost(kept) == small.cost(small.full) < whole.cost(whole.full)
    assert sum(whole.by_layer(kept).values()) == pytest.approx(whole.cost(kept))
    assert set(whole.by_layer(kept)) == {layer for layer, _ in Mixed().named_parameters() if layer.endswith("weight")}


def test_costs_of_the_dense_network_are_counted_elsewhere_too() -> None:
    model = Mixed()
    assert network_costs(model, EXAMPLE, Parameters()).cost([4, 3, 5, 6, 4]) == sum(
        p.numel() for p in model.parameters()
    )
    flops = 2 * len(EXAMPLE[0]) * sum(layer_macs(model, EXAMPLE).values())
    assert network_costs(model, EXAMPLE, FLOPs()).cost([4, 3, 5, 6, 4]) == flops


def test_a_network_is_solved_to_the_optimum() -> None:
    whole = network_costs(Mixed(), EXAMPLE, FLOPs())
    rng = np.random.default_rng(0)
    problem = whole.choose([rng.random(n) for n in whole.full])
    budget = 0.4 * whole.cost(whole.full)
    found = solve(problem, budget)
    assert found.optimal and found.value == pytest.approx(best_of_all(problem, budget))
    assert whole.cost([found.kept[kind.name] for kind in whole.kinds]) == pytest.approx(found.cost)


def test_holding_what_layers_read_makes_costs_separable() -> None:
    whole = network_costs(Residual(), EXAMPLE, FLOPs())
    problem = whole.choose([np.ones(n) for n in whole.full])
    last = [size - 1 for size in problem.sizes]
    held = at_inputs(problem, last)
    assert held.is_separable and not problem.is_separable
    assert held.cost(last) == problem.cost(last)
    found = solve_separable(held, 0.6 * problem.cost(last))
    assert found.value == pytest.approx(best_of_all(held, 0.6 * problem.cost(last)))


def test_counts_are_few_and_concatenated_ones_evenly_spaced() -> None:
    whole = network_costs(Mixed(stem=16, a=40, b=24, wide=32), EXAMPLE, FLOPs(), choices=8)
    assert list(whole.counts(3, 1, 32)) == [1, 4, 8, 12, 16, 20, 24, 28, 32]
    assert list(whole.counts(3, 5, 11)) == [5, 8, 11]
    concatenated = [np.diff(whole.counts(kind, 16, whole.full[kind])) for kind in (1, 2)]
    assert all(set(d[:-1]) <= {16} for d in concatenated)
    for small, large in pairwise((4, 16)):
        few, many = (network_costs(Mixed(wide=64), EXAMPLE, FLOPs(), choices=c) for c in (small, large))
        assert len(few.counts(3, 1, 64)) < len(many.counts(3, 1, 64))
