"""IEE and HALP on channels: importance, what is brought back and frozen, budgets, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsefx.passes.errors import MaskError, SparsefxError
from sparsefx.training import HALP, ChannelIEE, UniformChannels
from sparsefx.training.allocation.costs import Parameters
from sparsefx.training.allocation.layer import Layer
from sparsefx.training.allocation.problem import Counts, Values

from .helpers import EXAMPLE, Plain, Residual, backward, seeded, sgd, train

STEPS = 40


class Staircase:
    """Milliseconds of a machine that works on four outputs at a time, and is slower at odd numbers of inputs."""

    unit = "ms"

    def cost(self, layer: Layer, inputs: Counts, outputs: Counts) -> Values:
        return np.outer(inputs + 2.0 * (inputs % 2), -(-outputs // 4)) * layer.visits / 1e3


def iee(model: nn.Module, **options: Any) -> ChannelIEE:
    given = {"total_steps": STEPS, "example_inputs": EXAMPLE, "budget": 0.5, "stages": (3, 2, 4), "stop": 0.75}
    return ChannelIEE(model, sgd(model), **(given | options))


def channels_of(sparsifier: ChannelIEE | HALP, layer: str) -> Tensor:
    """Which output channels of a layer are in the masks."""
    return sparsifier.masks()[layer].flatten(1).any(1)


def test_importance_is_that_of_batch_norms_summed_and_averaged_over_the_steps_of_stage_h() -> None:
    """Plain: bn1 and bn2 judge conv1 and conv2; conv3 has no BatchNorm and is judged by its weights."""
    model: Any = seeded(Plain)
    sparsifier = iee(model, prune_first=True, stages=(3, 3, 3))
    expected = []
    for step in range(2):  # the third updates masks, and starts anew
        sparsifier.zero_grad()
        backward(model, step)
        bn = (model.bn1.weight * model.bn1.weight.grad + model.bn1.bias * model.bn1.bias.grad).abs()
        filters = (model.conv3.weight * model.conv3.weight.grad).flatten(1).sum(1).abs()
        expected.append((bn.detach(), filters.detach()))
        sparsifier.step()
    importance = sparsifier.taylor.average().float()
    kinds = {kind.name: torch.tensor(kind.members) for kind in sparsifier.budget.network.kinds}
    for number, name in enumerate(("conv1", "conv3")):
        mean = torch.stack([e[number] for e in expected]).mean(0)
        torch.testing.assert_close(importance[kinds[name]], mean)


def test_inactive_channels_come_back_as_they_were_before_they_were_pruned() -> None:
    model = seeded(Plain)
    sparsifier = iee(model)
    train(model, sparsifier, 2)
    active = channels_of(sparsifier, "conv2.weight")
    names = ["conv2.weight", "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var"]
    before: dict[str, Tensor] = {}
    optimizer_step = sparsifier.optimizer.step

    def remember(closure: Any = None) -> Any:
        result = optimizer_step(closure)
        before.update({name: model.state_dict()[name].clone() for name in names})  # pruning comes behind it
        return result

    sparsifier.optimizer.step = remember  # type: ignore[method-assign]
    train(model, sparsifier, 1, first=2)
    sparsifier.optimizer.step = optimizer_step  # type: ignore[method-assign]
    pruned = active & ~channels_of(sparsifier, "conv2.weight")
    assert pruned.any()
    train(model, sparsifier, 2, first=3)
    assert sparsifier.exploring
    read = channels_of(sparsifier, "conv1.weight")
    for name in names:
        now = model.state_dict()[name]
        if name == "conv2.weight":  # of inputs that stayed active, too
            assert torch.equal(now[pruned][:, read], before[name][pruned][:, read])
        else:
            assert torch.equal(now[pruned], before[name][pruned]), name


def test_what_grows_keeps_what_exploration_made_of_it_and_the_rest_its_statistics() -> None:
    model: Any = seeded(Plain)
    sparsifier = iee(model)
    train(model, sparsifier, 5, first=1)
    frozen, started = model.bn2.running_mean.clone(), model.bn2.weight.detach().clone()
    train(model, sparsifier, 3, first=6)
    active = channels_of(sparsifier, "conv2.weight")
    sparsifier.zero_grad()
    backward(model, 9)
    explored = model.bn2.running_mean.clone()
    sparsifier.step()
    grown = channels_of(sparsifier, "conv2.weight") & ~active
    assert grown.any()
    assert torch.equal(model.bn2.running_mean[grown], explored[grown])
    assert (explored[grown] != frozen[grown]).all() and (model.bn2.weight[grown] != started[grown]).all()
    assert torch.equal(model.bn2.running_mean[active], frozen[active])
    assert (explored[active] != frozen[active]).any(), "the exploration moved it in between"
    assert model.conv2.weight[grown].abs().sum() > 0


def test_the_budget_is_spent_and_pruned_by_what_the_schedule_says() -> None:
    model = seeded(Plain)
    sparsifier = iee(model, costs=Staircase(), budget=0.6, stages=(2, 2, 2))
    train(model, sparsifier, STEPS)
    total = sparsifier.budget.total
    assert total == pytest.approx(0.6 * sparsifier.budget.dense) and sparsifier.settings.unit == "ms"
    first, *updates = sparsifier.budget_history
    assert first.step == 0 and first.cost <= total
    assert [u.step for u in updates] == [2, 6, 8, 12, 14, 18, 20, 24, 26, 30]
    shares = [0.3 * 0.01 ** (t / 4) for t in range(5)]
    for share, prune, grow in zip(shares, updates[::2], updates[1::2], strict=True):
        assert prune.budget == pytest.approx(total * (1 - share)) and grow.budget == total
        assert (prune.cost <= prune.budget and prune.cost < grow.cost <= total * (1 + 1e-9)) or prune.kept == grow.kept
    assert [u.drop_fraction for u in sparsifier.history[::2]] == pytest.approx(shares)
    kept = updates[-1].kept
    assert {k: int(channels_of(sparsifier, f"{k}.weight").sum()) for k in kept} == kept


def test_halp_prunes_to_its_schedule_for_good() -> None:
    model = seeded(Residual)
    sparsifier = HALP(
        model, sgd(model), total_steps=STEPS, example_inputs=EXAMPLE, budget=0.3, rounds=3, interval=4, solver="exact"
    )
    assert sparsifier.sparsity == 0
    train(model, sparsifier, STEPS)
    dense = sparsifier.budget.dense
    assert [u.step for u in sparsifier.budget_history] == [0, 4, 8, 12]
    assert [u.budget / dense for u in sparsifier.budget_history] == pytest.approx(
        [1, 0.3 ** (1 / 3), 0.3 ** (2 / 3), 0.3]
    )
    assert all(u.cost <= u.budget * (1 + 1e-9) for u in sparsifier.budget_history)
    assert sparsifier.history[-1].removed_channels == int(sparsifier.budget.channels.removed.sum()) > 0


def test_exact_pruning_keeps_no_less_importance_than_halps_knapsack_at_the_same_cost() -> None:
    costs: dict[str, float] = {}
    kept: dict[str, float] = {}
    for solver in ("halp", "exact"):
        model = seeded(Residual)
        sparsifier = HALP(
            model, sgd(model), total_steps=9, example_inputs=EXAMPLE, budget=0.5, rounds=1, interval=3, solver=solver
        )
        train(model, sparsifier, 2)
        importance = sparsifier.taylor.average()
        target = costs.get("halp", sparsifier.budget.total)
        if solver == "halp":
            sparsifier.budget.prune_as_halp(importance, target)
        else:
            sparsifier.budget.prune(importance, target)
        costs[solver] = sparsifier.budget.cost
        kept[solver] = float(importance[~sparsifier.budget.channels.removed].sum())
    assert costs["exact"] <= costs["halp"] * (1 + 1e-9) and kept["exact"] >= kept["halp"]


def test_uniform_channels_keep_the_same_share_of_every_kind_and_never_change() -> None:
    model = seeded(lambda: Plain(width=32))
    sparsifier = UniformChannels(
        model, sgd(model), total_steps=STEPS, example_inputs=EXAMPLE, budget=0.4, prune_first=True, costs=Parameters()
    )
    before, (first,) = sparsifier.masks(), sparsifier.budget_history
    shares = [first.kept[k.name] / len(k.members) for k in sparsifier.budget.network.kinds]
    assert max(shares) - min(shares) < 0.04
    assert 0.35 * sparsifier.budget.dense < first.cost <= sparsifier.budget.total
    train(model, sparsifier, 5)
    assert sparsifier.masks().equals(before) and not sparsifier.history
    other = UniformChannels(
        model, sgd(model), total_steps=STEPS, example_inputs=EXAMPLE, budget=0.4, prune_first=True, seed=1
    )
    assert not other.masks().equals(before)


def test_a_step_with_gradients_that_are_not_finite_does_not_count() -> None:
    model: Any = seeded(Plain)
    sparsifier = iee(model, stages=(5, 2, 2))
    train(model, sparsifier, 2)
    before = sparsifier.taylor.average()
    backward(model, 2)
    model.bn2.weight.grad[0] = torch.nan
    sparsifier.optimizer.step = lambda closure=None: None  # type: ignore[method-assign]
    sparsifier.step()
    assert torch.equal(sparsifier.taylor.average(), before) and before.abs().sum() > 0


def test_layers_kept_dense_keep_their_channels() -> None:
    """A channel cannot go while a layer that reads it stays whole."""
    sparsifier = iee(seeded(Residual), dense=["branch1.2"], budget=0.9)
    assert {kind.name for kind in sparsifier.budget.network.kinds} == {"branch2.0"}
    assert sparsifier.masks().density("branch1.2.weight") == sparsifier.masks().density("branch1.0.weight") == 1.0


class Pinned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.fc(F.relu(x)))
        return y


class NarrowIsSlow:
    """Parameters, but that one layer is affordable only with all of its channels, as latency tables may say."""

    unit = "ms"

    def cost(self, layer: Layer, inputs: Counts, outputs: Counts) -> Values:
        found = Parameters().cost(layer, inputs, outputs)
        return found + 1e6 * (outputs < 16)[None, :] if layer.name == "conv2.weight" else found


def test_a_budget_that_no_equal_share_meets_is_met_where_others_do() -> None:
    given: dict[str, Any] = {"costs": NarrowIsSlow(), "budget": 0.9}
    model = seeded(Plain)
    with pytest.raises(SparsefxError, match=r"cannot be met: the cheapest equal share of every .* costs .* already"):
        UniformChannels(model, sgd(model), total_steps=STEPS, example_inputs=EXAMPLE, **given)
    sparsifier = iee(model, **given)
    train(model, sparsifier, STEPS)
    for update in sparsifier.budget_history:
        assert update.cost <= sparsifier.budget.total and update.kept["conv2"] == 16
    others = iee(seeded(Plain), seed=1, **given)
    assert not others.masks().equals(iee(seeded(Plain), **given).masks())


def test_what_is_refused() -> None:
    model = Pinned()
    with pytest.raises(MaskError, match="no channel can be removed"):
        ChannelIEE(model, sgd(model), total_steps=STEPS, example_inputs=(torch.zeros(2, 8),))
    with pytest.raises(SparsefxError, match=r"a budget of .* cannot be met: .* costs .* already"):
        iee(Plain(), budget=1e-4)
    with pytest.raises(SparsefxError, match=r"budget must be in \(0, 1\], found 1.5"):
        iee(Plain(), budget=1.5)
    with pytest.raises(SparsefxError, match="choices must be at least 2, found 1"):
        iee(Plain(), choices=1)
    options: dict[str, Any] = {"total_steps": STEPS, "example_inputs": EXAMPLE}
    with pytest.raises(SparsefxError, match="unknown solver 'greedy'; known are halp, exact"):
        HALP(Plain(), sgd(Plain()), solver="greedy", **options)
    with pytest.raises(SparsefxError, match="9 rounds of 5 steps do not fit into 40 steps"):
        HALP(Plain(), sgd(Plain()), rounds=9, interval=5, **options)


def test_defaults_are_the_papers_where_training_is_as_long() -> None:
    settings = iee(Plain(), total_steps=130 * 1251, stages=None, stop=None).settings
    assert (settings.stages, settings.drop_fraction) == ((150, 150, 150), 0.3)
    assert settings.last_step // settings.cycle in (13, 14)
    short = iee(Plain(), total_steps=756, stages=None, stop=None).settings
    assert (short.stages, short.stop) == ((10, 10, 10), 0.5)
