"""SNIP against gradients worked out by hand, GraSP against a whole Hessian, and what they share with SynFlow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import SNIP, GraSP, SynFlow
from sparsefx.training.scores import grasp_scores, snip_scores

from .helpers import Plain, batch, same_weights, seeded, sgd, train
from .references import Values, active, flat, largest_of_network, same_masks

INPUTS = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
TARGETS = torch.randn(7, 2, generator=torch.Generator().manual_seed(2))
IMAGES, LABELS = batch(0, size=8)


def tiny() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))


def squared_error(output: Tensor) -> Tensor:
    return (output - TARGETS).square().mean()


def cross_entropy(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, LABELS)


def weights_of(model: nn.Module) -> dict[str, Values]:
    return flat({name: p for name, p in model.named_parameters() if p.ndim > 1})


def snip_by_hand(model: nn.Module) -> dict[str, Values]:
    """|w * g| with the gradient of the tiny net written out."""
    w1, b1, w2, b2 = (p.detach().numpy().astype(np.float64) for p in model.parameters())
    x, t = INPUTS.numpy(), TARGETS.numpy()
    hidden = np.tanh(x @ w1.T + b1)
    d_output = 2 * (hidden @ w2.T + b2 - t) / t.size
    d_hidden = (d_output @ w2) * (1 - hidden**2)
    return {"0.weight": np.abs(w1 * (d_hidden.T @ x)).ravel(), "2.weight": np.abs(w2 * (d_output.T @ hidden)).ravel()}


def kept(scores: dict[str, Values], count: int) -> dict[str, Values]:
    return largest_of_network(scores, {name: np.ones(x.size, dtype=bool) for name, x in scores.items()}, count)


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.9])
def test_snip_keeps_the_largest_products_of_weight_and_gradient(sparsity: float) -> None:
    model = tiny()
    scores = snip_by_hand(model)
    for name, found in flat(snip_scores(model, (INPUTS,), squared_error)).items():
        assert np.allclose(found, scores[name], rtol=1e-5)
    sparsifier = SNIP(
        model, sgd(model), total_steps=5, example_inputs=(INPUTS,), loss_fn=squared_error, sparsity=sparsity
    )
    assert same_masks(sparsifier, kept(scores, round(18 * (1 - sparsity))))


def grasp_by_hessian(model: nn.Module, temperature: float) -> dict[str, Values]:
    """-w * Hg over the weights, biases left out as in the authors' code; those with the highest are removed."""
    double = copy.deepcopy(model).double()
    names = [name for name, p in double.named_parameters() if p.ndim > 1]
    shapes = [double.get_parameter(name).shape for name in names]

    def loss(vector: Tensor) -> Tensor:
        parts = [part.reshape(s) for part, s in zip(vector.split([s.numel() for s in shapes]), shapes, strict=True)]
        output = torch.func.functional_call(double, dict(zip(names, parts, strict=True)), (INPUTS.double(),))
        return squared_error(output / temperature)

    vector = torch.cat([double.get_parameter(name).detach().reshape(-1) for name in names])
    hessian: Tensor = torch.autograd.functional.hessian(loss, vector)
    gradient: Tensor = torch.autograd.functional.jacobian(loss, vector)
    scores = (-vector * (hessian @ gradient)).split([s.numel() for s in shapes])
    return {name: score.numpy() for name, score in zip(names, scores, strict=True)}


@pytest.mark.parametrize("temperature", [1.0, 200.0])
@pytest.mark.parametrize("sparsity", [0.3, 0.7])
def test_grasp_removes_the_highest_of_minus_weight_times_hessian_times_gradient(
    temperature: float, sparsity: float
) -> None:
    model = tiny()
    scores = grasp_by_hessian(model, temperature)
    highest = max(score.max() for score in scores.values())
    for name, found in flat(grasp_scores(model, (INPUTS,), squared_error, temperature)).items():
        assert np.allclose(found, highest - scores[name], rtol=1e-3, atol=1e-3 * highest)
    options: dict[str, Any] = {"temperature": temperature} if temperature != 200 else {}
    sparsifier = GraSP(
        model, sgd(model), total_steps=5, example_inputs=(INPUTS,), loss_fn=squared_error, sparsity=sparsity, **options
    )
    to_keep = kept({name: highest - score for name, score in scores.items()}, round(18 * (1 - sparsity)))
    assert same_masks(sparsifier, to_keep)


