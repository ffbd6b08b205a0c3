"""One view of every weight tensor: (groups, outputs of a group, inputs of a group, kernel positions)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..passes.errors import MaskError


@dataclass(frozen=True)
class WeightLayout:
    """Where a weight keeps its output channels.

    Convolutions and linear layers keep them on axis 0, transposed convolutions on axis 1, there per group.
    """

    output_axis: int = 0
    groups: int = 1

    def __post_init__(self) -> None:
        if self.output_axis not in (0, 1) or type(self.groups) is not int or self.groups < 1:
            raise MaskError(f"output_axis must be 0 or 1 and groups positive, found {self.output_axis}, {self.groups}")

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """The layout of `module.weight`."""
        transposed = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
        return cls(output_axis=int(transposed), groups=module.groups if isinstance(module, _ConvNd) else 1)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of this shape can have this layout."""
        if len(shape) < 2:
            return self == WeightLayout()
        return shape[0] % self.groups == 0

    def grid(self, weight: Tensor) -> Tensor:
        """The weight as (groups, outputs, inputs, positions); a vector counts as outputs with one input each."""
        if weight.ndim < 2:
            return weight.reshape(1, -1, 1, 1)
        grid = weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], prod(weight.shape[2:]))
        return grid.transpose(1, 2) if self.output_axis else grid

    def rows(self, weight: Tensor) -> Tensor:
        """The weight as (output channels, weights of one channel)."""
        return self.grid(weight).flatten(2).flatten(0, 1)

    def from_grid(self, grid: Tensor, shape: torch.Size) -> Tensor:
        """The weight of shape `shape` with this grid."""
        return (grid.transpose(1, 2) if self.output_axis else grid).reshape(shape)

    def from_rows(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The weight of shape `shape` with these rows."""
        outputs = len(rows) // self.groups
        return self.from_grid(rows.reshape(self.groups, outputs, -1, prod(shape[2:])), shape)
