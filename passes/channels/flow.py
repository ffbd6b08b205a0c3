"""The channel flow of a graph: values, how they follow from each other, and what ties their elements together.

Operator rules build it with the methods below. Three kinds of ties come out of it: couplings (two elements
are one channel: kept or removed together), constraints (which sets of kept elements make a rectangular
tensor) and pins (elements that must stay, with the reason).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Constants, Indices
from .axes import Axes, Axis, Factor, Size, refine, split_axis, tracked_shape, untracked
from .constraints import Constraint, Product, Rectangle, SameRows
from .kernel import Kernel
from .transfer import (
    CONSTANT,
    LIVE,
    POSITIONAL,
    Apply,
    Contract,
    Effect,
    Gather,
    Merge,
    Mix,
    Select,
    Source,
    Transfer,
    Value,
)


@dataclass(frozen=True)
class Pin:
    elements: Indices
    reason: str


class ChannelFlow:
    """Values in the order in which the graph computes them, and the ties between their elements."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.couplings: list[tuple[Indices, Indices]] = []
        self.constraints: list[Constraint] = []
        self.pins: list[Pin] = []
        self.size = 0

    def add(self, axes: Axes, transfer: Transfer) -> Value:
        value = Value(axes, self.size, transfer)
        self.values.append(value)
        self.size += value.size
        return value

    # Ties

    def couple(self, a: Indices, b: Indices) -> None:
        self.couplings.append((a.reshape(-1), b.reshape(-1)))

    def pin(self, value: Value, reason: str) -> None:
        self.pins.append(Pin(value.elements.reshape(-1), reason))

    def require_rectangle(self, elements: Indices) -> None:
        """Kept elements must form a rectangular tensor in this order of dimensions."""
        if elements.ndim > 1:
            self.constraints.append(Rectangle(elements))

    def require_product(self, value: Value) -> None:
        """The kept set must be a product over the tracked dimensions: needed where their order changes."""
        for d in range(len(value.shape) if len(value.shape) > 1 else 0):
            rows = np.moveaxis(value.elements, d, 0).reshape(value.shape[d], -1)
            self.constraints.append(Product(rows))

    def require_same_rows(self, *tables: Indices) -> None:
        """A row is kept in all of these (rows, any) tables or in none."""
        if len(tables[0]) > 1:
            self.constraints.append(SameRows(tables))

    # Values

    def source(self, axes: Axes, constant: Constants | None) -> Value:
        """A constant of known values, or with None something that depends on the input."""
        shape = tracked_shape(axes)
        if constant is None:
            return self.add(axes, Source(np.full(shape, LIVE, np.uint8), np.full(shape, np.nan)))
        return self.add(axes, Source(np.full(shape, CONSTANT, np.uint8), constant.reshape(shape)))

    def opaque(self, shape: Sequence[Size], operands: Sequence[Value], reason: str, *, live: bool = True) -> Value:
        """An operator that nothing is known of: everything it touches stays."""
        for operand in operands:
            self.pin(operand, reason)
        state = LIVE if live else max((int(o.state.max(initial=0)) for o in operands), default=LIVE)
        unknown = np.array(max(state, POSITIONAL), np.uint8)
        value = self.add(untracked(shape), Source(unknown, np.array(np.nan), tuple(operands)))
        self.pin(value, reason)
        return value

    def select(
        self, operands: Sequence[Value], axes: Axes, owner: Indices, position: Indices, fill: float = 0.0
    ) -> Value:
        """Data movement by tables: element e is operands[owner[e]][position[e]], or `fill` where owner is -1."""
        value = self.add(axes, Select(tuple(operands), owner, position, fill))
        for k, operand in enumerate(operands):
            mine = owner == k
            self.couple(value.elements[mine], operand.elements.reshape(-1)[position[mine]])
        return value

    def take(self, operand: Value, axes: Axes, positions: Indices) -> Value:
        """Data movement from one operand; `positions` has the tracked shape of `axes`."""
        return self.select([operand], axes, np.zeros(positions.shape, np.int64), positions)

    def reinterpret(self, operand: Value, axes: Axes) -> Value:
        """The same elements under other axes (factors split or regrouped, never reordered)."""
        if axes == operand.axes:
            return operand
        return self.take(operand, axes, np.arange(operand.size).reshape(tracked_shape(axes)))

    def collapse(self, operand: Value, keep: Sequence[bool]) -> Value:
        """Stop tracking some factors; `keep` has one entry per tracked factor, in order."""
        if all(keep):
            return operand
        kept = iter(keep)
        axes = tuple(tuple(Factor(f.size, f.tracked and next(kept)) for f in axis) for axis in operand.axes)
        shape = tracked_shape(axes)
        wide = tuple(size if k else 1 for size, k in zip(operand.shape, keep, strict=True))
        target = np.broadcast_to(np.arange(int(np.prod(shape, dtype=np.int64))).reshape(wide), operand.shape)
        return self.merge([operand], axes, [target])

    def merge(self, operands: Sequence[Value], axes: Axes, targets: Sequence[Indices]) -> Value:
        """Elements of the operands seen as one wherever they have the same target."""
        value = self.add(axes, Merge(tuple(operands), tuple(targets), tracked_shape(axes)))
        flat = value.elements.reshape(-1)
        for operand, target in zip(operands, targets, strict=True):
            self.couple(flat[target], operand.elements)
        return value

    def elementwise(
        self,
        operands: Sequence[Value],
        shape: Sequence[Size],
        function: Callable[[Sequence[Constants]], Constants] | None,
        *,
        annihilators: tuple[int, ...] = (),
        effect: Effect = Effect.NONE,
        unknown: int = POSITIONAL,
        total: bool = True,
    ) -> Value:
        """A function of broadcast operands; coupled where they have an index in common."""
        axes, aligned, dimensions = self._align(operands, shape)
        out_shape = tracked_shape(axes)
        broadcast = tuple(
            tuple(size if d in present else 1 for d, size in enumerate(out_shape)) for present in dimensions
        )
        value = self.add(
            axes, Apply(tuple(aligned), broadcast, out_shape, function, annihilators, effect, unknown, total)
        )
        for operand, present in zip(aligned, dimensions, strict=True):
            self._tie_broadcast(value, operand, present)
        return value

    def gather(self, operand: Value, index: Value) -> Value:
        """The same channels at positions chosen by a computed index, whose own channels stay together."""
        whole = self.collapse(index, [False] * len(index.shape))
        value = self.add(operand.axes, Gather(operand, whole))
        self.couple(value.elements, operand.elements)
        return value

    def contract(self, operand: Value, axes: Axes, kernel: Kernel) -> Value:
        """Sums over input channels; `operand` has the shape (groups * inputs,)."""
        value = self.add(axes, Contract(operand, kernel))
        if kernel.groups > 1:
            rows_in = operand.elements.reshape(kernel.groups, kernel.inputs)
            rows_out = value.elements.reshape(kernel.groups, kernel.outputs)
            if kernel.inputs == kernel.outputs == 1:
                self.couple(rows_in, rows_out)
            else:
                self.require_rectangle(rows_in)
                self.require_rectangle(rows_out)
                self.require_same_rows(rows_in, rows_out)
        return value

    def mix(self, operand: Value, mixed: Sequence[int], axes: Axes, reason: str) -> Value:
        """Pin the dimensions `mixed` of the operand's tracked shape: each index depends on all."""
        value = self.add(axes, Mix(operand, tuple(mixed), tracked_shape(axes)))
        self.pin(operand, reason)
        self.pin(value, reason)
        if value.shape == operand.shape:
            self.couple(value.elements, operand.elements)
        return value

    # Alignment of broadcast operands

    def _align(self, operands: Sequence[Value], shape: Sequence[Size]) -> tuple[Axes, list[Value], list[list[int]]]:
        """Bring operands to common factors; per operand the output's tracked dimensions that it has."""
        rank = len(shape)
        padded = [((),) * (rank - len(o.axes)) + o.axes for o in operands]
        columns = [_common_axis([axes[j] for axes in padded], shape[j]) for j in range(rank)]
        axes: Axes = tuple(column[0] for column in columns)
        numbers = np.cumsum([0, *(sum(f.tracked for f in axis) for axis in axes)])
        aligned, dimensions = [], []
        for k, operand in enumerate(operands):
            split: Axes = tuple(column[1][k] for column in columns)
            value = self.reinterpret(operand, split)
            keep = [bool(t) for axis, target in zip(split, axes, strict=True) for t in _tracked_in(axis, target)]
            aligned.append(self.collapse(value, keep))
            dimensions.append(
                [
                    int(numbers[j]) + i
                    for j, axis in enumerate(split)
                    if axis
                    for i in range(sum(f.tracked for f in axes[j]))
                ]
            )
        return axes, aligned, dimensions

    def _tie_broadcast(self, value: Value, operand: Value, present: Sequence[int]) -> None:
        rank = len(value.shape)
        if len(present) == rank:
            self.couple(value.elements, operand.elements)
            return
        if not present:
            return  # one value for all channels belongs to none of them
        missing = [d for d in range(rank) if d not in present]
        rows = np.transpose(value.elements, [*present, *missing]).reshape(operand.size, -1)
        if list(present) != list(range(len(present))):
            self.constraints.append(Product(rows))
        self.require_same_rows(rows, operand.elements.reshape(operand.size, 1))


def _common_axis(parts: Sequence[Axis], size: Size) -> tuple[Axis, list[Axis]]:
    """The output's factors of one axis, and each operand's axis split to match (empty where it broadcasts)."""
    present = [axis for axis in parts if axis]
    if not present:
        return untracked([size])[0], list(parts)
    sizes = refine(present)
    if sizes is None:
        return (Factor(size),), list(parts)
    split = [split_axis(axis, sizes) if axis else axis for axis in parts]
    common = tuple(Factor(piece, all(axis[i].tracked for axis in split if axis)) for i, piece in enumerate(sizes))
    return common, split


def _tracked_in(axis: Axis, target: Axis) -> list[bool]:
    """For each tracked factor of an operand's axis, whether the output tracks it too."""
    if len(axis) != len(target):
        return [False for f in axis if f.tracked]
    return [t.tracked for f, t in zip(axis, target, strict=True) if f.tracked]


def axes_like(axes: Axes, shape: Sequence[Size], keep: Sequence[int]) -> Axes:
    """`axes` where listed in `keep`, elsewhere untracked axes of the sizes in `shape`."""
    fresh = untracked(shape)
    return tuple(axes[j] if j in keep else fresh[j] for j in range(len(shape)))
