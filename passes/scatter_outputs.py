"""Compute only the outputs of a layer that have weights, and put them in their places among the constant others.

The last layer of a residual branch keeps a filter that is wholly zero while another branch needs that channel of the
sum. Legal where (1) the layer's weight is a constant, and (2) a row without weights, in the sparsity pattern, is left
out: its output is its bias at every position. Groups of a grouped layer keep equally many.

What is left is (a) added at its places to the other operand of a sum, where the sum alone reads the layer and channels
are the last axis; or (b) gathered into its places from the thin result and a channel of zeros behind it: engines like
that better for images. Constants other than zero are added to the other operand where that is a layer or the case is
(a), so that FoldBatchNorm can make a bias of them; else to the gathered result.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .base import GraphPass
from .channels.arrays import Mask
from .channels.axes import size_of
from .channels.rules import OperatorRule
from .channels.rules.call import Contraction
from .graph import add_constant, bind, constant_of, operator_name, set_constant, tensor_meta
from .indices import narrow_indices
from .layer_weights import cut_weight, set_layer_weight
from .thinning import Width, layers, least_width, pick, thin_outputs


class ScatterOutputs(GraphPass):
    """Lets layers compute as many channels as `width` says; by default just those that have weights."""

    def __init__(self, width: Width = least_width, rules: Mapping[str, OperatorRule] | None = None) -> None:
        super().__init__()
        self._width, self._rules = width, rules

    def rewrite(self, graph_module: GraphModule) -> bool:
        modified, known = False, {c.node for c in layers(graph_module, self._rules)}
        for thinning in thin_outputs(graph_module, self._rules):
            kept = thinning.kept(self._width(thinning))
            if not kept.all():
                _scatter(thinning.contraction, kept, known)
                modified = True
        return modified


def _scatter(contraction: Contraction, kept: Mask, known: set[Node]) -> None:
    node, behind = contraction.node, len(_shape(contraction.node)) - 1 - contraction.axis
    constants = torch.from_numpy(np.where(kept, 0.0, contraction.kernel.bias).reshape(-1, *[1] * behind))
    total, other = _sum(node)
    if total is not None and other is not None and (not behind or (other in known and len(other.users) == 1)):
        shifted = _plus(other, constants, contraction, total)
        total.replace_input_with(other, shifted)
        constants, other = torch.zeros_like(constants), shifted
    if total is not None and other is not None and not behind:
        _add_at_places(contraction, kept, total, other)
    else:
        _gather_into_places(contraction, kept, constants)
    _thin(contraction, kept)


def _sum(node: Node) -> tuple[Node, Node] | tuple[None, None]:
    """The sum that alone reads a layer, and its other operand of the same shape."""
    total = next(iter(node.users)) if len(node.users) == 1 else None
    if total is None or operator_name(total) != "aten::add" or bind(total).get("alpha", 1) != 1:
        return None, None
    other = next((n for n in total.all_input_nodes if n is not node), None)
    same = other is not None and tensor_meta(other) is not None and _shape(other) == _shape(node)
    return (total, other) if same and other is not None and _dtype(other) == _dtype(node) else (None, None)


def _plus(node: Node, constants: Tensor, contraction: Contraction, before: Node) -> Node:
    """A new node in front of `before`: `node` plus the constants of this layer's rows; `node` where they are zero."""
    weight, owner = contraction.weight, node.graph.owning_module
    assert weight is not None and owner is not None
    if not constants.any():
        return node
    source = add_constant(owner, before, f"{weight.target}_constants", constants.to(constant_of(weight).dtype))
    with node.graph.inserting_before(before):
        shifted = node.graph.call_function(torch.ops.aten.add.Tensor, (node, source))
    shifted.meta = {"val": node.meta["val"]}
    return shifted


def _add_at_places(contraction: Contraction, kept: Mask, total: Node, other: Node) -> None:
    weight, owner = contraction.weight, total.graph.owning_module
    assert weight is not None and owner is not None
    rows = add_constant(owner, total, f"{weight.target}_places", torch.from_numpy(np.flatnonzero(kept)))
    with total.graph.inserting_before(total):
        added = total.graph.call_function(
            torch.ops.aten.index_add.default, (other, contraction.axis, rows, contraction.node)
        )
    added.meta = dict(total.meta)
    total.replace_all_uses_with(added)


def _gather_into_places(contraction: Contraction, kept: Mask, constants: Tensor) -> None:
    node, weight, readers = contraction.node, contraction.weight, list(contraction.node.users)
    assert weight is not None
    places = np.where(kept.reshape(-1), np.cumsum(kept) - 1, kept.sum())
    pads = [0, 0] * (len(_shape(node)) - 1 - contraction.axis) + [0, 1]
    with node.graph.inserting_after(node):
        padded = node.graph.call_function(torch.ops.aten.constant_pad_nd.default, (node, pads, 0.0))
    scattered = pick(padded, contraction.axis, places, padded.next, f"{weight.target}_places")
    scattered.meta = {"val": node.meta["val"]}
    result = _plus(scattered, constants, contraction, scattered.next)
    for reader in readers:
        reader.replace_input_with(node, result)


def _thin(contraction: Contraction, kept: Mask) -> None:
    kernel, weight = contraction.kernel, contraction.weight
    assert weight is not None
    every = np.ones((kernel.groups, kernel.inputs), bool)
    set_layer_weight(contraction, cut_weight(kernel.weight, every, kept), constant_of(weight).dtype, every, kept)
    if contraction.bias is not None:
        bias = constant_of(contraction.bias)
        set_constant(contraction.bias, bias[torch.from_numpy(np.flatnonzero(kept))])
    narrow_indices(contraction.node, kept.reshape(-1), every.reshape(-1))


def _shape(node: Node) -> list[object]:
    meta = tensor_meta(node)
    assert meta is not None
    return [size_of(size) for size in meta.shape]


def _dtype(node: Node) -> torch.dtype:
    meta = tensor_meta(node)
    assert meta is not None
    return meta.dtype
