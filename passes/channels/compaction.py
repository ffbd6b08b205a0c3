"""Which elements stay, asked for by value: masks, sizes, and tensors cut down to what stays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .arrays import Mask
from .axes import Axis, Size, factors, is_static
from .transfer import Value


@dataclass(frozen=True)
class Compaction:
    """The kept elements of a flow; the kept ones of every tensor form a rectangle in row-major order."""

    elements: Mask

    def mask(self, value: Value) -> Mask:
        return self.elements[value.base : value.base + value.size].reshape(value.shape)

    def any(self, value: Value) -> bool:
        return bool(self.mask(value).any())

    def changed(self, value: Value) -> bool:
        return not self.mask(value).all()

    def shape(self, value: Value) -> tuple[int, ...]:
        """Sizes of the tracked factors after removal."""
        return rectangle(self.mask(value))

    def axis_sizes(self, value: Value) -> list[Size]:
        """Sizes of the tensor's axes after removal."""
        tracked = iter(self.shape(value))
        sizes: list[Size] = []
        for axis in value.axes:
            size: Size = 1
            for factor in axis:
                size = size * (next(tracked) if factor.tracked else factor.size)
            sizes.append(size)
        return sizes

    def cut(self, tensor: Tensor, value: Value) -> Tensor:
        """A tensor without the removed elements; dynamic sizes are read off it."""
        if not self.changed(value):
            return tensor
        sizes = [size for axis, total in zip(value.axes, tensor.shape, strict=True) for size in _sizes(axis, total)]
        tracked = [f.tracked for f in factors(value.axes)]
        order = [i for i, t in enumerate(tracked) if t] + [i for i, t in enumerate(tracked) if not t]
        moved = tensor.reshape(sizes).permute(order)
        rows = moved.reshape(value.size, -1)[torch.from_numpy(np.flatnonzero(self.mask(value)))]
        rest = [sizes[i] for i in order[len(value.shape) :]]
        restored = rows.reshape([*self.shape(value), *rest]).permute([order.index(i) for i in range(len(order))])
        counts = iter(restored.shape)
        return restored.reshape([math.prod(next(counts) for _ in axis) for axis in value.axes]).contiguous()


def spread(numbers: Tensor, value: Value, shape: tuple[int, ...]) -> Tensor:
    """One number per element of a value, repeated over the untracked indices of a tensor of `shape`."""
    sizes = [size for axis, total in zip(value.axes, shape, strict=True) for size in _sizes(axis, total)]
    own = [size if f.tracked else 1 for f, size in zip(factors(value.axes), sizes, strict=True)]
    return numbers.reshape(own).expand(sizes).reshape(shape)


def _sizes(axis: Axis, total: int) -> list[int]:
    """Sizes of an axis's factors in a tensor where the axis has `total` entries; at most one is dynamic."""
    known = math.prod(f.size for f in axis if is_static(f.size))
    return [f.size if is_static(f.size) else total // known for f in axis]


def rectangle(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """The shape that the kept entries fill, each level counted within the first kept row above it."""
    shape = []
    while mask.ndim:
        kept = mask.reshape(mask.shape[0], -1).any(axis=1)
        shape.append(int(kept.sum()))
        mask = mask[int(np.argmax(kept))]
    return tuple(shape)


def rank(mask: NDArray[np.bool_], index: int) -> int:
    """How many kept entries lie in front of `index`."""
    return int(mask[:index].sum())
