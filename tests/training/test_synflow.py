"""SynFlow against the sum over all paths of a small chain of layers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparsefx.training import SynFlow
from sparsefx.training.scores import synflow_scores

from .helpers import EXAMPLE, Plain, batch, seeded, sgd
from .references import Values, flat, largest_of_network, same_masks


def chain() -> nn.Module:
    """Positive inputs pass ReLUs unchanged."""
    layers = [nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, False)]
    return seeded(lambda: nn.Sequential(*layers))


def flow_of_paths(weights: dict[str, Values]) -> dict[str, Values]:
    """For every weight of the chain, the sum over all paths through it of the product of |w| along them."""
    sizes, names = (5, 4, 3, 2), list(weights)
    flow = {name: np.zeros_like(value, dtype=np.float64) for name, value in weights.items()}
    for path in itertools.product(*(range(size) for size in sizes)):
        places = [path[i + 1] * sizes[i] + path[i] for i in range(3)]
        product = np.prod([abs(float(weights[name][place])) for name, place in zip(names, places, strict=True)])
        for name, place in zip(names, places, strict=True):
            flow[name][place] += product
    return flow


def test_synaptic_flow_is_the_sum_over_paths() -> None:
    model = chain()
    found = flat(synflow_scores(model, (torch.randn(3, 5),), {}))
    expected = flow_of_paths(flat(dict(model.named_parameters())))
    largest = max(value.max() for value in expected.values())
    for name, value in expected.items():
        assert np.allclose(found[name], value / largest, rtol=1e-5)
    assert found.keys() == expected.keys()


@pytest.mark.parametrize(("rounds", "sparsity"), [(1, 0.5), (3, 0.6), (7, 0.8)])
def test_synflow_prunes_in_rounds_and_scores_what_is_left(rounds: int, sparsity: float) -> None:
    model = chain()
    weights = flat(dict(model.named_parameters()))
    masks = {name: np.ones(value.size, dtype=bool) for name, value in weights.items()}
    for number in range(1, rounds + 1):
        scores = flow_of_paths({name: weights[name] * masks[name] for name in weights})
        masks = largest_of_network(scores, masks, round(38 * (1 - sparsity) ** (number / rounds)))
    sparsifier = SynFlow(
        model,
        sgd(model),
        total_steps=5,
        example_inputs=(torch.zeros(1, 5),),
        rounds=rounds,
        sparsity=sparsity,
    )
    assert same_masks(sparsifier, masks)


def test_rounds_keep_layers_from_collapsing() -> None:
    """A layer conserves the flow, so that each weight of the widest has least of it."""

    def emptied(**options: Any) -> list[str]:
        model = seeded(lambda: nn.Sequential(nn.Linear(4, 40), nn.Linear(40, 40), nn.Linear(40, 3)))
        sparsifier = SynFlow(
            model, sgd(model), total_steps=5, sparsity=0.97, example_inputs=(torch.zeros(1, 4),), **options
        )
        return [name for name, layer in sparsifier.layers.items() if not layer.mask.any()]

    assert emptied(rounds=1) == ["1.weight"]
    assert emptied() == []


def test_synflow_sees_the_shape_of_the_data_only() -> None:
    masks = []
    for images in (EXAMPLE[0], batch(0)[0], 100 * batch(1)[0][:1]):
        model = seeded(Plain)
        masks.append(SynFlow(model, sgd(model), total_steps=5, example_inputs=(images,), rounds=5).masks())
    assert masks[0] == masks[1] == masks[2]
