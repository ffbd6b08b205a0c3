"""HALP: channels pruned by a latency knapsack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..allocation.table import Costs, as_costs
from ..channel_method import ChannelMethod, ChannelSettings
from ..schedules import ExponentialDecay
from ..settings import LayerOptions, require, require_interval
from ..sparsifier import Proposal

SOLVERS = ("halp", "exact")


@dataclass(frozen=True, kw_only=True)
class HALPSettings(ChannelSettings):
    rounds: int
    interval: int
    solver: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require_interval("rounds", self.rounds)
        require_interval("interval", self.interval)
        require(self.solver in SOLVERS, f"unknown solver {self.solver!r}; known are {', '.join(SOLVERS)}")
        require(
            self.rounds * self.interval <= self.total_steps,
            f"{self.rounds} rounds of {self.interval} steps do not fit into {self.total_steps} steps",
        )


class HALP(ChannelMethod):
    """Structural Pruning via Latency-Saliency Knapsack (Shen et al. 2022), for a trained model, which it finetunes.

    In `rounds` rounds of `interval` steps each, the Taylor importance of channels is averaged, and channels are pruned
    for good to a cost between that of the dense network and `budget` times as much: the exponential schedule of de
    Jorge et al. What is left is trained on. `rounds=1` is one-shot. `latency_budget`, `costs` and `choices` as for
    ChannelIEE.

    `solver="halp"` is the authors' dynamic program: what a layer costs follows from its outputs alone, with its inputs
    as they are before the round, and what its consumers save shows in the next one. "exact" solves for both.

    Deviations: some channels of every kind stay, where HALP may empty a layer; what it costs is that of all layers, not
    those with prunable channels alone. Rounds default to HALP's 30, each of 40 steps or less, within a sixth of
    training.
    """

    settings: HALPSettings

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        example_inputs: tuple[Any, ...],
        budget: float = 0.55,
        latency_budget: float | None = None,
        costs: Costs = None,
        rounds: int | None = None,
        interval: int | None = None,
        solver: str = "halp",
        choices: int = 64,
        prune_first: bool = False,
        **layers: Unpack[LayerOptions],
    ) -> None:
        costs = as_costs(costs)
        rounds = max(1, min(30, total_steps // 6)) if rounds is None else rounds
        settings = HALPSettings(
            sparsity=0.0,
            total_steps=total_steps,
            budget=budget,
            latency_budget=latency_budget,
            unit=costs.unit,
            choices=choices,
            prune_first=prune_first,
            rounds=rounds,
            interval=max(1, min(40, total_steps // (6 * max(rounds, 1)))) if interval is None else interval,
            solver=solver,
            **layers,
        )
        self.prepare(model, example_inputs, costs)
        super().__init__(model, optimizer, settings)

    def initial_masks(self) -> dict[str, Tensor]:
        self.find_channels()
        self.log(0, self.budget.dense)
        return {layer.name: torch.ones_like(layer.mask) for layer in self.explored}

    @property
    def removed_channels(self) -> int:
        return int(self.budget.channels.removed.sum())

    def is_update(self, step: int) -> bool:
        return step % self.settings.interval == 0 and step <= self.settings.rounds * self.settings.interval

    def measures(self, step: int) -> bool:
        return step <= self.settings.rounds * self.settings.interval

    def propose(self, step: int) -> Proposal:
        schedule = ExponentialDecay(self.budget.dense, self.budget.total, self.settings.rounds)
        allowed, importance = schedule(step // self.settings.interval), self.taylor.average()
        if self.settings.solver == "halp":
            self.budget.prune_as_halp(importance, allowed)
            self.log(step, allowed)
        else:
            found = self.budget.prune(importance, allowed)
            self.log(step, allowed, found.gap)
        self.taylor.reset()
        return Proposal(self.channel_masks(), 1 - allowed / self.budget.dense)
