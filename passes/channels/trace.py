"""Trace a graph's channel flow: apply the operator table to every node, in order."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..graph import constant_of, is_constant, mutated_constants, operator_name, tensor_meta
from .arrays import Indices, Mask
from .axes import Axes, Factor, size_of, untracked
from .compaction import Compaction
from .flow import ChannelFlow, Pin
from .rules import OPERATOR_RULES, POINTWISE, Call, OperatorRule, Result
from .rules.call import Contraction, flatten
from .rules.elementwise import is_pointwise
from .transfer import CONSTANT, POSITIONAL, Source, Value

_LARGEST_TRACKED_CONSTANT = 2**22


class GraphTrace:
    """Values of all nodes of a graph, the contractions among them, and the operators without a rule."""

    def __init__(self, graph_module: GraphModule, rules: Mapping[str, OperatorRule] | None = None) -> None:
        self.flow = ChannelFlow()
        self.contractions: list[Contraction] = []
        self.unknown: dict[str, list[str]] = {}
        self._rules = {**OPERATOR_RULES, **(rules or {})}
        self._values: dict[Node, Result] = {}
        self._mutated = mutated_constants(graph_module)
        for node in graph_module.graph.nodes:
            if node.op != "get_attr":
                self._values[node] = self._trace(node)
                self._require_rectangle(node)

    def rule_of(self, node: Node) -> OperatorRule | None:
        if node.op != "call_function":
            return None
        rule = self._rules.get(operator_name(node))
        return POINTWISE if rule is None and is_pointwise(node.target) else rule

    def lookup(self, node: Node) -> Result:
        if node not in self._values and is_constant(node) and tensor_meta(node) is not None:
            tensor = constant_of(node)
            axes = range(tensor.ndim) if tensor.numel() <= _LARGEST_TRACKED_CONSTANT else [tensor.ndim - 1]
            return self.constant(node, list(axes))
        return self._values.get(node)

    def values(self, node: Node) -> list[Value]:
        """The node's values, without tracing anything that no rule has asked for."""
        return flatten(self._values.get(node))

    def nodes(self) -> list[Node]:
        """All nodes but constants, in order."""
        return [n for n in self._values if n.op != "get_attr"]

    def constants(self) -> list[tuple[Node, Value]]:
        """The parameters and buffers that operators have asked for element by element."""
        return [(n, v) for n, v in self._values.items() if n.op == "get_attr" and isinstance(v, Value)]

    def constant(self, node: Node, tracked_axes: Sequence[int]) -> Value:
        known = self._values.get(node)
        if isinstance(known, Value):
            return known
        value = self._constant_value(constant_of(node), tracked_axes)
        if str(node.target) in self._mutated:
            value = self.flow.opaque(node.meta["val"].shape, [value], "a buffer that the model writes to")
        self._values[node] = value
        self.flow.require_rectangle(value.elements)
        return value

    def record(self, contraction: Contraction) -> None:
        self.contractions.append(contraction)

    def missing_operands(self, kept: Mask) -> list[Indices]:
        """Elements to keep of values that a kept operator reads but that have none: one, of a constant all."""
        compaction = Compaction(kept)
        missing = []
        for node in self._values:
            if node.op != "call_function" or operator_name(node) == "aten::cat":
                continue
            if any(compaction.any(v) for v in self.values(node)):
                operands = [(n, v) for n in node.all_input_nodes for v in self.values(n) if not compaction.any(v)]
                missing += [v.elements.reshape(-1)[: None if is_constant(n) else 1] for n, v in operands]
        return missing

    def _constant_value(self, tensor: Tensor, tracked_axes: Sequence[int]) -> Value:
        axes: Axes = tuple(
            () if size == 1 else (Factor(size, j in tracked_axes),) for j, size in enumerate(tensor.shape)
        )
        numbers = tensor.detach().double() if not tensor.is_complex() else torch.full(tensor.shape, torch.nan).double()
        others = [j for j in range(tensor.ndim) if j not in tracked_axes]
        if not others:
            return self.flow.source(axes, numbers.numpy().reshape(-1))
        low, high = numbers.amin(dim=others).numpy().reshape(-1), numbers.amax(dim=others).numpy().reshape(-1)
        state = np.where(low == high, CONSTANT, POSITIONAL).astype(np.uint8)
        return self.flow.add(axes, Source(state, low))

    def _trace(self, node: Node) -> Result:
        if node.op == "placeholder":
            return self._input(node)
        if node.op == "output":
            for operand in node.all_input_nodes:
                for value in flatten(self.lookup(operand)):
                    value.demand[...] = True
                    self.flow.pin(value, "an output of the model")
            return None
        if node.target is operator.getitem and isinstance(self.lookup(node.args[0]), tuple):  # type: ignore[arg-type]
            return self.lookup(node.args[0])[node.args[1]]  # type: ignore[arg-type,index]
        call = Call.of(node, self)
        if not call.shapes:
            self._pin_counted(node)
            return None
        rule = self.rule_of(node)
        if rule is None:
            self.unknown.setdefault(operator_name(node), []).append(node.name)
            return call.opaque(f"no rule for operator {operator_name(node)}")
        result = rule.channels(call)
        if overlooked := call.overlooked():
            self.contractions = [c for c in self.contractions if c.node is not node]
            return call.opaque(f"the rule for {operator_name(node)} does not cover operand {overlooked[0].name}")
        return result

    def _input(self, node: Node) -> Result:
        meta = tensor_meta(node)
        if meta is None:
            return None
        value = self.flow.source(untracked([size_of(s) for s in meta.shape]), None)
        self.flow.pin(value, "an input of the model")
        return value

    def _pin_counted(self, node: Node) -> None:
        """Operators that return no tensor: sizes, checks, writes to buffers."""
        if operator_name(node) == "aten::sym_size":
            value = self.lookup(node.args[0])  # type: ignore[arg-type]
            if isinstance(value, Value) and not any(f.tracked for f in value.axes[node.args[1]]):  # type: ignore[index]
                self.flow.pins.append(Pin(value.elements.reshape(-1)[:1], "its size is read"))
                return
        for operand in node.all_input_nodes:
            for value in flatten(self.lookup(operand)):
                self.flow.pin(value, f"read by {operator_name(node)}")
                value.demand[...] = True

    def _require_rectangle(self, node: Node) -> None:
        for value in flatten(self._values[node]):
            self.flow.require_rectangle(value.elements)
