"""Axes as ordered products of factors: the arithmetic behind view, reshape and broadcasting.

A tensor axis is a row-major product of factors, as in einops: the flattened axis `(head dim)` has two.
A factor is *tracked* when the analysis follows its indices one by one (channels, heads), and untracked
when it treats them all alike (batch, height, width, tokens; any symbolic size). An axis of size 1 has
no factor at all, so broadcasting needs no special case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch

Size = Any  # int, or a sympy expression of the graph's dynamic sizes


@dataclass(frozen=True)
class Factor:
    """One factor of an axis; `size` is an int where the factor is tracked."""

    size: Size
    tracked: bool = False


Axis = tuple[Factor, ...]
Axes = tuple[Axis, ...]


def size_of(value: int | torch.SymInt) -> Size:
    """An int, or the sympy expression behind a symbolic size."""
    if isinstance(value, int):
        return value
    expression = value.node.expr
    return int(expression) if expression.is_number else expression


def untracked(shape: Sequence[Size]) -> Axes:
    return tuple(() if size == 1 else (Factor(size),) for size in shape)


def tracked(shape: Sequence[int]) -> Axes:
    return tuple(() if size == 1 else (Factor(size, True),) for size in shape)


def factors(axes: Axes) -> list[Factor]:
    return [factor for axis in axes for factor in axis]


def tracked_shape(axes: Axes) -> tuple[int, ...]:
    return tuple(factor.size for factor in factors(axes) if factor.tracked)


def axis_size(axis: Axis) -> Size:
    return math.prod((factor.size for factor in axis), start=1)


def is_static(size: Size) -> bool:
    return isinstance(size, int)


def quotient(a: Size, b: Size) -> Size | None:
    """a / b where b divides a for every value of the dynamic sizes, else None."""
    if is_static(a) and is_static(b):
        return a // b if a % b == 0 else None
    numerator, denominator = sympy.fraction(sympy.cancel(sympy.sympify(a) / b))
    if denominator != 1:
        return None
    return int(numerator) if numerator.is_number else numerator


def regroup(axes: Axes, shape: Sequence[Size]) -> Axes | None:
    """The axes after a view to `shape`: the same factors, split where needed and grouped anew.

    None where a factor would have to be cut across (a view of (6, 4) as (8, 3) with 6 tracked).
    """
    pending = _merge_untracked(factors(axes))
    grouped: list[Axis] = []
    for size in shape:
        axis: list[Factor] = []
        rest = size
        while rest != 1:
            if not pending:
                return None
            factor = pending.pop(0)
            if (over := quotient(rest, factor.size)) is not None:
                axis.append(factor)
                rest = over
            elif (inner := quotient(factor.size, rest)) is not None:
                axis.append(Factor(rest, factor.tracked))
                pending.insert(0, Factor(inner, factor.tracked))
                rest = 1
            else:
                return None
        grouped.append(tuple(axis))
    return None if pending else tuple(grouped)


def _merge_untracked(sequence: list[Factor]) -> list[Factor]:
    """Neighbouring untracked factors as one: nothing distinguishes their indices."""
    merged: list[Factor] = []
    for factor in sequence:
        if merged and not merged[-1].tracked and not factor.tracked:
            merged[-1] = Factor(merged[-1].size * factor.size)
        else:
            merged.append(factor)
    return merged


def refine(axes: Sequence[Axis]) -> list[Size] | None:
    """Sizes of the coarsest common refinement of several factorisations of one axis, or None."""
    queues = [[factor.size for factor in axis] for axis in axes]
    sizes: list[Size] = []
    while any(queues):
        if not all(queues):
            return None
        heads = [queue[0] for queue in queues]
        piece = next((head for head in heads if all(quotient(other, head) is not None for other in heads)), None)
        if piece is None or piece == 1:
            return None
        sizes.append(piece)
        for queue in queues:
            rest = quotient(queue.pop(0), piece)
            if rest != 1:
                queue.insert(0, rest)
    return sizes


def track_alike(axes: Sequence[Axis]) -> bool:
    """Whether several axes of one size track the same indices in the same order (nothing, for example)."""
    if not any(factor.tracked for axis in axes for factor in axis):
        return True
    sizes = refine(axes)
    if sizes is None:
        return False
    flags = [[factor.tracked for factor in split_axis(axis, sizes)] for axis in axes]
    return all(own == flags[0] for own in flags)


def split_axis(axis: Axis, sizes: Sequence[Size]) -> Axis:
    """`axis` with its factors split into `sizes`, a refinement of it."""
    pending, parts = list(axis), []
    for size in sizes:
        factor = pending.pop(0)
        parts.append(Factor(size, factor.tracked))
        rest = quotient(factor.size, size)
        if rest != 1:
            pending.insert(0, Factor(rest, factor.tracked))
    return tuple(parts)