def test_the_temperature_decides() -> None:
    model = tiny()
    masks = [kept({n: -s for n, s in grasp_by_hessian(model, t).items()}, 9) for t in (1.0, 200.0)]
    assert not all(np.array_equal(masks[0][name], masks[1][name]) for name in masks[0])


class WithDropout(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.3, self.training))


BUILDS: dict[str, Callable[..., Any]] = {
    "SNIP": lambda model, **options: SNIP(
        model, sgd(model), total_steps=5, **{"example_inputs": (IMAGES,), "loss_fn": cross_entropy, **options}
    ),
    "GraSP": lambda model, **options: GraSP(
        model, sgd(model), total_steps=5, **{"example_inputs": (IMAGES,), "loss_fn": cross_entropy, **options}
    ),
    "SynFlow": lambda model, **options: SynFlow(
        model, sgd(model), total_steps=5, **{"example_inputs": (IMAGES,), "rounds": 5, **options}
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_scoring_leaves_nothing_behind_but_the_mask(build: Callable[..., Any], training: bool) -> None:
    model = seeded(WithDropout).train(training)
    cross_entropy(model(IMAGES)).backward()
    model.get_parameter("conv3.weight").requires_grad_(False)
    before = copy.deepcopy(model)
    gradients = {name: copy.deepcopy(p.grad) for name, p in model.named_parameters()}
    random = torch.get_rng_state()
    sparsifier = build(model)
    assert torch.equal(torch.get_rng_state(), random)
    for name, layer in sparsifier.layers.items():
        before.get_parameter(name).data.mul_(layer.mask)
    assert same_weights(model, before), "weights, biases, BatchNorm's parameters and statistics"
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["conv3.weight"]


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_the_mask_stays_and_counts_layers_that_are_kept_dense(build: Callable[..., Any]) -> None:
    model = seeded(Plain)
    sparsifier = build(model, dense=["fc"], sparsity=0.8)
    masks = sparsifier.masks()
    assert masks.density("fc.weight") == 1.0
    assert sum(len(active(mask)) for mask in flat(dict(masks)).values()) == round(sparsifier.size * 0.2)
    train(model, sparsifier, 5)
    assert sparsifier.masks() == masks and sparsifier.history == []


@pytest.mark.parametrize("name", ["SNIP", "GraSP"])
@pytest.mark.parametrize(
    ("loss_fn", "found"),
    [
        (lambda logits: F.cross_entropy(logits, LABELS, reduction="none"), r"shape \(8,\)"),
        (lambda logits: cross_entropy(logits).detach(), r"shape \(\)"),
        (lambda logits: cross_entropy(logits).item(), "float"),
    ],
)
def test_a_loss_that_is_not_one_number_of_the_weights_is_refused(
    name: str, loss_fn: Callable[[Tensor], Tensor], found: str
) -> None:
    message = f"loss_fn must return one number that depends on the weights, found {found}"
    with pytest.raises(SparsefxError, match=message):
        BUILDS[name](seeded(Plain), loss_fn=loss_fn)


def test_grasp_needs_one_tensor_of_logits() -> None:
    class Pair(Plain):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x

    with pytest.raises(SparsefxError, match="must be one tensor of logits, found tuple"):
        BUILDS["GraSP"](seeded(Pair))
    assert BUILDS["SNIP"](seeded(Pair), loss_fn=lambda output: cross_entropy(output[0])).sparsity > 0.8
    assert BUILDS["SynFlow"](seeded(Pair)).sparsity > 0.8


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("GraSP", {"temperature": 0.0}, "temperature must be positive, found 0.0"),
        ("SynFlow", {"rounds": 0}, "rounds must be positive, found 0"),
        ("SNIP", {"sparsity": -0.1}, r"sparsity must be in \[0, 1\), found -0.1"),
    ],
)
def test_settings_that_make_no_sense(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SparsefxError, match=message):
        BUILDS[name](seeded(Plain), **options)
