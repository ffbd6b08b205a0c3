"""IEE under a latency budget: iterative exploitation and exploration of whole channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

from torch import Tensor, nn
from torch.optim import Optimizer

from ..allocation.table import Costs, as_costs
from ..channel_exploration import ChannelExploration
from ..channel_method import ChannelMethod, ChannelSettings
from ..channel_tensors import ChannelTensors
from ..exploring import ExplorationSettings, ExploringSparsifier
from ..layers import bare_model
from ..schedules import ExponentialDecay
from ..settings import LayerOptions, default_interval
from ..sparse_layer import SparseLayer

_CYCLES = 14  # what five epochs of ImageNet in batches of 1024 have room for
_LAST_SHARE = 0.01  # of the first update budget: an exponential never comes to nothing


@dataclass(frozen=True, kw_only=True)
class ChannelIEESettings(ExplorationSettings, ChannelSettings):
    @property
    def update_schedule(self) -> ExponentialDecay:
        """Omega^t / Psi at the end of cycle t, the first being 0."""
        last = max(self.last_step // self.cycle - 1, 1)
        return ExponentialDecay(self.drop_fraction, _LAST_SHARE * self.drop_fraction, last)


class ChannelIEE(ChannelMethod, ExploringSparsifier):
    """Advancing Weight and Channel Sparsification with Enhanced Saliency (Sun et al. 2025), latency-constrained.

    The cycles of IEE on coupled channels, under a `budget`: a share of what the dense network costs by `costs`, a
    latency table, the path of one, or another LayerCosts; FLOPs by default. With a table `latency_budget` may be given
    in its place, in milliseconds at the table's batch. It starts with channels chosen by chance, the same share of all
    where a share meets the budget.

    A cycle of `stages` (H, J, Q) steps measures the Taylor importance of active channels for H steps; keeps the best of
    them within budget - update budget; trains those for J steps; brings all others back with their most recent values,
    those of BatchNorms, running statistics and biases too, and trains them for Q steps while what is active stays
    frozen; and adds the best of them within the budget, by the same importance. The update budget goes from
    `drop_fraction` of the budget down by the same factor each cycle (HALP's exponential schedule).

    Which channels stay is solved with the inputs that consumers save (see allocation/solve.py), where the paper takes
    HALP's knapsack; at least one of every kind does. Channels of the first layer stay unless `prune_first`. Of every
    kind at most `choices` counts are considered.

    Deviations: the exponential schedule ends at a hundredth of its start. The paper's updates end after 5 of 130
    epochs, 14 cycles: here `stop` is that by default, or the share of a shorter training that 14 cycles take, at most
    half.
    """

    settings: ChannelIEESettings
    exploration: ChannelExploration
    tensors: ChannelTensors

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
        drop_fraction: float = 0.3,
        stages: tuple[int, int, int] | None = None,
        stop: float | None = None,
        choices: int = 64,
        prune_first: bool = False,
        **layers: Unpack[LayerOptions],
    ) -> None:
        costs = as_costs(costs)
        stage = min(default_interval(total_steps, 6 * _CYCLES, 150), max(total_steps // 6, 1))
        stages = (stage, stage, stage) if stages is None else stages
        settings = ChannelIEESettings(
            sparsity=0.0,
            total_steps=total_steps,
            budget=budget,
            latency_budget=latency_budget,
            unit=costs.unit,
            choices=choices,
            prune_first=prune_first,
            drop_fraction=drop_fraction,
            stages=stages,
            stop=max(5 / 130, min(0.5, _CYCLES * sum(stages) / total_steps)) if stop is None else stop,
            **layers,
        )
        self.prepare(model, example_inputs, costs)
        super().__init__(model, optimizer, settings, ChannelExploration(bare_model(model), optimizer))

    def initial_masks(self) -> dict[str, Tensor]:
        self.find_channels()
        self.tensors = ChannelTensors(self.budget.channels, self._model, self.optimizer)
        self.exploration.watch(self.tensors)
        self.exploration.park(self.explorable)
        self.budget.keep_any(self.generator)
        self.log(0, self.budget.total)
        return self._masks()

    @property
    def explorable(self) -> list[SparseLayer]:
        return [*self.explored, *self.tensors.parameters]

    def measures(self, step: int) -> bool:
        return 0 < self.place(step) <= self.settings.stages[0] or self.explores(step)

    def drop_fraction(self, step: int) -> float:
        return self.settings.update_schedule((step - 1) // self.settings.cycle)

    def prune(self, step: int) -> dict[str, Tensor]:
        left = self.budget.total * (1 - self.drop_fraction(step))
        found = self.budget.prune(self.taylor.average(), left)
        self.log(step, left, found.gap)
        return self._masks()

    def grow(self, step: int) -> dict[str, Tensor]:
        found = self.budget.grow(self.taylor.average())
        self.log(step, self.budget.total, found.gap)
        return self._masks()

    def _masks(self) -> dict[str, Tensor]:
        """Of the channels that stay; importance is measured anew."""
        self.taylor.reset()
        self.tensors.follow()
        return self.channel_masks()

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.tensors.follow()
