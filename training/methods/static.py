"""Masks that never change, chosen by chance."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

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
