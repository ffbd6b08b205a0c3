"""Running a captured graph in float64, as the reference for constants and for verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from .channels.axes import size_of
from .channels.carriers import PositionalMaps
from .graph import tensor_meta

_STEADY = 1e-12  # relative spread up to which a map counts as independent of input and batch


class Float64Interpreter(Interpreter):
    """Runs a graph with every floating-point tensor in float64, whatever its own precision."""

    def __init__(self, graph_module: GraphModule, *, garbage_collect_values: bool = True) -> None:
        super().__init__(graph_module, garbage_collect_values=garbage_collect_values)

    def run_node(self, n: Node) -> Any:
        return _widen(super().run_node(n))

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = (torch.utils._pytree.tree_map(_widen_dtype, a) for a in (args, dict(kwargs)))
        return super().call_function(target, args, kwargs)

    def run_flat(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Outputs for flat inputs, both in the order of the graph's signature."""
        with torch.no_grad():
            return tuple(torch.utils._pytree.tree_leaves(self.run(*inputs, enable_io_processing=False)))


def _widen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    return tuple(_widen(v) for v in value) if isinstance(value, tuple | list) else value


def _widen_dtype(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def example_inputs(graph_module: GraphModule, dynamic_size: int, generator: torch.Generator) -> list[Any]:
    """Random flat inputs for a captured graph: normal numbers, zeros for integers; dynamic sizes all alike."""
    return [_example(n.meta["val"], dynamic_size, generator) for n in graph_module.graph.nodes if n.op == "placeholder"]


def _example(meta: Any, dynamic_size: int, generator: torch.Generator) -> Any:
    if not isinstance(meta, Tensor):
        return meta
    shape = [_concrete(size, dynamic_size) for size in meta.shape]
    if meta.is_floating_point():
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.zeros(shape, dtype=meta.dtype)


def _concrete(size: Any, dynamic_size: int) -> int:
    expression = size_of(size)
    return (
        expression
        if isinstance(expression, int)
        else int(expression.subs(dict.fromkeys(expression.free_symbols, dynamic_size)))
    )


def only_batch_is_dynamic(graph_module: GraphModule) -> bool:
    """Whether every dynamic size is the first axis of some input."""
    shapes = [m.shape for n in graph_module.graph.nodes if n.op == "placeholder" and (m := tensor_meta(n)) is not None]
    return all(isinstance(size, int) for shape in shapes for size in shape[1:])


def measure_positional_maps(
    graph_module: GraphModule, operands: Mapping[Node, tuple[Node, int]]
) -> dict[Node, PositionalMaps]:
    """Maps over positions of the operand of each listed node, with its channel axis: (channels, positions).

    A channel's map is valid where it is the same for other inputs and another batch size. Empty where sizes
    other than the batch are dynamic: a map holds for one size only.
    """
    if not operands or not only_batch_is_dynamic(graph_module):
        return {}
    generator = torch.Generator().manual_seed(0)
    first, second = (
        _channel_maps(graph_module, operands, example_inputs(graph_module, batch, generator)) for batch in (2, 3)
    )
    return {node: _compare(first[node], second[node]) for node in operands}


def _channel_maps(
    graph_module: GraphModule, operands: Mapping[Node, tuple[Node, int]], inputs: list[Any]
) -> dict[Node, tuple[np.ndarray, np.ndarray]]:
    """Per listed node: low and high of its operand over batch positions, each (channels, static positions)."""
    recorder = _Recorder(graph_module, {operand for operand, _ in operands.values()})
    recorder.run_flat(inputs)
    return {node: _low_high(operand, axis, recorder.seen[operand]) for node, (operand, axis) in operands.items()}


class _Recorder(Float64Interpreter):
    def __init__(self, graph_module: GraphModule, wanted: set[Node]) -> None:
        super().__init__(graph_module)
        self.wanted = wanted
        self.seen: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n in self.wanted:
            self.seen[n] = result
        return result


def _low_high(operand: Node, axis: int, value: Tensor) -> tuple[np.ndarray, np.ndarray]:
    shape = operand.meta["val"].shape
    dynamic = [j for j, size in enumerate(shape) if j != axis % len(shape) and not isinstance(size, int)]
    low = value.amin(dim=dynamic, keepdim=True) if dynamic else value
    high = value.amax(dim=dynamic, keepdim=True) if dynamic else value
    channels = value.shape[axis]
    return tuple(t.movedim(axis, 0).reshape(channels, -1).numpy() for t in (low, high))  # type: ignore[return-value]


def _compare(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> PositionalMaps:
    low = np.minimum(first[0], second[0])
    high = np.maximum(first[1], second[1])
    scale = np.abs(high).max(axis=1, initial=0.0)
    valid = ((high - low).max(axis=1, initial=0.0) <= _STEADY * scale) & np.isfinite(high).all(axis=1)
    return PositionalMaps(first[0], valid)
