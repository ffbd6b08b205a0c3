"""SRigL against a reference written with loops, and what its options promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import SRigL
from sparsefx.training.initial_masks import layer_budgets

from .helpers import Plain, backward, seeded, sgd, train

Rows = NDArray[Any]


def srigl(model: nn.Module, **options: Any) -> SRigL:
    return SRigL(model, sgd(model), **{"total_steps": 40, "update_interval": 3, **options})


def one_layer(
    weight: Rows, mask: Rows, gradient: Rows, budget: int, base: int, fraction: float, gamma: float, ablates: bool
) -> Rows:
    """Steps 1 to 7 of section 3 for rows of (neurons, inputs); `base` is the layer's own budget."""
    neurons, inputs = weight.shape
    exchanged = int(fraction * mask.sum())
    active = sorted(zip(*np.nonzero(mask), strict=True), key=lambda p: (-abs(weight[p]), p))
    masked = sorted(zip(*np.nonzero(~mask), strict=True), key=lambda p: (-abs(gradient[p]), p))
    kept = set(active[: len(active) - exchanged])
    salient = kept | set(masked[:exchanged])
    counts = [sum(1 for neuron, _ in salient if neuron == n) for n in range(neurons)]
    order = sorted(range(neurons), key=lambda n: (-counts[n], n))
    number = neurons
    if ablates:
        threshold = max(1, int(gamma * base / neurons))
        fewest = min(max(1, -(-budget // inputs)), neurons)
        number = max(sum(count >= threshold for count in counts), fewest)
        number = min(number, max(fewest, min(neurons, budget)))
    fan_in = min(max(budget // number, 1), inputs)
    new = np.zeros_like(mask)
    for n in order[:number]:
        own = sorted((i for neuron, i in kept if neuron == n), key=lambda i: (-abs(weight[n, i]), i))[:fan_in]
        others = sorted((i for i in range(inputs) if i not in own), key=lambda i: (-abs(gradient[n, i]), i))
        new[n, own + others[: fan_in - len(own)]] = True
    return new


@given(
    seed=st.integers(0, 1000),
    sparsity=st.floats(0.4, 0.97),
    alpha=st.floats(0.05, 1.0),
    gamma=st.floats(0, 1),
    ablation=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_one_update_is_the_procedure_of_section_3(
    seed: int, sparsity: float, alpha: float, gamma: float, ablation: bool
) -> None:
    model = seeded(lambda: Plain(4), seed)
    sparsifier = srigl(model, sparsity=sparsity, drop_fraction=alpha, gamma=gamma, ablation=ablation, seed=seed)
    train(model, sparsifier, 2)
    sparsifier.zero_grad()
    backward(model, 2)
    for layer in sparsifier.layers.values():
        assert layer.parameter.grad is not None
        layer.parameter.grad += 1e-7 * torch.randn(layer.mask.shape)  # no two alike, dead neurons included
    fraction, left, expected = sparsifier.settings.drop_schedule(3), 0, {}
    target = round(sparsifier.size * (1 - sparsity))
    for name, base in layer_budgets(sparsifier.layers, "erdos_renyi_kernel", target).items():
        layer = sparsifier.layers[name]
        assert layer.parameter.grad is not None
        if base == layer.mask.numel():
            expected[name] = np.ones((len(layer.mask), layer.mask[0].numel()), dtype=bool)
            continue
        weight, mask, gradient = (
            layer.layout.rows(t).numpy() for t in (layer.weight, layer.mask, layer.parameter.grad)
        )
        ablates = ablation and name != "fc.weight"
        expected[name] = one_layer(weight, mask, gradient, base + left, base, fraction, gamma, ablates)
        left += base - int(expected[name].sum())
    sparsifier.step()
    for name, layer in sparsifier.layers.items():
        assert np.array_equal(layer.layout.rows(layer.mask).numpy(), expected[name]), name
    assert sparsifier.remainder == left


def test_a_neuron_without_salient_weights_is_ablated_and_may_return() -> None:
    model = nn.Sequential(nn.Linear(8, 4, bias=True), nn.ReLU(), nn.Linear(4, 2))
    sparsifier = srigl(model, sparsity=0.5, distribution="uniform", update_interval=1, stop=1.0)
    layer = sparsifier.layers["0.weight"]

    def update(gradient_of_first: float) -> list[int]:
        for parameter in model.parameters():
            parameter.grad = torch.rand(parameter.shape) * 0.01 + 0.01
        with torch.no_grad():
            layer.parameter.copy_(torch.rand(4, 8) + 1)
            layer.parameter[0] = 0.001
        assert layer.parameter.grad is not None
        layer.parameter.grad[0] = gradient_of_first
        sparsifier.step()
        return layer.mask.sum(1).tolist()

    assert update(0.0) == [0, 5, 5, 5], "16 weights on three neurons, one goes on to the next layer"
    assert sparsifier.layers["2.weight"].mask.sum() == 4 and sparsifier.remainder == 1
    assert model.get_parameter("0.bias").all(), "biases stay"
    assert update(1.0)[0] > 0


def test_the_last_layer_keeps_its_neurons_unless_told_otherwise() -> None:
    def ablated(**options: Any) -> dict[str, int]:
        model = seeded(Plain)
        sparsifier = srigl(model, gamma=1.0, sparsity=0.6, distribution="uniform", **options)
        train(model, sparsifier, 12)
        return {n: int((~x.layout.rows(x.mask).any(1)).sum()) for n, x in sparsifier.layers.items()}

    usual = ablated()
    assert usual["fc.weight"] == 0 and usual["conv2.weight"] > 0
    assert ablated(no_ablation=["conv2"])["conv2.weight"] == 0
    assert ablated(no_ablation=["conv1"])["fc.weight"] > 0
    assert set(ablated(ablation=False).values()) == {0}


def test_blocks_that_do_not_fit_are_named() -> None:
    sparsifier = srigl(seeded(Plain), block=4, sparsity=0.5)
    assert sparsifier.unblocked == ["conv1.weight"], "27 inputs; the others have 72, 16 and 16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], found 1.5"),
        ({"block": 1}, "block must be at least 2 inputs, found 1"),
        ({"no_ablation": ["head"]}, "no_ablation pattern 'head' matches none of conv1.weight, conv2.weight"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SparsefxError, match=message):
        srigl(Plain(), **options)


def test_masks_carry_their_fan_in() -> None:
    model = seeded(Plain)
    sparsifier = srigl(model, sparsity=0.8)
    train(model, sparsifier, 12)
    masks = sparsifier.masks()
    for name in masks:
        structure = masks.structure(name)
        counts = set(masks[name].flatten(1).sum(1).tolist()) - {0}
        assert structure.kind == "dense" or (structure.kind, {structure.fan_in}) == ("constant_fan_in", counts)
