"""The suite can fail: faults planted into the passes are found by the checks that the other tests rely on.

Each breaks one mechanism of the real code, and has to show in `assert_exact` on a small net made for it and in
`check_net` on random nets; without it both are content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsefx.passes import remove_channels
from sparsefx.passes.channels import analysis
from sparsefx.passes.channels.carriers import Absorption, Plan
from sparsefx.passes.channels.flow import ChannelFlow, Pin
from sparsefx.passes.channels.rules import OPERATOR_RULES, OperatorRule
from sparsefx.passes.errors import PassError
from tests.helpers import assert_exact, inputs_like, slim
from tests.oracle.check import Subject
from tests.oracle.compare import complaints, wrong_counts
from tests.oracle.nets import Chain, SlantedSoftplus
from tests.randomnets.check import check_net
from tests.randomnets.draw import Draw

RANDOM_SEEDS = (8, 1, *range(9, 24))  # the first two show most faults already
Patch = pytest.MonkeyPatch


# Faults


def drop_carriers(patch: Patch) -> None:
    """No channel is kept to carry the constants of removed ones, and none takes them over."""
    real = analysis.plan_absorption

    def plan(*arguments: Any) -> Plan:
        found = real(*arguments)
        carriers = {a.group: a.carriers + a.group * arguments[0].kernel.inputs for a in found.absorptions}
        bare = tuple(map(_without_carriers, found.absorptions))
        return Plan(bare, np.setdiff1d(found.keep, np.concatenate([*carriers.values(), np.empty(0, np.int64)])))

    patch.setattr(analysis, "plan_absorption", plan)


def _without_carriers(absorption: Absorption) -> Absorption:
    nothing = np.empty(0, np.int64)
    return replace(absorption, carriers=nothing, coefficient=np.empty((len(absorption.removed), 0)))


def miss_couplings(patch: Patch) -> None:
    """The last operand of a sum or product is not tied to the result."""
    real = ChannelFlow.elementwise

    def elementwise(self: ChannelFlow, operands: Any, *arguments: Any, **options: Any) -> Any:
        couplings, constraints = len(self.couplings), len(self.constraints)
        value = real(self, operands, *arguments, **options)
        if len(operands) > 1 and len(self.constraints) == constraints and len(self.couplings) > couplings:
            self.couplings.pop()
        return value

    patch.setattr(ChannelFlow, "elementwise", elementwise)


def leave_sizes_stale(patch: Patch) -> None:
    """Literal sizes and positions in arguments stay what they were."""
    for name, rule in list(OPERATOR_RULES.items()):
        patch.setitem(OPERATOR_RULES, name, OperatorRule(rule.channels))


def lose_constants(patch: Patch) -> None:
    """What removed channels contributed does not reach the bias."""
    real = remove_channels._absorb

    def absorb(weight: Tensor, bias: Tensor, absorption: Absorption) -> None:
        real(weight, bias.clone(), absorption)

    patch.setattr(remove_channels, "_absorb", absorb)


def leave_outputs_unpinned(patch: Patch) -> None:
    """The last channel of an output may go where it is a constant; the others are pinned, or nothing might be left."""
    real = ChannelFlow.pin

    def pin(self: ChannelFlow, value: Any, reason: str) -> None:
        if reason == "an output of the model" and value.size > 1:
            self.pins.append(Pin(value.elements.reshape(-1)[:-1], reason))
        else:
            real(self, value, reason)

    patch.setattr(ChannelFlow, "pin", pin)


# Small nets, each made so that one of the mechanisms matters


class Pair(nn.Module):
    """Two layers with filters of the first one zero, and their biases not; or of the second one."""

    def __init__(self, first: nn.Module, second: nn.Module, *, constant_outputs: Collection[int] = ()) -> None:
        super().__init__()
        self.first, self.second = first, second
        _zero_filters(first, range(3))
        _zero_filters(second, constant_outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x)))
        return out


class Flattened(Pair):
    """The second layer reads all positions of all channels, through a view with literal sizes."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x)).reshape(-1, 6 * 16))
        return out


