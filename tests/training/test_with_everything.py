"""Sparsifiers together with what else trainings are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sparsefx.training.exploring import ExploringSparsifier

from .helpers import Plain, assert_sound, backward, batch, same_weights, seeded, sgd, smooth, train
from .methods import BY_NAME, STEPS, Case, every_method, some_methods


@every_method
def test_clipping_sees_the_gradients_that_the_optimizer_sees(case: Case) -> None:
    model = seeded(Plain)
    sparsifier = case(model)
    for step in range(STEPS):
        sparsifier.zero_grad()
        backward(model, step)
        sparsifier.mask_gradients()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        clipped = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        sparsifier.step()
        seen = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert seen.keys() == clipped.keys()
        assert all(torch.equal(seen[name], gradient) for name, gradient in clipped.items()), step
        assert_sound(sparsifier)


@every_method
def test_accumulated_gradients_are_those_of_one_large_batch(case: Case) -> None:
    model, plain = smooth(), smooth()
    sparsifier, reference = (case(each, **case.inputs_as(torch.double)) for each in (model, plain))
    for step in range(STEPS):
        images, labels = batch(step, size=6)
        for optimizer in (sparsifier, reference):
            optimizer.zero_grad()
        for part in (slice(0, 3), slice(3, 6)):
            (F.cross_entropy(model(images[part].double()), labels[part]) / 2).backward()
        F.cross_entropy(plain(images.double()), labels).backward()
        for optimizer in (sparsifier, reference):
            optimizer.step()
        assert sparsifier.masks().equals(reference.masks()), step
    torch.testing.assert_close(model.state_dict(), plain.state_dict())


@every_method
def test_averaged_copies_are_put_on_the_masks(case: Case) -> None:
    model = seeded(Plain)
    sparsifier = case(model)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    train(model, sparsifier, STEPS, after=lambda step: ema.update_parameters(model))
    before = {name: p.detach().clone() for name, p in ema.module.named_parameters()}
    sparsifier.mask_copy(ema)
    for name, average in ema.module.named_parameters():
        mask = sparsifier.layers[name].mask if name in sparsifier.layers else torch.ones_like(average, dtype=bool)
        assert torch.equal(average, before[name] * mask), name
        assert torch.equal(average != 0, mask & (before[name] != 0)), name
    images, _ = batch(0)
    assert ema(images).isfinite().all()


def loaded(model: nn.Module, values: dict[str, Tensor]) -> None:
    model.load_state_dict(values)


@torch.no_grad()
def copied(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(values[name])


@torch.no_grad()
def put_in_place(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.data = values[name].clone()


@pytest.mark.parametrize("load", [loaded, copied, put_in_place])
@every_method
def test_a_dense_checkpoint_is_masked_at_the_next_step(
    case: Case, load: Callable[[nn.Module, dict[str, Tensor]], None]
) -> None:
    model = seeded(Plain)
    sparsifier = case(model)
    for moment in range(STEPS):
        dense = seeded(Plain, seed=moment).state_dict()
        load(model, dense)
        old, exploring = sparsifier.masks(), sparsifier.exploring
        train(model, sparsifier, 1, first=moment)
        assert_sound(sparsifier)
        for name, layer in sparsifier.layers.items():
            grown = layer.mask & ~old[name]
            assert isinstance(sparsifier, ExploringSparsifier) or not layer.weight[grown].any(), (
                "what grows starts at zero"
            )
            if exploring:
                assert torch.equal(layer.weight[old[name]], dense[name][old[name]]), "what is frozen is what was loaded"


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=10),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=3),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[3]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_set_what_they_would_set_for_the_optimizer(name: str) -> None:
    model, dense = seeded(Plain), seeded(Plain)
    sparsifier, optimizer = BY_NAME["RigL"](model), sgd(dense)
    schedulers = SCHEDULERS[name](sparsifier), SCHEDULERS[name](optimizer)
    for step in range(8):
        train(model, sparsifier, 1, first=step)
        train(dense, optimizer, 1, first=step)
        for scheduler in schedulers:
            scheduler.step()
        ours, theirs = sparsifier.optimizer.param_groups[0], optimizer.param_groups[0]
        assert (ours["lr"], ours["momentum"]) == (theirs["lr"], theirs["momentum"])
    state = schedulers[0].state_dict()
    again = SCHEDULERS[name](BY_NAME["RigL"](seeded(Plain)))
    again.load_state_dict(state)
    assert again.get_last_lr() == schedulers[0].get_last_lr()


def test_a_scheduler_that_waits_for_a_plateau() -> None:
    model = seeded(Plain)
    sparsifier = BY_NAME["RigL"](model)
    scheduler = lr_scheduler.ReduceLROnPlateau(sparsifier, patience=0)
    train(model, sparsifier, 4, after=lambda step: scheduler.step(1.0))
    assert sparsifier.optimizer.param_groups[0]["lr"] < 0.05


@some_methods
def test_moving_a_model_to_where_it_is_changes_nothing(case: Case) -> None:
    model, plain = seeded(Plain), seeded(Plain)
    sparsifier, reference = case(model), case(plain)
    train(model, sparsifier, STEPS, after=lambda step: model.to("cpu"))
    train(plain, reference, STEPS)
    assert same_weights(model, plain)
