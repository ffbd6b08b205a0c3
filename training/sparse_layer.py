"""A weight under training with its mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .weight_layout import WeightLayout


@dataclass(eq=False)
class SparseLayer:
    """One weight with its mask. A `kept_dense` layer counts in the budget, but its mask is not explored."""

    name: str
    parameter: nn.Parameter
    layout: WeightLayout
    mask: Tensor
    kept_dense: bool = False

    @property
    def weight(self) -> Tensor:
        return self.parameter.detach()

    @property
    def active_channels(self) -> int:
        """Output channels with a weight in the mask."""
        return int(self.layout.rows(self.mask).any(1).sum())

    def follow_device(self) -> None:
        """The model may have moved since the mask was made."""
        self.mask = self.mask.to(self.parameter.device)

    def mask_gradient(self) -> None:
        if self.parameter.grad is not None:
            self.follow_device()
            self.parameter.grad.masked_fill_(~self.mask, 0)

    def enforce(self, optimizer_state: Mapping[str, Any]) -> None:
        """Zero masked weights and what the optimizer keeps for them; one that grows later starts with zeros."""
        self.follow_device()
        inactive = ~self.mask
        self.parameter.masked_fill_(inactive, 0)
        for value in optimizer_state.values():
            if isinstance(value, Tensor) and value.shape == inactive.shape and value.is_floating_point():
                value.masked_fill_(inactive, 0)
