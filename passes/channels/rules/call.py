"""What an operator rule is given, and what it gives back.

A rule has two halves. `channels` says what the operator does to channels, in terms of the channel flow;
`rewrite` (needed only where a literal in the arguments counts channels) adapts those literals once the
kept channels are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from ...graph import (
    PATTERN,
    bind,
    constant_of,
    is_constant,
    node_operands,
    operator_name,
    origin_of,
    tensor_meta,
)
from ..arrays import Constants
from ..axes import Size, size_of
from ..compaction import Compaction
from ..flow import ChannelFlow
from ..kernel import Kernel
from ..transfer import Value

Result = Value | tuple[Value | None, ...] | None


class Trace(Protocol):
    """What a rule may ask of the trace it is part of."""

    flow: ChannelFlow

    def lookup(self, node: Node) -> Result:
        """The value of an operand."""

    def constant(self, node: Node, tracked_axes: Sequence[int]) -> Value:
        """The value of a constant, tracking only some of its axes."""

    def record(self, contraction: Contraction) -> None:
        """Note a contraction, at which channels that are removed leave their constants."""


@dataclass(frozen=True)
class Contraction:
    """A call that sums over channels: where removed constants are folded into the bias or carried."""

    node: Node
    inputs: Value
    outputs: Value
    kernel: Kernel
    axis: int  # the operand's channel axis
    operand: Node
    weight: Node | None = None  # None: a mean over channels
    bias: Node | None = None
    bias_name: str | None = None

    @property
    def layer(self) -> str:
        """The module's name in the user's model, by that of its weight; that of the node where it has no weight."""
        if self.weight is None:
            return self.node.name
        return origin_of(self.weight).removesuffix(".weight")


@dataclass(frozen=True)
class Call:
    """One operator call: the node, its arguments by name, and the values of its operands."""

    node: Node
    arguments: dict[str, Any]
    trace: Trace
    addressed: set[Node] = field(default_factory=set)  # operands that the rule has looked at

    @staticmethod
    def of(node: Node, trace: Trace) -> Call:
        arguments = bind(node) if hasattr(node.target, "_schema") else {}
        return Call(node, arguments, trace)

    @property
    def flow(self) -> ChannelFlow:
        return self.trace.flow

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def operator(self) -> str:
        return operator_name(self.node)

    @property
    def shape(self) -> tuple[Size, ...]:
        """Sizes of the (first) output."""
        return self.shapes[0]

    @property
    def shapes(self) -> list[tuple[Size, ...]]:
        value = self.node.meta.get("val")
        outputs = value if isinstance(value, tuple | list) else [value]
        return [tuple(size_of(size) for size in t.shape) for t in outputs if isinstance(t, Tensor)]

    def shape_of(self, name: str) -> tuple[Size, ...]:
        """Sizes of a tensor argument."""
        return tuple(size_of(size) for size in self.arguments[name].meta["val"].shape)

    def value(self, name: str) -> Value:
        """The value of a tensor argument."""
        return self.value_of(self.arguments[name])

    def value_of(self, node: Node) -> Value:
        self.addressed.add(node)
        value = self.trace.lookup(node)
        if not isinstance(value, Value):
            raise TypeError(f"{self.node.name}: operand {node} is no single tensor")
        return value

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of a constant argument, None where it is absent or computed."""
        node = self.arguments[name]
        if not is_constant(node):
            return None
        self.addressed.add(node)
        return constant_of(node)

    def constant_value(self, name: str, tracked_axes: Sequence[int]) -> Value:
        """The value of a constant argument, tracking only some of its axes."""
        self.addressed.add(self.arguments[name])
        return self.trace.constant(self.arguments[name], tracked_axes)

    def only_shape(self, name: str) -> None:
        """State that a tensor argument matters by its shape or type alone."""
        self.addressed.add(self.arguments[name])

    def overlooked(self) -> list[Node]:
        """Tensor operands that the rule has not looked at."""
        return [n for n in self.operands() if n not in self.addressed]

    def pattern(self, name: str) -> Tensor | None:
        pattern: Tensor | None = self.arguments[name].meta.get(PATTERN)
        return pattern

    def operands(self) -> list[Node]:
        """Every operand that is a tensor or a tuple of tensors."""
        return [n for n in node_operands((self.node.args, self.node.kwargs)) if tensor_meta(n) is not None]

    def has_dynamic_numbers(self) -> bool:
        """Whether a dynamic size enters as a number."""
        return any(tensor_meta(n) is None for n in node_operands((self.node.args, self.node.kwargs)))

    def opaque(self, reason: str, *, live: bool = True) -> Result:
        """Keep all channels of every operand and of every output."""
        self.addressed.update(self.operands())
        operands = [v for n in self.operands() for v in flatten(self.trace.lookup(n))]
        outputs = [self.flow.opaque(shape, operands, reason, live=live) for shape in self.shapes]
        return outputs[0] if isinstance(self.node.meta["val"], Tensor) else tuple(outputs)


@dataclass(frozen=True)
class Rewrite:
    """What the rewriting half of a rule is given: the node and the kept channels."""

    node: Node
    lookup: Callable[[Node], Result]
    kept: Compaction

    @property
    def arguments(self) -> dict[str, Any]:
        return bind(self.node)

    def value_of(self, node: Node) -> Value:
        value = self.lookup(node)
        assert isinstance(value, Value)
        return value


@dataclass(frozen=True)
class OperatorRule:
    """How one operator treats channels; see the module's docstring."""

    channels: Callable[[Call], Result]
    rewrite: Callable[[Rewrite], None] | None = None


def flatten(result: Result) -> list[Value]:
    if isinstance(result, tuple):
        return [value for value in result if value is not None]
    return [] if result is None else [result]


def evaluate(call: Call, nodes: Sequence[Node]) -> Callable[[Sequence[Constants]], Constants] | None:
    """The operator itself as a function of the constants of `nodes`; None where dynamic sizes enter."""
    if call.has_dynamic_numbers():
        return None
    dtypes = [_value_dtype(n) for n in nodes]

    def function(constants: Sequence[Constants]) -> Constants:
        tensors = {n: torch.from_numpy(np.array(c)).to(d) for n, c, d in zip(nodes, constants, dtypes, strict=True)}
        args, kwargs = torch.fx.node.map_arg((call.node.args, call.node.kwargs), lambda n: tensors[n])
        kwargs = {k: v for k, v in kwargs.items() if k not in ("memory_format", "layout", "device", "pin_memory")}
        result: Tensor = call.node.target(*args, **kwargs)  # type: ignore[operator]
        return result.double().numpy()

    return function


def _value_dtype(node: Node) -> torch.dtype:
    dtype = node.meta["val"].dtype
    return torch.float64 if dtype.is_floating_point else dtype
