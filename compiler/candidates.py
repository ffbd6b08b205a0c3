"""The layers whose form is to be chosen, as they stand in the graph and as they are timed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..passes.channels.axes import size_of
from ..passes.condense import CONV2D, SparseLayer, pair, sparse_enough, sparse_layers
from ..passes.graph import bind, constant_of, tensor_meta
from ..runtime.onnxruntime.layer_models import LayerForm, Window
from .choice import CONDENSED
from .cost import layer_costs

_MOST_DENSITY = 0.5  # above it no kernel of ours comes near a dense one
_LEAST_WORK = 100_000  # multiply-accumulates: a dense layer below it takes a few microseconds, no more than the call


@dataclass(frozen=True)
class Candidate:
    """A sparse layer that may be condensed, by the name of its module, and as it is timed."""

    name: str
    layer: SparseLayer
    form: LayerForm


def find_candidates(graph_module: GraphModule, inputs: Sequence[Tensor], asked: str) -> list[Candidate]:
    """Sparse layers worth a measurement; where nothing is measured, those that are sparse enough."""
    costs = {cost.node: cost for cost in layer_costs(graph_module)}
    sizes = sizes_here(graph_module, inputs)
    found = []
    for layer in sparse_layers(graph_module):
        fits = sparse_enough(layer) if asked == CONDENSED else layer.density <= _MOST_DENSITY
        form = _form(layer, sizes) if fits else None
        if form is not None and (asked == CONDENSED or _work(form) >= _LEAST_WORK):
            found.append(Candidate(costs[layer.node.name].layer, layer, form))
    return found


def sizes_here(graph_module: GraphModule, inputs: Sequence[Tensor]) -> dict[Any, int]:
    """The dynamic sizes, by symbol, that these inputs have."""
    shapes = [m.shape for n in graph_module.graph.nodes if n.op == "placeholder" and (m := tensor_meta(n)) is not None]
    pairs = [
        (size_of(s), t) for shape, x in zip(shapes, inputs, strict=True) for s, t in zip(shape, x.shape, strict=True)
    ]
    return {size: found for size, found in pairs if not isinstance(size, int) and size.is_Symbol}


def shape_here(node: Node, sizes: Mapping[Any, int]) -> tuple[int, ...] | None:
    """A tensor's shape at these sizes; None where it depends on more."""
    shape = [s if isinstance(s := size_of(size), int) else s.subs(sizes) for size in node.meta["val"].shape]
    if any(not isinstance(size, int) and size.free_symbols for size in shape):
        return None
    return tuple(map(int, shape))


def _form(layer: SparseLayer, sizes: Mapping[Any, int]) -> LayerForm | None:
    """The layer with what is fused, at these sizes; None where no kernel runs its type, or sizes depend on more."""
    arguments = bind(layer.node)
    weight = constant_of(arguments["weight"])
    if weight.dtype != torch.float32:
        return None
    shape = shape_here(arguments["input"], sizes)
    if shape is None:
        return None
    window = None
    if layer.node.target is CONV2D:
        stride, padding, dilation = (tuple(pair(arguments[key])) for key in ("stride", "padding", "dilation"))
        window = Window(stride, padding, dilation, arguments["groups"])
    return LayerForm(weight.numpy(), shape, window, layer.residual is not None, layer.activation)


def _work(form: LayerForm) -> int:
    return int(math.prod(form.output_shape) * form.weight[0].size)
