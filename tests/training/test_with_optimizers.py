"""Every optimizer of torch, and some that are not: what is masked is zero after every step, with its state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from sparsefx.training import Sparsifier
from sparsefx.training.zero_keepers import _ZERO_KEEPERS, keeps_zeros

from .helpers import Plain, assert_masked, backward, seeded, train
from .methods import CASES, Case

STEPS = 20
METHODS = {case.name: case for case in CASES}
SOME = ("SET", "RigL", "SRigL", "GraNet, sparse to sparse", "Chase", "IEE", "Campfire, combined", "Random")


class Noisy(optim.SGD):
    """Adds noise to every weight, as training with differential privacy or for flat minima may."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(torch.randn_like(p), alpha=1e-3)
        return loss


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "Adam": lambda p: optim.Adam(p, lr=1e-2, weight_decay=1e-2),
    "AdamW": lambda p: optim.AdamW(p, lr=1e-2, amsgrad=True, weight_decay=0.1),
    "NAdam": lambda p: optim.NAdam(p, lr=1e-2, weight_decay=1e-2),
    "RAdam": lambda p: optim.RAdam(p, lr=1e-2, weight_decay=1e-2),
    "RMSprop": lambda p: optim.RMSprop(p, lr=1e-3, centered=True, momentum=0.9, weight_decay=1e-2),
    "Adadelta": lambda p: optim.Adadelta(p, weight_decay=1e-2),
    "Adagrad": lambda p: optim.Adagrad(p, initial_accumulator_value=0.1, weight_decay=1e-2),
    "Adamax": lambda p: optim.Adamax(p, lr=1e-2, weight_decay=1e-2),
    "Rprop": lambda p: optim.Rprop(p, lr=1e-3),
    "ASGD": lambda p: optim.ASGD(p, lr=0.05, t0=0, weight_decay=1e-2),
    "Adafactor": lambda p: optim.Adafactor(p, weight_decay=0.1),
    "noise": lambda p: Noisy(p, lr=0.05, momentum=0.9),
}


@pytest.mark.parametrize("method", SOME)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_masked_is_zero_after_every_step(method: str, optimizer: str) -> None:
    model = seeded(Plain)
    check(METHODS[method], model, OPTIMIZERS[optimizer](list(model.parameters())))


@pytest.mark.parametrize("method", SOME)
def test_muon_trains_matrices(method: str) -> None:
    def build() -> nn.Module:
        hidden = [nn.Linear(192, 16, bias=False), nn.ReLU(), nn.Linear(16, 16, bias=False), nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(16, 5, bias=False))

    model = seeded(build)
    check(METHODS[method], model, optim.Muon(model.parameters(), lr=1e-2))


def check(case: Case, model: nn.Module, optimizer: Optimizer) -> None:
    sparsifier = case(model, optimizer)
    start = [p.detach().clone() for p in model.parameters()]
    before = masks_of(sparsifier)

    def after(step: int) -> None:
        nonlocal before
        if not sparsifier.exploring:
            assert_masked(sparsifier)
            assert_grown_from_zero(sparsifier, before)
        before = masks_of(sparsifier)

    train(model, sparsifier, STEPS, after=after)
    for old, parameter in zip(start, model.parameters(), strict=True):
        assert parameter.isfinite().all() and not torch.equal(parameter, old)


def masks_of(sparsifier: Sparsifier) -> dict[str, Tensor]:
    return {name: layer.mask.clone() for name, layer in sparsifier.layers.items()}


