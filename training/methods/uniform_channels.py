"""Uniform channel pruning: the same share of every layer, the baseline of channel methods."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn
from torch.optim import Optimizer

from ..allocation.table import Costs, as_costs
from ..channel_method import ChannelMethod, ChannelSettings
from ..settings import LayerOptions
from ..sparsifier import Proposal


class UniformChannels(ChannelMethod):
    """The largest share of all coupled channels that a `budget` allows, chosen by chance before training.

    `latency_budget` and `costs` as for ChannelIEE. At least one channel of every kind stays; those of the first
    layer all do unless `prune_first`.
    """

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
        prune_first: bool = False,
        **layers: Unpack[LayerOptions],
    ) -> None:
        costs = as_costs(costs)
        settings = ChannelSettings(
            sparsity=0.0,
            total_steps=total_steps,
            budget=budget,
            latency_budget=latency_budget,
            unit=costs.unit,
            choices=64,
            prune_first=prune_first,
            **layers,
        )
        self.prepare(model, example_inputs, costs)
        super().__init__(model, optimizer, settings)

    def initial_masks(self) -> dict[str, Tensor]:
        self.find_channels()
        self.budget.keep_equal_shares(self.generator)
        self.log(0, self.budget.total)
        return self.channel_masks()

    def is_update(self, step: int) -> bool:
        return False

    def measures(self, step: int) -> bool:
        return False

    def propose(self, step: int) -> Proposal:
        return Proposal({}, 0.0)
