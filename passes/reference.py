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

    def run_flat(self, inputs: Sequence[Any]) -> list[Any]:
        """The graph's flat outputs (tensors and literals) for its flat inputs."""
        with torch.no_grad():
            return list(self.run(*inputs, enable_io_processing=False))


def _widen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    return tuple(_widen(v) for v in value) if isinstance(value, tuple | list) else value


def _widen_dtype(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def flat_inputs(graph_module: GraphModule, tensors: Sequence[Tensor]) -> list[Any]:
    """Arguments of all placeholders, given the tensors among them; literals are those of the capture."""
    remaining = iter(_widen(t) for t in tensors)
    metas = [n.meta.get("val") for n in graph_module.graph.nodes if n.op == "placeholder"]
    return [next(remaining) if isinstance(meta, Tensor) else meta for meta in metas]


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
    spreads = _measure(graph_module, {operand for operand, _ in operands.values()})
    return {
        node: _channel_maps(*spreads[operand], axis) for node, (operand, axis) in operands.items() if operand in spreads
    }


def measure_unreached(graph_module: GraphModule, nodes: Sequence[Node]) -> dict[Node, Tensor]:
    """Values of nodes that no input reaches, of size 1 along dynamic axes; only those that prove steady."""
    spreads = _measure(graph_module, set(nodes))
    return {
        node: low.to(node.meta["val"].dtype)
        for node, (low, high) in spreads.items()
        if torch.isfinite(high).all() and (high - low).abs().max() <= _STEADY * high.abs().max()
    }


def _channel_maps(low: Tensor, high: Tensor, axis: int) -> PositionalMaps:
    lows, highs = (t.movedim(axis, 0).reshape(t.shape[axis], -1).numpy() for t in (low, high))
    scale = np.abs(highs).max(axis=1, initial=0.0)
    finite = np.isfinite(highs)
    spread = np.where(finite, highs, 0.0) - np.where(finite, lows, 0.0)
    steady = spread.max(axis=1, initial=0.0) <= _STEADY * scale
    return PositionalMaps(lows, steady & finite.all(axis=1))


def _measure(graph_module: GraphModule, nodes: set[Node]) -> dict[Node, tuple[Tensor, Tensor]]:
    """Lowest and highest value of each node, over dynamic axes and two runs with other inputs and batches."""
    if not nodes or not only_batch_is_dynamic(graph_module):
        return {}
    generator = torch.Generator().manual_seed(0)
    runs = []
    for batch in (2, 1):
        recorder = _Recorder(graph_module, nodes)
        recorder.run_flat(example_inputs(graph_module, batch, generator))
        runs.append(recorder.seen)
    return {node: _spread(node, [run[node] for run in runs]) for node in nodes}


def _spread(node: Node, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    dynamic = [j for j, size in enumerate(node.meta["val"].shape) if not isinstance(size, int)]
    doubles = [v.double() for v in values]
    lows = [v.amin(dim=dynamic, keepdim=True) if dynamic else v for v in doubles]
    highs = [v.amax(dim=dynamic, keepdim=True) if dynamic else v for v in doubles]
    return torch.minimum(*lows), torch.maximum(*highs)


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
