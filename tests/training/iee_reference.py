"""IEE once more, on a model of its own, with explicit copies of everything that must come back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .helpers import backward
from .references import Values, active, flat, largest, largest_of_network, mask_gradients, mask_of

STEPS, STAGES = 40, (3, 2, 4)
LAST = 27  # three cycles of nine steps fit into 3/4 of training


def fraction(step: int) -> float:
    return 0.15 * (1 + math.cos(math.pi * step / 30))


class Reference:
    """Algorithm 1 on a model of its own; `follow` yields after every step."""

    def __init__(self, model: nn.Module, make: Callable[[nn.Module], Optimizer], kind: str) -> None:
        self.model, self.kind = model, kind
        self.optimizer = make(model)
        self.masks: dict[str, Tensor] = {}
        self.recent: dict[str, Tensor] = {}

    def start(self, masks: dict[str, Tensor]) -> None:
        self.recent = {name: self.model.get_parameter(name).detach().clone() for name in masks}
        self.masks = masks
        self.budgets = {name: int(mask.sum()) for name, mask in masks.items()}
        self.enforce()

    def follow(self) -> Iterator[None]:
        step = 0
        while step < STEPS:
            for place in range(1, sum(STAGES) + 1) if step < LAST else [0]:
                step += 1
                if place <= STAGES[0] + STAGES[1]:
                    self.train_active(step)
                    if place == STAGES[0]:
                        self.prune(fraction(step))
                    if place == STAGES[0] + STAGES[1]:
                        self.reactivate()
                else:
                    self.explore(step)
                    if place == sum(STAGES):
                        self.grow()
                yield

    def train_active(self, step: int) -> None:
        self.optimizer.zero_grad()
        backward(self.model, step)
        mask_gradients(self.model, self.masks)
        self.optimizer.step()
        self.enforce()

    @torch.no_grad()
    def enforce(self) -> None:
        for name, mask in self.masks.items():
            parameter = self.model.get_parameter(name)
            for value in [parameter, *self.optimizer.state.get(parameter, {}).values()]:
                if value.shape == mask.shape:
                    value[~mask] = 0

    @torch.no_grad()
    def prune(self, share: float) -> None:
        weights = flat({name: self.model.get_parameter(name) for name in self.masks})
        masks = flat(self.masks)
        if self.kind == "global":
            total = sum(self.budgets.values())
            kept = largest_of_network(weights, masks, total - int(share * total))
        else:
            left = {n: budget - int(share * budget) for n, budget in self.budgets.items()}
            kept = {n: mask_of(largest(weights[n], active(masks[n]), left[n]), masks[n].size) for n in masks}
        for name, mask in self.masks.items():
            self.recent[name][mask] = self.model.get_parameter(name)[mask]
        self.take(kept)
        self.enforce()

    def take(self, masks: dict[str, Values]) -> None:
        self.masks = {name: torch.from_numpy(masks[name]).reshape(mask.shape) for name, mask in self.masks.items()}

    @torch.no_grad()
    def reactivate(self) -> None:
        self.frozen = copy.deepcopy(self.model.state_dict())
        for name, mask in self.masks.items():
            self.model.get_parameter(name)[~mask] = self.recent[name][~mask]
        weights = [self.model.get_parameter(name) for name in self.masks]
        self.explorer = type(self.optimizer)(weights, **self.optimizer.defaults)

    def explore(self, step: int) -> None:
        self.model.zero_grad()
        backward(self.model, step)
        mask_gradients(self.model, {name: ~mask for name, mask in self.masks.items()})
        self.explorer.step()
        with torch.no_grad():
            for name, mask in self.masks.items():
                self.model.get_parameter(name)[mask] = self.frozen[name][mask]

    @torch.no_grad()
    def grow(self) -> None:
        explored = {name: self.model.get_parameter(name).detach().clone() for name in self.masks}
        self.recent = {name: value.clone() for name, value in explored.items()}
        self.model.load_state_dict(self.frozen)
        weights, masks = flat(explored), flat(self.masks)
        if self.kind == "global":
            missing = sum(self.budgets.values()) - sum(int(mask.sum()) for mask in masks.values())
            grown = largest_of_network(weights, {n: ~mask for n, mask in masks.items()}, missing)
        elif self.kind == "2:4":
            grown = {name: two_of_four(explored[name], mask) for name, mask in self.masks.items()}
        else:
            missing_of = {n: budget - int(masks[n].sum()) for n, budget in self.budgets.items()}
            grown = {n: mask_of(largest(weights[n], active(~masks[n]), missing_of[n]), masks[n].size) for n in masks}
        self.take({name: masks[name] | grown[name] for name in masks})
        for name, mask in self.masks.items():
            self.model.get_parameter(name).copy_(explored[name] * mask)


def two_of_four(weight: Tensor, mask: Tensor) -> Values:
    """What has to grow until 2 of 4 consecutive inputs are active, the largest magnitudes first."""
    values, taken = flat({"": weight})[""], flat({"": mask})[""]
    inputs, positions = weight.shape[1], weight[0, 0].numel()
    grown: list[int] = []
    for output in range(weight.shape[0]):
        for first in range(0, inputs, 4):
            for position in range(positions):
                group = [(output * inputs + i) * positions + position for i in range(first, first + 4)]
                inactive = [i for i in group if not taken[i]]
                grown += largest(values, inactive, 2 - (4 - len(inactive)))
    return mask_of(grown, values.size)
