"""Sparsifiers in other precisions, and on models that torch.compile has been at."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from .helpers import Plain, adam, assert_masked, assert_sound, batch, same_weights, seeded, sgd, train
from .methods import BY_NAME, STEPS, Case, every_method, some_methods


@every_method
def test_mixed_precision(case: Case) -> None:
    model = seeded(Plain)
    sparsifier = case(model, adam(model))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(STEPS):
        images, labels = batch(step)
        sparsifier.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(sparsifier)
        sparsifier.mask_gradients()
        assert nn.utils.clip_grad_norm_(model.parameters(), 1.0).isfinite()
        scaler.step(sparsifier)
        scaler.update()
        assert_sound(sparsifier)
    assert sparsifier.step_count == STEPS and loss.isfinite()


@every_method
def test_weights_of_16_bits(case: Case) -> None:
    model = seeded(Plain).bfloat16()
    sparsifier = case(model, **case.inputs_as(torch.bfloat16))
    for step in range(STEPS):
        images, labels = batch(step)
        sparsifier.zero_grad()
        F.cross_entropy(model(images.bfloat16()), labels).backward()
        sparsifier.step()
        assert_sound(sparsifier)
    assert all(p.dtype == torch.bfloat16 and p.isfinite().all() for p in model.parameters())


@every_method
def test_channels_last(case: Case) -> None:
    model = seeded(Plain)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sparsifier = case(model)
    for step in range(STEPS):
        images, labels = batch(step)
        sparsifier.zero_grad()
        F.cross_entropy(model(images.to(memory_format=torch.channels_last)), labels).backward()
        sparsifier.step()
        assert_sound(sparsifier)
    weight = dict(model.named_parameters())["conv2.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.parametrize("make", [sgd, adam])
@some_methods
def test_a_change_of_precision_in_the_middle(case: Case, make: Callable[[nn.Module], torch.optim.Optimizer]) -> None:
    model = seeded(Plain)
    sparsifier = case(model, make(model))
    train(model, sparsifier, 16)
    masks = sparsifier.masks()
    model.double()
    sparsifier.load_state_dict(copy.deepcopy(sparsifier.state_dict()))
    assert sparsifier.masks().equals(masks)
    for step in range(16, STEPS):
        images, labels = batch(step)
        sparsifier.zero_grad()
        F.cross_entropy(model(images.double()), labels).backward()
        sparsifier.step()
        assert_sound(sparsifier)
    assert all(p.dtype == torch.float64 and p.isfinite().all() for p in model.parameters())


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@some_methods
def test_compiled_models_train_as_others_do(case: Case) -> None:
    model, plain = seeded(Plain), seeded(Plain)
    compiled = torch.compile(model, backend="eager")
    sparsifier, reference = case(compiled), case(plain)
    train(compiled, sparsifier, 20)
    train(plain, reference, 20)
    assert list(sparsifier.masks()) == [name for name, _ in model.named_parameters() if name in reference.layers]
    assert sparsifier.masks().equals(reference.masks())
    assert same_weights(model, plain)


def compiler_problem() -> str:
    """Why torch.compile cannot build code for the CPU here, or nothing."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        return f"torch.compile finds no C++ compiler: {type(error).__name__}"
    return ""


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("_fresh_compiler")
def test_models_compiled_by_default_train() -> None:
    problem = compiler_problem()
    if problem:
        pytest.skip(problem)
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5)))
    compiled = torch.compile(model)
    sparsifier = BY_NAME["RigL"](compiled)
    train(compiled, sparsifier, 20, after=lambda step: assert_masked(sparsifier))
    assert list(sparsifier.masks()) == ["1.weight", "3.weight"]
    assert len(sparsifier.history) == 6 and sparsifier.nonzeros == sparsifier.target_nonzeros
