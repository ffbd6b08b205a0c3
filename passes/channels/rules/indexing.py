"""How rules address the indices of one axis among the tracked dimensions of a value."""

from __future__ import annotations

import numpy as np

from ..arrays import Indices, Mask
from ..axes import Axes, Axis, Factor, Size, is_static, untracked
from ..compaction import Compaction
from ..transfer import Value
from .call import Call


def is_tracked(value: Value, dim: int) -> bool:
    return any(f.tracked for f in value.axes[dim])


def is_static_axis(value: Value, dim: int) -> bool:
    return all(is_static(f.size) for f in value.axes[dim])


def axis_length(value: Value, dim: int) -> int:
    return int(np.prod([f.size for f in value.axes[dim]], dtype=np.int64))


def tracked_before(value: Value, dim: int) -> int:
    """How many tracked dimensions lie in front of axis `dim`."""
    return sum(f.tracked for axis in value.axes[:dim] for f in axis)


def tracked_axis(size: int) -> Axis:
    return () if size == 1 else (Factor(size, True),)


def with_axis(value: Value, dim: int, axis: Axis) -> Axes:
    return (*value.axes[:dim], axis, *value.axes[dim + 1 :])


def with_untracked_axis(value: Value, dim: int, size: Size) -> Axes:
    return with_axis(value, dim, untracked([size])[0])


def along(value: Value, dim: int) -> Indices:
    """Element positions with axis `dim` as one dimension: (tracked before, size, tracked after).

    The axis must be static; indices of an untracked factor in it share their element.
    """
    first = tracked_before(value, dim)
    positions = _spread(np.arange(value.size).reshape(value.shape), value, dim)
    count = len(value.axes[dim])
    shape = (*positions.shape[:first], axis_length(value, dim), *positions.shape[first + count :])
    return positions.reshape(shape)


def _spread(array: Indices, value: Value, dim: int) -> Indices:
    """`array`, in the value's shape, with a dimension for every factor of axis `dim`."""
    first = tracked_before(value, dim)
    for i, factor in enumerate(value.axes[dim]):
        if not factor.tracked:
            array = np.repeat(np.expand_dims(array, first + i), factor.size, axis=first + i)
    return array


def take_along(call: Call, value: Value, dim: int, indices: Indices, axis: Axis) -> Value:
    """The listed indices of axis `dim`, which becomes `axis`."""
    first = tracked_before(value, dim)
    if first:
        call.flow.require_product(value)
    positions = np.take(along(value, dim), indices, axis=first)
    axes = with_axis(value, dim, axis)
    return call.flow.take(value, axes, positions.reshape([f.size for a in axes for f in a if f.tracked]))


def axis_mask(kept: Compaction, value: Value, dim: int) -> Mask:
    """Which indices of axis `dim` stay in any row."""
    first, count = tracked_before(value, dim), len(value.axes[dim])
    mask = _spread(kept.mask(value).astype(np.int64), value, dim).astype(bool)
    others = tuple(d for d in range(mask.ndim) if not first <= d < first + count)
    return mask.any(axis=others).reshape(-1)
