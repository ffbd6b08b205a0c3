"""Transfer functions: what one operator does to channels, forward and backward.

Forward, every element (a channel of a tensor) is CONSTANT (one known value at every position, whatever the
input), POSITIONAL (independent of the input, but varying over positions, or of a value not known here) or
LIVE. Backward, an element is demanded when some output depends on it. Operators are described by the few
transfers below; each is exact on its own or errs towards LIVE and demanded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import numpy as np

from .arrays import Constants, Indices, Mask, States
from .axes import Axes, tracked_shape
from .kernel import Kernel

CONSTANT, POSITIONAL, LIVE = 0, 1, 2


class Transfer(Protocol):
    def forward(self) -> tuple[States, Constants]:
        """States and constants of the output's elements from those of the operands."""

    def backward(self, value: Value) -> None:
        """Pass the output's demand on to the operands."""


class Value:
    """One tensor as the analysis sees it: an element for every index of its tracked factors."""

    def __init__(self, axes: Axes, base: int, transfer: Transfer) -> None:
        self.axes = axes
        self.base = base
        self.transfer = transfer
        self.shape = tracked_shape(axes)
        state, constant = transfer.forward()
        unknown = (state == CONSTANT) & ~np.isfinite(constant)
        self.state: States = np.where(unknown, np.uint8(LIVE), state).reshape(self.shape)
        self.constant: Constants = np.where(self.state == CONSTANT, constant.reshape(self.shape), np.nan)
        self.demand: Mask = np.zeros(self.shape, dtype=bool)
        self.required: Mask = np.zeros(self.shape, dtype=bool)  # demanded where no constant can stand in for it
        self.sums_to_one = False  # along its last axis, as a softmax leaves it

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def elements(self) -> Indices:
        """The numbers of this value's elements, in the shape of its tracked factors."""
        return self.base + np.arange(self.size, dtype=np.int64).reshape(self.shape)

    def is_zero(self) -> Mask:
        return np.asarray((self.state == CONSTANT) & (self.constant == 0.0))


def _demand(operand: Value, positions: Indices) -> None:
    operand.demand.reshape(-1)[positions] = True


@dataclass(frozen=True)
class Source:
    """An input, a constant tensor, or the output of an operator without a rule."""

    state: States
    constant: Constants
    operands: tuple[Value, ...] = ()

    def forward(self) -> tuple[States, Constants]:
        return self.state, self.constant

    def backward(self, value: Value) -> None:
        if value.demand.any():
            for operand in self.operands:
                operand.demand[...] = True


@dataclass(frozen=True)
class Select:
    """Data movement: each output element is one operand element, or the constant `fill` (owner -1)."""

    operands: tuple[Value, ...]
    owner: Indices
    position: Indices
    fill: float = 0.0

    def forward(self) -> tuple[States, Constants]:
        state = np.full(self.owner.shape, CONSTANT, dtype=np.uint8)
        constant = np.full(self.owner.shape, self.fill)
        for k, operand in enumerate(self.operands):
            mine = self.owner == k
            state[mine] = operand.state.reshape(-1)[self.position[mine]]
            constant[mine] = operand.constant.reshape(-1)[self.position[mine]]
        return state, constant

    def backward(self, value: Value) -> None:
        for k, operand in enumerate(self.operands):
            _demand(operand, self.position[(self.owner == k) & value.demand])


@dataclass(frozen=True)
class Merge:
    """Many elements seen as one (an axis no longer tracked): constant only where all are the same constant."""

    operands: tuple[Value, ...]
    targets: tuple[Indices, ...]  # per operand: the output element of each of its elements
    shape: tuple[int, ...]

    def forward(self) -> tuple[States, Constants]:
        state = np.full(self.shape, CONSTANT, dtype=np.uint8)
        low, high = np.full(self.shape, np.inf), np.full(self.shape, -np.inf)
        for operand, target in zip(self.operands, self.targets, strict=True):
            where = target.reshape(-1)
            known = np.nan_to_num(operand.constant.reshape(-1))
            np.maximum.at(state.reshape(-1), where, operand.state.reshape(-1))
            np.minimum.at(low.reshape(-1), where, known)
            np.maximum.at(high.reshape(-1), where, known)
        state[(state == CONSTANT) & (low != high)] = POSITIONAL
        return state, low

    def backward(self, value: Value) -> None:
        for operand, target in zip(self.operands, self.targets, strict=True):
            operand.demand |= value.demand.reshape(-1)[target]


class Effect(Enum):
    """What an operator does to the positions of a tensor beside its element-wise function."""

    NONE = auto()
    BORDER = auto()  # zeros are seen outside the tensor: a uniform constant other than zero becomes positional


