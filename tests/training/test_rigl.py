from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsefx.training import MaskSet, MaskUpdate, RigL

from .helpers import Plain, adam, assert_masked, backward, seeded, sgd, train


def rigl(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **options: Any) -> RigL:
    defaults: dict[str, Any] = {"total_steps": 20, "update_interval": 4}
    return RigL(model, optimizer or sgd(model), **(defaults | options))


def test_defaults_are_the_papers_with_intervals_scaled_to_short_runs() -> None:
    model = Plain()
    settings = RigL(model, sgd(model), total_steps=32_000).settings
    assert (settings.sparsity, settings.drop_fraction, settings.update_interval, settings.stop) == (0.9, 0.3, 100, 0.75)
    assert settings.distribution == "erdos_renyi_kernel"
    intervals = [RigL(model, sgd(model), total_steps=n).settings.update_interval for n in (5000, 1000, 100, 30, 1)]
    assert intervals == [100, 20, 10, 6, 1]


def test_updates_come_every_interval_until_the_end_of_exploration() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model, total_steps=40, update_interval=5)
    train(model, sparsifier, 40)
    assert [update.step for update in sparsifier.history] == [5, 10, 15, 20, 25]
    for update in sparsifier.history:
        assert update.drop_fraction == pytest.approx(0.15 * (1 + math.cos(math.pi * update.step / 30)))


def drop_and_grow(weight: NDArray[Any], mask: NDArray[Any], gradient: NDArray[Any], fraction: float) -> NDArray[Any]:
    """Algorithm 1 of RigL by the book: sort, drop, sort, grow; nothing where there is no gradient to go by."""
    if not gradient.any():
        return mask
    active = [i for i in range(mask.size) if mask[i]]
    drop = int(fraction * len(active))
    kept = sorted(active, key=lambda i: (-abs(weight[i]), i))[: len(active) - drop]
    candidates = [i for i in range(mask.size) if i not in kept]
    grown = sorted(candidates, key=lambda i: (-abs(gradient[i]), i))[:drop]
    new = np.zeros(mask.size, dtype=bool)
    new[kept + grown] = True
    return new


@given(st.integers(0, 1000), st.floats(0.3, 0.95), st.floats(0.05, 1.0))
@settings(max_examples=15, deadline=None)
def test_one_update_is_algorithm_1(seed: int, sparsity: float, alpha: float) -> None:
    model = seeded(lambda: Plain(4), seed)
    sparsifier = rigl(model, sparsity=sparsity, drop_fraction=alpha, update_interval=3)
    train(model, sparsifier, 2)
    sparsifier.zero_grad()
    backward(model, 2)
    fraction = sparsifier.settings.drop_schedule(3)
    expected = {}
    for name, layer in sparsifier.layers.items():
        assert layer.parameter.grad is not None
        flat = [t.numpy().reshape(-1) for t in (layer.weight, layer.mask, layer.parameter.grad)]
        expected[name] = drop_and_grow(flat[0], flat[1], flat[2], fraction).reshape(tuple(layer.mask.shape))
    sparsifier.step()
    assert sparsifier.masks() == MaskSet(expected)


@given(
    seed=st.integers(0, 1000),
    sparsity=st.floats(0, 0.97),
    alpha=st.floats(0.01, 1),
    interval=st.integers(1, 5),
    make=st.sampled_from([sgd, adam]),
    dense=st.sampled_from([(), ("fc",)]),
)
@settings(max_examples=15, deadline=None)
def test_invariants_after_every_step(
    seed: int, sparsity: float, alpha: float, interval: int, make: Any, dense: tuple[str, ...]
) -> None:
    model = seeded(lambda: Plain(6), seed)
    sparsifier = rigl(
        model,
        make(model),
        sparsity=min(sparsity, 0.9) if dense else sparsity,
        drop_fraction=alpha,
        update_interval=interval,
        total_steps=12,
        seed=seed,
        dense=dense,
    )
    counts = {name: int(layer.mask.sum()) for name, layer in sparsifier.layers.items()}
    previous = {name: layer.mask for name, layer in sparsifier.layers.items()}
    target = round((1 - sparsifier.settings.sparsity) * sparsifier.size)

    def check(step: int) -> None:
        assert sparsifier.nonzeros == sparsifier.target_nonzeros == target
        assert_masked(sparsifier)
        for name, layer in sparsifier.layers.items():
            assert int(layer.mask.sum()) == counts[name], "RigL keeps the sparsity of every layer"
            assert_reset(sparsifier, name, layer.mask & ~previous[name])
            previous[name] = layer.mask
            assert not (layer.kept_dense and not layer.mask.all())

    train(model, sparsifier, 12, after=check)