class Sum(nn.Module):
    """Two layers added, each with another channel zero, and one channel zero in both."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)
        _zero_filters(self.one, (0, 1))
        _zero_filters(self.other, (0, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.one(x) + self.other(x)))
        return out


def _zero_filters(layer: Any, filters: Collection[int]) -> None:
    with torch.no_grad():
        layer.weight[list(filters)] = 0.0
        layer.bias[list(filters)] = 1.0


def _conv(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


@dataclass(frozen=True)
class Fault:
    """A fault, how it shows itself, and a small net that it shows in."""

    plant: Callable[[Patch], None]
    symptoms: str  # what a complaint must be about: it could come from a clumsily planted fault otherwise
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


_WRONG = r"error \S+ of the (output's )?deviation over inputs"
_BROKEN = r"RemoveChannels left a graph that does not hold together: .*(size|dim|shape)"
_CHANGED = "RemoveChannels changed the output shapes"

FAULTS: Mapping[str, Fault] = {
    "carrier dropped": Fault(drop_carriers, _WRONG, lambda: Pair(_conv(3, 6), _conv(6, 4)), (3, 6, 6)),
    "coupling missed": Fault(miss_couplings, f"{_WRONG}|{_BROKEN}", Sum, (4,)),
    "stale size": Fault(
        leave_sizes_stale, f"{_WRONG}|{_BROKEN}", lambda: Flattened(_conv(3, 6), nn.Linear(96, 3)), (3, 4, 4)
    ),
    "constant lost": Fault(lose_constants, _WRONG, lambda: Pair(nn.Linear(4, 6), nn.Linear(6, 3)), (4,)),
    "output channel not pinned": Fault(
        leave_outputs_unpinned, _CHANGED, lambda: Pair(nn.Linear(4, 6), nn.Linear(6, 3), constant_outputs=[2]), (4,)
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_small_net_shows_the_fault(name: str, monkeypatch: Patch) -> None:
    fault = FAULTS[name]
    torch.manual_seed(0)
    model, make_inputs = fault.build(), inputs_like(fault.shape)
    assert_exact(slim(model, make_inputs), model, make_inputs)
    fault.plant(monkeypatch)
    with pytest.raises((AssertionError, PassError), match=fault.symptoms):
        assert_exact(slim(model, make_inputs), model, make_inputs)


@pytest.mark.ci
@pytest.mark.parametrize("name", FAULTS)
def test_random_nets_show_the_fault(name: str, monkeypatch: Patch) -> None:
    """The first net that fails with the fault is fine without it."""
    with monkeypatch.context() as patch:
        FAULTS[name].plant(patch)
        found = next(((seed, failures) for seed in RANDOM_SEEDS if (failures := _failures(seed))), None)
    assert found is not None, "no random net noticed"
    seed, failures = found
    assert all(re.search(FAULTS[name].symptoms, failure) for failure in failures), failures
    assert not _failures(seed)


def _failures(seed: int) -> list[str]:
    return check_net(Draw.seeded(seed), f"seed {seed}").failures


# Faults that cost size and not exactness


def keep_unneeded(patch: Patch) -> None:
    """Channels that do not depend on the input count as needed, as all that is live and demanded."""
    real = analysis._Closure.keep_needed

    def keep_needed(self: Any) -> None:
        real(self)
        for value in self.trace.flow.values:
            self.keep(value.elements[value.demand], analysis.NEEDED)

    patch.setattr(analysis._Closure, "keep_needed", keep_needed)


def carry_too_much(patch: Patch) -> None:
    """Every removed constant is its own carrier."""
    real = analysis.plan_absorption

    def plan(*arguments: Any) -> Plan:
        found = real(*arguments)
        width = arguments[0].kernel.inputs
        removed = [a.removed + a.group * width for a in found.absorptions if len(a.carriers)]
        return replace(found, keep=np.concatenate([found.keep, *removed]))

    patch.setattr(analysis, "plan_absorption", plan)


@pytest.mark.parametrize(
    ("plant", "symptom"),
    [(keep_unneeded, "is kept without need: needed"), (carry_too_much, r"carriers among .* their readers call for 1")],
)
def test_the_oracle_notices_what_is_kept_for_nothing(
    plant: Callable[[Patch], None], symptom: str, monkeypatch: Patch
) -> None:
    subject = Subject(lambda: Chain([5, 5, 4], [3, 3, 3], SlantedSoftplus), (9, 9))
    assert not _excess(subject)
    plant(monkeypatch)
    assert any(re.search(symptom, complaint) for complaint in _excess(subject))


def _excess(subject: Subject) -> list[str]:
    case = subject.case("filters", 0)
    return complaints(case.outcome, case.oracle) + wrong_counts(case.outcome, case.carriers, fewest=True)
