"""Layers whose weights are 2:4 sparse: of every four inputs in a row at most two count.

Found in the graph by the weights themselves, not by what a mask's file says. Sparse tensor cores need it along the
input channels, for each position of a kernel by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule

from ...passes.condense import CONV2D, LINEAR
from ...passes.graph import ORIGIN, bind, constant_of, is_constant

_GROUP, _KEPT = 4, 2


def is_two_four(weight: Tensor) -> bool:
    """Whether a weight (outputs, inputs, ...) has at most two non-zeros in every four inputs in a row."""
    if weight.ndim < 2 or weight.shape[1] % _GROUP or not weight.numel():
        return False
    groups = (weight != 0).reshape(len(weight), -1, _GROUP, *weight.shape[2:])
    return int(groups.sum(2, dtype=torch.int8).max()) <= _KEPT


def two_four_layers(graph_module: GraphModule) -> list[str]:
    """Names of the weights of linear layers and ungrouped convolutions that are 2:4 sparse."""
    return [name for name, weight in _weights(graph_module) if is_two_four(weight)]


def broken_layers(before: GraphModule, after: GraphModule) -> list[str]:
    """Those that were 2:4 sparse, and are not after inputs were removed: what stays falls into other groups of four."""
    were = set(two_four_layers(before))
    return [name for name, weight in _weights(after) if name in were and not is_two_four(weight)]


def _weights(graph_module: GraphModule) -> Iterator[tuple[str, Tensor]]:
    for node in graph_module.graph.nodes:
        if node.target not in (LINEAR, CONV2D) or not is_constant(bind(node)["weight"]):
            continue
        weight = bind(node)["weight"]
        if node.target is CONV2D and bind(node)["groups"] != 1:
            continue
        yield str(weight.meta.get(ORIGIN, weight.target)), constant_of(weight)
