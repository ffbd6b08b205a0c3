"""What training methods share that keep whole channels within a budget."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .allocation.costs import LayerCosts
from .allocation.layer import layers_of
from .channel_budget import BudgetUpdate, ChannelBudget
from .channels import CoupledChannels, groups_of
from .mask_structure import MaskStructure
from .masked_optimizer import Closure
from .settings import Settings, require, require_share
from .sparsifier import Sparsifier
from .taylor import TaylorImportance


@dataclass(frozen=True, kw_only=True)
class ChannelSettings(Settings):
    """`budget` is a share of what the dense network costs, `latency_budget` in its place milliseconds; `unit` is that
    of the costs."""

    budget: float
    latency_budget: float | None
    unit: str
    choices: int
    prune_first: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("budget", self.budget)
        limit = self.latency_budget
        require(limit is None or limit > 0, f"latency_budget must be positive, found {limit}")
        require(
            limit is None or self.unit == "ms",
            f"latency_budget is in milliseconds, the costs in {self.unit}; give costs= a latency table",
        )
        require(self.choices > 1, f"choices must be at least 2, found {self.choices}")


class ChannelMethod(Sparsifier):
    """Whole coupled channels, whose masked weights are filters and the columns that read them.

    A channel is a candidate where all that writes and reads it is sparsified, those of residual sums too. What the
    masks cost is in `budget_history`, update by update, in the unit of the costs.
    """

    settings: ChannelSettings
    costs: LayerCosts
    budget: ChannelBudget
    taylor: TaylorImportance

    def prepare(self, model: nn.Module, example_inputs: tuple[Any, ...], costs: LayerCosts) -> None:
        """Look at the model; to be called before the core's initialisation, which masks it."""
        self._model = model
        self._groups, self._runs = groups_of(model, example_inputs), layers_of(model, example_inputs)
        self.costs = costs
        self.budget_history: list[BudgetUpdate] = []

    @abstractmethod
    def measures(self, step: int) -> bool:
        """Whether the gradients of a step count for the importance of channels."""

    def find_channels(self) -> None:
        """Make the budget, and the importance of the channels it decides."""
        explored = {layer.name: layer for layer in self.explored}
        channels = CoupledChannels(
            self._groups, explored, self._aliases, prune_skip=True, prune_first=self.settings.prune_first
        )
        settings = self.settings
        self.budget = ChannelBudget(
            channels,
            self._runs,
            self.costs,
            share=settings.budget,
            limit=settings.latency_budget,
            choices=settings.choices,
        )
        self.taylor = TaylorImportance(channels, self._model, explored)

    def channel_masks(self) -> dict[str, Tensor]:
        """The masks of the channels that are not removed now."""
        allowed = self.budget.channels.allowed()
        return {name: mask.to(self.layers[name].parameter.device) for name, mask in allowed.items()}

    def log(self, step: int, budget: float, gap: float = 0.0) -> None:
        """Remember what the channels of now cost."""
        kept = dict(zip((kind.name for kind in self.budget.network.kinds), self.budget.kept, strict=True))
        self.budget_history.append(BudgetUpdate(step, budget, self.budget.cost, gap, kept))

    @property
    def target_nonzeros(self) -> int:
        allowed = self.budget.channels.allowed()
        return sum(int(allowed.get(name, layer.mask).sum()) for name, layer in self.layers.items())

    def structures(self) -> Mapping[str, MaskStructure]:
        return {layer.name: MaskStructure("channel", layout=layer.layout) for layer in self.explored}

    def optimizer_step(self, closure: Closure | None) -> float | None:
        if not self.measures(self.step_count + 1):
            return super().optimizer_step(closure)
        if closure is None:
            self.taylor.measure()
            return super().optimizer_step(None)

        def measured() -> float:
            loss = torch.enable_grad()(closure)()
            self.taylor.measure()
            return loss

        return super().optimizer_step(measured)

    def extra_state(self) -> dict[str, Any]:
        return {
            **super().extra_state(),
            "removed": self.budget.channels.removed.clone(),
            "taylor": self.taylor.state(),
            "budget_history": [asdict(update) for update in self.budget_history],
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.budget.channels.restore(state["removed"])
        self.taylor.load_state(state["taylor"])
        self.budget_history = [BudgetUpdate(**update) for update in state["budget_history"]]
