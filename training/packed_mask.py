"""A boolean mask in one bit per weight."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..passes.errors import MaskError


@dataclass(frozen=True, eq=False)
class PackedMask:
    """`bits` is np.packbits of the mask, flattened row by row: the first weight is the highest bit of byte 0."""

    shape: tuple[int, ...]
    bits: NDArray[np.uint8]
    nonzeros: int

    @classmethod
    def pack(cls, mask: Tensor) -> Self:
        bits = np.packbits(mask.cpu().numpy().reshape(-1))
        bits.flags.writeable = False
        return cls(tuple(mask.shape), bits, int(mask.sum()))

    def unpack(self) -> Tensor:
        """A new boolean tensor of shape `shape` on the CPU."""
        flat = np.unpackbits(self.bits, count=self.size).astype(bool)
        return torch.from_numpy(flat).reshape(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    def equals(self, other: PackedMask) -> bool:
        return self.shape == other.shape and np.array_equal(self.bits, other.bits)


def as_boolean(name: str, mask: Any) -> Tensor:
    """A mask of zeros and ones in any type as a boolean tensor; MaskError where it is something else."""
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(np.ascontiguousarray(mask))
    if not isinstance(mask, Tensor):
        raise MaskError(f"the mask of {name} is a {type(mask).__name__}; expected a tensor of zeros and ones")
    values: Tensor = mask.detach()
    if values.dtype == torch.bool:
        return values
    other = (values != 0) & (values != 1)
    if other.any():
        raise MaskError(
            f"the mask of {name}, {str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}, contains "
            f"{values[other].reshape(-1)[0].item()}; a mask holds only 0 and 1. Write `mask != 0` if every other value "
            "means keep"
        )
    return values != 0