def assert_grown_from_zero(sparsifier: Sparsifier, before: dict[str, Tensor]) -> None:
    """The state of grown weights is zero, and so are they but for IEE, which has explored them."""
    for name, layer in sparsifier.layers.items():
        grown = layer.mask & ~before[name]
        assert type(sparsifier).__name__ == "IEE" or not layer.weight[grown].any()
        for key, value in sparsifier.state.get(layer.parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == grown.shape:
                assert not value[grown].any(), (name, key)


FLAGS = {
    "weight_decay": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "amsgrad": True,
    "centered": True,
    "maximize": True,
    "decoupled_weight_decay": True,
}


def variants(kind: type[Optimizer]) -> Iterator[dict[str, Any]]:
    """Every combination of an optimizer's options, in each of its implementations."""
    known = inspect.signature(kind).parameters
    flags = [flag for flag in FLAGS if flag in known]
    implementations: list[dict[str, Any]] = [{"foreach": False}, {"foreach": True}]
    implementations += [{"fused": True}] if "fused" in known else []
    for size in range(len(flags) + 1):
        for chosen in combinations(flags, size):
            if "nesterov" not in chosen or "momentum" in chosen:
                yield from ({**{flag: FLAGS[flag] for flag in chosen}, **how} for how in implementations)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", _ZERO_KEEPERS)
def test_zero_keepers_keep_zeros_with_every_option(kind: type[Optimizer], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(6, 5, generator=generator) < 0.5
    for options in variants(kind):
        weight = nn.Parameter((torch.randn(6, 5, generator=generator) * mask).to(dtype))
        optimizer = kind([weight], lr=0.1, **options)  # type: ignore[call-arg]
        is_broken = kind is optim.SGD and "fused" in options and dtype == torch.bfloat16  # pytorch's issue 191763
        assert keeps_zeros(optimizer) != is_broken
        if is_broken:
            continue
        for _ in range(4):
            weight.grad = (100 * torch.randn(6, 5, generator=generator) * mask).to(dtype)
            optimizer.step()
        assert weight[mask].any() and not weight[~mask].any(), options
        for key, value in optimizer.state[weight].items():
            assert not isinstance(value, Tensor) or value.ndim == 0 or not value[~mask].any(), (options, key)


@pytest.mark.parametrize("kind", [kind for kind in _ZERO_KEEPERS if kind is not optim.SGD])
@pytest.mark.parametrize(("eps", "dtype"), [(0.0, torch.float32), (1e-9, torch.float16)])
def test_weights_survive_an_eps_of_zero(kind: type[Optimizer], eps: float, dtype: torch.dtype) -> None:
    weight = nn.Linear(8, 8, bias=False).to(dtype)
    optimizer = kind(weight.parameters(), lr=1e-3, eps=eps)  # type: ignore[call-arg]
    assert not keeps_zeros(optimizer)
    sparsifier = METHODS["Random"](weight, optimizer)
    for _ in range(3):
        weight.weight.grad = torch.ones(8, 8, dtype=dtype)
        sparsifier.step()
        assert_masked(sparsifier)
        assert weight.weight.isfinite().all()


def test_hooks_of_the_wrapped_optimizer_may_write_to_weights() -> None:
    def noise(optimizer: Optimizer, *_: object) -> None:
        with torch.no_grad():
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.add_(torch.randn_like(parameter), alpha=1e-2)

    model = seeded(Plain)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = METHODS["RigL"](model, optimizer)
    optimizer.register_step_post_hook(noise)
    train(model, sparsifier, 5, after=lambda step: assert_masked(sparsifier))


def test_hooks_of_the_wrapped_optimizer_may_write_to_gradients() -> None:
    def noise(optimizer: Optimizer, *_: object) -> None:
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.add_(torch.randn_like(parameter))

    model = seeded(Plain)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    sparsifier = METHODS["RigL"](model, optimizer)
    optimizer.register_step_pre_hook(noise)
    train(model, sparsifier, 5, after=lambda step: assert_masked(sparsifier))


def test_a_subclass_may_do_anything() -> None:
    assert keeps_zeros(optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
    assert not keeps_zeros(Noisy([nn.Parameter(torch.zeros(1))], lr=0.1))


def test_optimizers_with_groups_of_their_own_options() -> None:
    model = Plain()
    groups = [
        {"params": [model.conv1.weight, model.conv2.weight], "lr": 0.1, "weight_decay": 0.1},
        {"params": [p for name, p in model.named_parameters() if name not in ("conv1.weight", "conv2.weight")]},
    ]
    sparsifier = METHODS["RigL"](model, optim.AdamW(groups, lr=1e-3))
    backward(model, 0)
    sparsifier.step()
    assert [group["lr"] for group in sparsifier.param_groups] == [0.1, 1e-3]
    assert_masked(sparsifier)
