"""A weight under training with its mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .weight_layout import WeightLayout

_CHUNK = 1 << 18  # weights; the mask is converted to their type first, and so much of it stays in the cache


@dataclass(eq=False)
class SparseLayer:
    """One weight with its mask. A `kept_dense` layer counts in the budget, but its mask is not explored."""

    name: str
    parameter: nn.Parameter
    layout: WeightLayout
    mask: Tensor
    kept_dense: bool = False
    _seen: tuple[int, int] = (-1, -1)

    @property
    def weight(self) -> Tensor:
        return self.parameter.detach()

    @property
    def active_channels(self) -> int:
        """Output channels with a weight in the mask."""
        return int(self.layout.rows(self.mask).any(1).sum())

    def follow_device(self) -> None:
        """The model may have moved since the mask was made."""
        if self.mask.device != self.parameter.device:
            self.mask = self.mask.to(self.parameter.device)

    def enforce(self, optimizer_state: Mapping[str, Any]) -> None:
        """Zero masked weights and what the optimizer keeps for them; one that grows later starts with zeros."""
        self.follow_device()
        inactive = ~self.mask
        self.parameter.masked_fill_(inactive, 0)
        for value in optimizer_state.values():
            if isinstance(value, Tensor) and value.shape == inactive.shape and value.is_floating_point():
                value.masked_fill_(inactive, 0)
        self.seen()

    def seen(self) -> None:
        """Take the weight as it is now for masked."""
        self._seen = self._state

    def forget(self) -> None:
        """Take the weight for unmasked."""
        self._seen = (-1, -1)

    @property
    def touched(self) -> bool:
        """Whether somebody else has written to the weight since, as loading a checkpoint does; not through `.data`."""
        return self._seen != self._state

    @property
    def _state(self) -> tuple[int, int]:
        """What changes with the weight; the memory too, as `model.double()` makes no new version."""
        return self.parameter._version, self.parameter.data_ptr()


def mask_gradients(layers: Iterable[SparseLayer]) -> None:
    """Zero the gradients of masked weights, in one call for all layers."""
    gradients: list[Tensor] = []
    masks: list[Tensor] = []
    for layer in layers:
        gradient = layer.parameter.grad
        if gradient is None:
            continue
        layer.follow_device()
        mask = layer.mask.view(torch.uint8)  # several times faster to multiply with than bool on a CPU
        if gradient.device.type == "cpu" and gradient.is_contiguous() and mask.is_contiguous():
            gradients.extend(torch.split(gradient.view(-1), _CHUNK))
            masks.extend(torch.split(mask.view(-1), _CHUNK))
        else:
            gradients.append(gradient)
            masks.append(mask)
    if gradients:
        torch._foreach_mul_(gradients, masks)
