"""Masks that never change, chosen by chance."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn
from torch.optim import Optimizer

from ..initial_masks import layer_budgets, random_mask
from ..settings import CoreOptions, Settings
from ..sparsifier import Proposal, Sparsifier


class Static(Sparsifier):
    """Sparse training on the initial masks."""

    def is_update(self, step: int) -> bool:
        return False

    def propose(self, step: int) -> Proposal:
        return Proposal({}, 0.0)


class Random(Static):
    """Static sparse training on random masks with the `distribution`'s counts: what every other method must beat."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        sparsity: float = 0.9,
        **core: Unpack[CoreOptions],
    ) -> None:
        super().__init__(model, optimizer, Settings(sparsity=sparsity, total_steps=total_steps, **core))

    def initial_masks(self) -> dict[str, Tensor]:
        """By chance with "global" too, where other methods start with the largest magnitudes."""
        counts = layer_budgets(self.layers, self.settings.distribution, self.target_nonzeros)
        layers = self.explored
        return {layer.name: random_mask(layer.mask.shape, counts[layer.name], self.generator) for layer in layers}
