"""What must hold after every step of every method, whatever model, optimizer, seed and sparsity."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsefx.training import HALP, IEE, Campfire, ChannelIEE, Chase, Sparsifier, SRigL
from sparsefx.training.channel_method import ChannelMethod
from sparsefx.training.exploring import ExploringSparsifier
from sparsefx.training.flops import dense_hardware_flops, layer_macs
from sparsefx.training.methods.campfire import CampfireSettings

from .helpers import EXAMPLE, Plain, Residual, adam, assert_masked, backward, same, seeded, sgd, train
from .methods import STEPS, Case, every_method

MODELS = st.sampled_from([Plain, Residual])
OPTIMIZERS = st.sampled_from([sgd, adam])


@every_method
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 100), sparsity=st.floats(0.5, 0.93), build=MODELS, optimizer=OPTIMIZERS)
def test_after_every_step(
    case: Case, seed: int, sparsity: float, build: type[nn.Module], optimizer: Callable[[nn.Module], Optimizer]
) -> None:
    model = seeded(build, seed)
    sparsity = case.options.get("sparsity", sparsity)
    options = {"sparsity": sparsity} if case.takes_sparsity else {}
    sparsifier = case(model, optimizer(model), seed=seed, **options)
    check = Checks(model, sparsifier)
    check.after(0)
    train(model, sparsifier, STEPS, first=100 * seed, after=lambda step: check.after(step))
    if isinstance(sparsifier, Chase):
        room = sum(int(allowed.sum()) for allowed in sparsifier.channels.allowed().values())
        assert sparsifier.nonzeros == min(round(sparsifier.size * (1 - sparsity)), room)
    elif isinstance(sparsifier, ChannelMethod):
        assert sparsifier.budget.cost <= sparsifier.budget.total * (1 + 1e-9), "the training ends within the budget"
    elif not isinstance(sparsifier, Campfire | SRigL) and "n_m" not in case.options:
        assert sparsifier.nonzeros == round(sparsifier.size * (1 - sparsity)), "the training ends on target"


class Checks:
    """Remembers what later steps are compared with."""

    def __init__(self, model: nn.Module, sparsifier: Sparsifier) -> None:
        self.model, self.sparsifier = model, sparsifier
        self.before = copy.deepcopy(model.state_dict())
        self.masks = sparsifier.masks()
        self.active = active_entries(sparsifier)
        self.removed = torch.zeros(0)
        self.frozen_buffers: dict[str, Tensor] = {}

    def after(self, step: int) -> None:
        sparsifier = self.sparsifier
        if not sparsifier.exploring:
            assert_masked(sparsifier)
        if not isinstance(sparsifier, Campfire):  # its patterns count whole kernels
            assert sparsifier.nonzeros == sparsifier.target_nonzeros
        for kind, check in STRUCTURE.items():
            if isinstance(sparsifier, kind):
                check(self, sparsifier)
        self.masks, self.active = sparsifier.masks(), active_entries(sparsifier)
        self.before = copy.deepcopy(self.model.state_dict())


def check_fan_in(checks: Checks, sparsifier: SRigL) -> None:
    total = sparsifier.nonzeros + sparsifier.remainder
    assert total == round(sparsifier.size * (1 - sparsifier.settings.sparsity))
    for layer in sparsifier.explored:
        counts = layer.layout.rows(layer.mask).sum(1)
        assert len(set(counts[counts > 0].tolist())) == 1, "constant over active neurons, of which there is one"
        if not sparsifier.settings.ablation:
            assert counts.min() > 0
        block, inputs = sparsifier.settings.block, layer.layout.rows(layer.mask).shape[1]
        if block and inputs % block == 0:
            parts = layer.layout.rows(layer.mask).reshape(len(counts), -1, block).sum(2)[counts > 0]
            assert (parts == parts[0, 0]).all(), "the same in every block of every active neuron"


def check_removed(checks: Checks, sparsifier: Chase) -> None:
    removed = sparsifier.channels.removed.clone()
    if len(checks.removed):
        assert (checks.removed <= removed).all(), "what is removed never returns"
    checks.removed = removed
    for name, allowed in sparsifier.channels.allowed().items():
        assert not (sparsifier.layers[name].mask & ~allowed).any()


def check_n_m(checks: Checks, sparsifier: IEE) -> None:
    estimation = sparsifier.settings.stages[0]
    place = (sparsifier.step_count - 1) % sparsifier.settings.cycle + 1
    cycling = sparsifier.step_count <= sparsifier.settings.last_step
    if sparsifier.settings.n_m is not None:
        n, m = sparsifier.settings.n_m
        for layer in sparsifier.explored:
            groups = layer.layout.grid(layer.mask).unflatten(2, (-1, m)).sum(3)
            assert groups.max() <= n
            assert groups.min() == n or (cycling and estimation <= place < sparsifier.settings.cycle)


def check_exploration(checks: Checks, sparsifier: ExploringSparsifier) -> None:
    estimation, improvement, _ = sparsifier.settings.stages
    place = (sparsifier.step_count - 1) % sparsifier.settings.cycle + 1
    exploring = sparsifier.step_count <= sparsifier.settings.last_step and place > estimation + improvement
    if sparsifier.step_count and exploring:
        assert_frozen(checks, sparsifier)
    elif sparsifier.exploring:
        checks.frozen_buffers = {name: buffer.clone() for name, buffer in checks.model.named_buffers()}


def assert_frozen(checks: Checks, sparsifier: ExploringSparsifier) -> None:
    """Nothing has moved by a bit but what was masked, and running statistics until the exploration ends."""
    for name, value in checks.model.state_dict().items():
        active = checks.active.get(name, torch.ones_like(value, dtype=torch.bool))
        if name in dict(checks.model.named_parameters()):
            assert torch.equal(value[active], checks.before[name][active]), name
        elif not sparsifier.exploring:
            assert torch.equal(value[active], checks.frozen_buffers[name][active]), name


def active_entries(sparsifier: Sparsifier) -> dict[str, Tensor]:
    """What must not move while a method explores, by name; all of what is not named here must not either."""
    active = {layer.name: layer.mask for layer in sparsifier.explored}
    if isinstance(sparsifier, ChannelIEE):
        active |= {layer.name: layer.mask for layer in sparsifier.tensors.parameters}
        active |= {name: sparsifier.tensors.active(name, b) for name, b in sparsifier.tensors.buffers.items()}
    return active


def check_budget(checks: Checks, sparsifier: ChannelMethod) -> None:
    """The masks cost what the budget says, by another count; in the course of pruning as much as is allowed then."""
    if sparsifier.settings.unit == "FLOPs":
        macs = layer_macs(checks.model, EXAMPLE)
        flops = len(EXAMPLE[0]) * dense_hardware_flops(macs, sparsifier.masks())
        assert sparsifier.budget.cost == pytest.approx(flops)
    last = sparsifier.budget_history[-1]
    assert last.cost == sparsifier.budget.cost
    least = sparsifier.budget.network.cost([1] * len(last.kept))
    assert isinstance(sparsifier, HALP) or last.cost <= max(last.budget, least) * (1 + 1e-9)
    assert min(last.kept.values()) >= 1
    removed = sparsifier.budget.channels.removed.clone()
    if isinstance(sparsifier, HALP) and len(checks.removed):
        assert (checks.removed <= removed).all(), "HALP prunes for good"
    checks.removed = removed


def check_campfire(checks: Checks, sparsifier: Campfire) -> None:
    settings = sparsifier.settings
    for layer in sparsifier.explored:
        old = checks.masks[layer.name].to(layer.mask.device)
        assert not (layer.mask & ~old).any(), "what is pruned stays so"
        if sparsifier.step_count > settings.last_step:
            assert torch.equal(layer.mask, old), "masks are fixed after the era"
        sparsity = settings.sparsity_schedule(sparsifier.step_count)
        expected, kept = campfire_count(settings, layer.layout.grid(layer.mask), sparsity), int(layer.mask.sum())
        unfed = layer.name == "fc.weight" and settings.pattern == "combined"  # the case with example_inputs
        assert kept <= expected if unfed else kept == expected, layer.name


def campfire_count(settings: CampfireSettings, grid: Tensor, sparsity: float) -> int:
    """Non-zeros of a layer by the rules of its pattern."""
    _, outputs, inputs, positions = grid.shape
    if outputs == 5 and settings.linear == "fine":  # the head
        return max(grid.numel() - int(grid.numel() * sparsity + 1e-9), outputs)
    if outputs == 5:
        rows, columns = outputs // 2, inputs // 2
        blocks = max(rows * columns - int(rows * columns * sparsity + 1e-9), rows)
        return grid.numel() - 4 * (rows * columns - blocks)
    if settings.pattern == "kernel" or positions == 1:
        return outputs * positions * (inputs - int(inputs * sparsity + 1e-9))
    if settings.pattern == "window":
        most = settings.most_in_window if settings.most_in_window and sparsity else positions
        return outputs * inputs * min(positions - int(positions * sparsity + 1e-9), most)
    inside = int(positions * 0.8 * settings.sparsity + 1e-9) / positions
    whole = 1 - (1 - settings.sparsity) / (1 - inside)
    kernels = inputs - int(inputs * whole * sparsity / settings.sparsity + 1e-9)
    return outputs * kernels * (positions - int(positions * 0.8 * sparsity + 1e-9))


STRUCTURE: dict[Any, Callable[[Checks, Any], None]] = {
    SRigL: check_fan_in,
    Chase: check_removed,
    IEE: check_n_m,
    ExploringSparsifier: check_exploration,
    ChannelMethod: check_budget,
    Campfire: check_campfire,
}


@every_method
@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("moment", [8, 15, 33])
def test_resuming_is_bit_identical(case: Case, make: Callable[[nn.Module], Optimizer], moment: int) -> None:
    model = seeded(Residual)
    sparsifier = case(model, make(model))
    train(model, sparsifier, moment)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "sparsifier": sparsifier.state_dict()}, file)
    train(model, sparsifier, STEPS - moment, first=moment)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = seeded(Residual, seed=1)
    again = case(resumed, make(resumed))
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["sparsifier"])
    train(resumed, again, STEPS - moment, first=moment)
    assert again.masks().equals(sparsifier.masks())
    assert same(resumed.state_dict(), model.state_dict())
    assert same(again.state_dict(), sparsifier.state_dict())


@every_method
def test_masks_say_how_they_were_made(case: Case) -> None:
    model = seeded(Residual)
    sparsifier = case(model, seed=3)
    train(model, sparsifier, STEPS)
    masks = sparsifier.masks()
    assert (masks.method, masks.step, masks.settings["seed"]) == (case.method, STEPS, 3)
    masks.check(model)
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())


@every_method
def test_a_copy_goes_on_by_itself(case: Case) -> None:
    model = seeded(Plain)
    sparsifier = case(model)
    train(model, sparsifier, 10)
    copied_model, copied = copy.deepcopy((model, sparsifier))
    train(model, sparsifier, 20, first=10)
    assert copied.step_count == 10
    train(copied_model, copied, 20, first=10)
    assert copied.masks().equals(sparsifier.masks())
    assert same(copied_model.state_dict(), model.state_dict())


@every_method
def test_step_hooks_run_once_a_step(case: Case) -> None:
    model = seeded(Plain)
    sparsifier = case(model)
    seen: list[str] = []
    sparsifier.register_step_post_hook(lambda *_: seen.append("after"))
    train(model, sparsifier, 5)
    assert seen == ["after"] * 5


@every_method
def test_closures(case: Case) -> None:
    model, plain = seeded(Plain), seeded(Plain)
    sparsifier, reference = case(model), case(plain)
    for step in range(STEPS):

        def closure(step: int = step) -> float:
            sparsifier.zero_grad()
            return float(backward(model, step))

        assert isinstance(sparsifier.step(closure), float)
    train(plain, reference, STEPS)
    assert sparsifier.masks().equals(reference.masks())
    assert same(model.state_dict(), plain.state_dict())