@dataclass(frozen=True)
class Apply:
    """An element-wise function of aligned operands, broadcasting; `function` works on their constants.

    `function` is None where the value cannot be known here. An element is annihilated, whatever the
    others, where an operand in `annihilators` is a constant zero.
    """

    operands: tuple[Value, ...]
    broadcast: tuple[tuple[int, ...], ...]  # per operand: its shape with 1 in the dimensions it lacks
    shape: tuple[int, ...]
    function: Callable[[Sequence[Constants]], Constants] | None
    annihilators: tuple[int, ...] = ()
    effect: Effect = Effect.NONE
    unknown: int = POSITIONAL
    total: bool = True  # finite for every finite operand

    def forward(self) -> tuple[States, Constants]:
        state = np.full(self.shape, CONSTANT, dtype=np.uint8)
        for operand, view in zip(self.operands, self.broadcast, strict=True):
            np.maximum(state, operand.state.reshape(view), out=state)
        constant = np.full(self.shape, np.nan)
        if self.function is None:
            np.maximum(state, np.uint8(self.unknown), out=state)
        elif (state == CONSTANT).any():
            known = [np.nan_to_num(o.constant).reshape(v) for o, v in zip(self.operands, self.broadcast, strict=True)]
            constant[...] = self.function(known)
        zero = self._annihilated(range(len(self.operands)))
        state[zero], constant[zero] = CONSTANT, 0.0
        if self.effect is Effect.BORDER:
            state[(state == CONSTANT) & (constant != 0.0)] = POSITIONAL
        return state, constant

    def backward(self, value: Value) -> None:
        for k, (operand, view) in enumerate(zip(self.operands, self.broadcast, strict=True)):
            others = [j for j in range(len(self.operands)) if j != k]
            needed = value.demand & ~self._annihilated(others)
            lacking = tuple(axis for axis, size in enumerate(view) if size != self.shape[axis])
            operand.demand |= needed.any(axis=lacking, keepdims=True).reshape(operand.shape)

    def _annihilated(self, candidates: Sequence[int]) -> Mask:
        zero = np.zeros(self.shape, dtype=bool)
        for k in set(self.annihilators).intersection(candidates):
            zero = zero | self.operands[k].is_zero().reshape(self.broadcast[k])
        return zero


@dataclass(frozen=True)
class Gather:
    """Positions of the operand chosen by a computed index: only a uniform constant stays what it is."""

    operand: Value
    index: Value

    def forward(self) -> tuple[States, Constants]:
        state = np.where(self.operand.state == CONSTANT, np.uint8(CONSTANT), np.uint8(LIVE))
        return state, self.operand.constant

    def backward(self, value: Value) -> None:
        self.operand.demand |= value.demand
        if (value.demand & (value.state != CONSTANT)).any():
            self.index.demand[...] = True


@dataclass(frozen=True)
class Contract:
    """A convolution, linear layer or product with a constant matrix: outputs are sums over input channels."""

    operand: Value  # shape (groups * inputs,)
    kernel: Kernel

    def forward(self) -> tuple[States, Constants]:
        kernel, edges = self.kernel, self.kernel.edges
        state = self.operand.state.reshape(kernel.groups, 1, kernel.inputs)
        constant = np.nan_to_num(self.operand.constant).reshape(kernel.groups, kernel.inputs)
        out = np.full((kernel.groups, kernel.outputs), CONSTANT, dtype=np.uint8)
        for level in (POSITIONAL, LIVE):
            out[(edges & (state == level)).any(axis=2)] = level
        total = kernel.bias + kernel.tap_sums(constant).sum(axis=2)
        if not kernel.uniform:
            varies = (kernel.tap_sums(constant) != 0.0).any(axis=2)
            out[varies] = np.maximum(out[varies], np.uint8(POSITIONAL))
        return out.reshape(-1), total.reshape(-1)

    def backward(self, value: Value) -> None:
        kernel = self.kernel
        wanted = (value.demand & (value.state != CONSTANT)).reshape(kernel.groups, kernel.outputs)
        needed = np.stack([kernel.edges[g, wanted[g]].any(axis=0) for g in range(kernel.groups)])
        self.operand.demand |= needed.reshape(self.operand.shape)


@dataclass(frozen=True)
class Mix:
    """An operator in which every index of an axis can change every other (softmax, norms, sorting)."""

    operand: Value
    axes: tuple[int, ...]  # the mixed dimensions of the operand's shape
    shape: tuple[int, ...]  # the output's shape: the mixed dimensions kept or dropped

    def forward(self) -> tuple[States, Constants]:
        state = self.operand.state.max(axis=self.axes, keepdims=True)
        state = np.maximum(np.broadcast_to(state, self.operand.shape), np.uint8(POSITIONAL))
        if self.shape != self.operand.shape:
            state = state.max(axis=self.axes)
        return state, np.full(state.shape, np.nan)

    def backward(self, value: Value) -> None:
        same = self.shape == self.operand.shape
        demand = value.demand.any(axis=self.axes, keepdims=True) if same else np.expand_dims(value.demand, self.axes)
        self.operand.demand |= np.broadcast_to(demand, self.operand.shape)