def assert_reset(sparsifier: RigL, name: str, grown: Tensor) -> None:
    """Weights that have just grown are zero, and so is all that the optimizer remembers of them."""
    parameter = sparsifier.layers[name].parameter
    assert not parameter[grown].any()
    for value in sparsifier.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == grown.shape:
            assert not value[grown].any()


@pytest.mark.parametrize(("make", "names"), [(sgd, 1), (adam, 3)])
def test_the_optimizer_forgets_what_was_dropped(make: Any, names: int) -> None:
    model = seeded(Plain)
    sparsifier = rigl(model, make(model), sparsity=0.5, drop_fraction=1.0)
    train(model, sparsifier, 3)
    state = {n: dict(sparsifier.state[layer.parameter]) for n, layer in sparsifier.layers.items()}
    moments = [k for k, v in state["conv2.weight"].items() if isinstance(v, Tensor) and v.ndim == 4]
    assert len(moments) == names
    before = sparsifier.masks()
    train(model, sparsifier, 1, first=3)
    after = sparsifier.masks()
    changed = before["conv2.weight"] != after["conv2.weight"]
    assert changed.any()
    parameter = sparsifier.layers["conv2.weight"].parameter
    for moment in moments:
        assert not sparsifier.state[parameter][moment][changed].any()
        assert sparsifier.state[parameter][moment][~changed].any(), "what stayed keeps its moments"


def test_a_weight_that_is_dropped_and_regrown_at_once_keeps_its_value() -> None:
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    sparsifier = rigl(model, sparsity=0.5, update_interval=1, drop_fraction=1.0)
    layer = sparsifier.layers["0.weight"]
    layer.mask = torch.tensor([[True, True, False, False]])
    with torch.no_grad():
        layer.parameter.copy_(torch.tensor([[0.1, 5.0, 0.0, 0.0]]))
    layer.parameter.grad = torch.tensor([[9.0, 0.0, 1.0, 2.0]])
    sparsifier.step()
    assert layer.mask.tolist() == [[True, True, False, False]]
    assert layer.weight.tolist() == [[pytest.approx(0.1), 5.0, 0.0, 0.0]]
    assert (sparsifier.history[0].dropped, sparsifier.history[0].grown) == (0, 0)


def test_a_layer_without_gradient_keeps_its_mask() -> None:
    model = nn.ModuleDict({"used": nn.Linear(6, 6), "unused": nn.Linear(6, 6)})
    sparsifier = rigl(model, sparsity=0.5, update_interval=1)
    before = sparsifier.masks()
    generator = torch.Generator().manual_seed(0)
    model["used"](torch.randn(3, 6, generator=generator)).square().sum().backward()
    sparsifier.step()
    after = sparsifier.masks()
    assert torch.equal(after["unused.weight"], before["unused.weight"])
    assert not torch.equal(after["used.weight"], before["used.weight"])


def test_history_counts_what_happened() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model, sparsity=0.6, update_interval=3)
    before = sparsifier.masks()
    train(model, sparsifier, 3)
    after = sparsifier.masks()
    dropped = sum(int((before[n] & ~after[n]).sum()) for n in before)
    both = sum(int((before[n] & after[n]).sum()) for n in before)
    either = sum(int((before[n] | after[n]).sum()) for n in before)
    (update,) = sparsifier.history
    assert isinstance(update, MaskUpdate)
    assert (update.step, update.dropped, update.grown) == (3, dropped, dropped)
    assert update.iou == pytest.approx(both / either)
    assert update.nonzeros == sparsifier.nonzeros
    assert update.active_channels == sum(int(mask.flatten(1).any(1).sum()) for _, mask in after.items())
    assert 0 <= update.amenable <= 1
    assert update.removed_channels == 0


def test_sparse_training_learns() -> None:
    """Four prototypes with noise: 90% sparse, but nearly always right."""
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(5, 3, 8, 8, generator=generator)
    model = seeded(Plain)
    sparsifier = rigl(model, total_steps=120, update_interval=10)
    for _ in range(120):
        labels = torch.randint(0, 5, (16,), generator=generator)
        images = prototypes[labels] + 0.5 * torch.randn(16, 3, 8, 8, generator=generator)
        sparsifier.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        sparsifier.step()
    model.eval()
    assert (model(prototypes).argmax(1) == torch.arange(5)).all()
