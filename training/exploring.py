"""The cycle of IEE: train, prune, train, explore what is inactive while all else is frozen, grow."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .exploration import Exploration
from .masked_optimizer import Closure
from .settings import Settings, require, require_interval, require_share
from .sparse_layer import SparseLayer
from .sparsifier import Proposal, Sparsifier


@dataclass(frozen=True, kw_only=True)
class ExplorationSettings(Settings):
    """`stages` are H, J and Q in steps; cycles go on until `stop` * `total_steps`."""

    drop_fraction: float
    stages: tuple[int, int, int]
    stop: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("drop_fraction", self.drop_fraction)
        require_share("stop", self.stop)
        for name, length in zip("HJQ", self.stages, strict=True):
            require_interval(f"stage {name}", length)
        require(
            self.last_step > 0,
            f"stages {self.stages} do not fit into {self.stop * self.total_steps:g} steps; shorten them",
        )

    @property
    def cycle(self) -> int:
        return sum(self.stages)

    @property
    def last_step(self) -> int:
        """The end of the last whole cycle."""
        return round(self.stop * self.total_steps) // self.cycle * self.cycle


class ExploringSparsifier(Sparsifier):
    """Algorithm 1 of IEE without its choices: a method says what to `prune` (Eq. 2) and what to `grow` (Eq. 4)."""

    settings: ExplorationSettings

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, settings: ExplorationSettings, exploration: Exploration
    ) -> None:
        self.exploration = exploration
        super().__init__(model, optimizer, settings)

    # What a method overrides.

    @abstractmethod
    def prune(self, step: int) -> dict[str, Tensor]:
        """Masks without what is least important."""

    @abstractmethod
    def grow(self, step: int) -> dict[str, Tensor]:
        """Masks with the most important of what has been explored."""

    @abstractmethod
    def drop_fraction(self, step: int) -> float:
        """The share that is exchanged in the cycle of a step."""

    @property
    def explorable(self) -> list[SparseLayer]:
        """Parameters that explore where their masks are False."""
        return self.explored

    # How it works.

    @property
    def exploring(self) -> bool:
        return self.explores(self.step_count + 1)

    def is_update(self, step: int) -> bool:
        return self.place(step) in (self.settings.stages[0], self.settings.cycle)

    def dense_passes(self, step: int) -> int:
        return int(self.explores(step))  # the forward pass (IEE, appendix 3)

    def place(self, step: int) -> int:
        """The place of a step in its cycle, from 1; 0 when all cycles are over."""
        return (step - 1) % self.settings.cycle + 1 if step <= self.settings.last_step else 0

    def explores(self, step: int) -> bool:
        return self.place(step) > sum(self.settings.stages[:2])

    def propose(self, step: int) -> Proposal:
        if self.place(step) == self.settings.cycle:
            self.exploration.end(self.explorable)
            return Proposal(self.grow(step), self.drop_fraction(step))
        self.exploration.put_away(self.explorable)
        return Proposal(self.prune(step), self.drop_fraction(step))

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:  # type: ignore[override]
        loss = super().step(closure)
        if self.exploring and not self.explores(self.step_count):
            self.exploration.begin(self.explorable)
        return loss

    @torch.no_grad()
    def mask_gradients(self) -> None:
        if self.exploring:
            self.exploration.mask_gradients(self.explorable)
        else:
            super().mask_gradients()

    def before_optimizer_step(self) -> None:
        if self.exploring:
            self.exploration.refreeze(self.explorable)
        else:
            super().before_optimizer_step()

    def after_optimizer_step(self) -> None:
        if self.exploring:
            self.exploration.hold(self.explorable)
        else:
            super().after_optimizer_step()

    def extra_state(self) -> dict[str, Any]:
        return self.exploration.state()

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.exploration.load_state(state)
