"""Uniform channel pruning: the same share of every layer, the baseline of channel methods."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn
from torch.optim import Optimizer

from ..allocation.costs import FLOPs, LayerCosts
from ..channel_method import ChannelMethod, ChannelSettings
from ..settings import LayerOptions
from ..sparsifier import Proposal


class UniformChannels(ChannelMethod):
    """The largest share of all coupled channels that a `budget` allows, chosen by chance before training.

    `costs` as for ChannelIEE. At least one channel of every kind stays; those of the first layer all do unless
    `prune_first`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        example_inputs: tuple[Any, ...],
        budget: float = 0.55,
        costs: LayerCosts | None = None,
        prune_first: bool = False,
        **layers: Unpack[LayerOptions],
    ) -> None:
        settings = ChannelSettings(
            sparsity=0.0,
            total_steps=total_steps,
            budget=budget,
            unit=(FLOPs() if costs is None else costs).unit,
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
