"""Gather the channels that a layer reads in front of it, so that it is thinner than the tensor it reads.

Channels stay in a tensor while any reader needs them (a residual stream has many), so that a layer may lack weights
for some. Legal where (1) the layer's weight is a constant, (2) its channel axis has a fixed size, and (3) what is left
out has no weight in the sparsity pattern; groups of a grouped layer keep equally many. Layers that read the same
channels of the same tensor share one gather.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch.fx import GraphModule, Node

from .base import GraphPass
from .channels.arrays import Mask
from .channels.rules import OperatorRule
from .channels.rules.call import Contraction
from .graph import constant_of
from .indices import narrow_indices
from .layer_weights import cut_weight, set_layer_weight
from .thinning import Width, least_width, pick, thin_inputs


class GatherInputs(GraphPass):
    """Lets layers read as many channels as `width` says; by default just those that have weights."""

    def __init__(self, width: Width = least_width, rules: Mapping[str, OperatorRule] | None = None) -> None:
        super().__init__()
        self._width, self._rules = width, rules

    def rewrite(self, graph_module: GraphModule) -> bool:
        gathers: dict[tuple[Node, int, bytes], Node] = {}
        for thinning in thin_inputs(graph_module, self._rules):
            kept = thinning.kept(self._width(thinning))
            if kept.all():
                continue
            c, indices = thinning.contraction, np.flatnonzero(kept)
            key = (c.operand, c.axis, indices.tobytes())
            if key not in gathers:  # the first reader in the graph's order: the gather stands in front of all
                gathers[key] = pick(c.operand, c.axis, indices, c.node, f"{thinning.weight.target}_inputs")
            _read(c, gathers[key], kept)
        return bool(gathers)


def _read(contraction: Contraction, gathered: Node, kept: Mask) -> None:
    kernel, node, weight = contraction.kernel, contraction.node, contraction.weight
    assert weight is not None
    every = np.ones((kernel.groups, kernel.outputs), bool)
    set_layer_weight(contraction, cut_weight(kernel.weight, kept, every), constant_of(weight).dtype, kept, every)
    node.replace_input_with(contraction.operand, gathered)
    narrow_indices(node, every.reshape(-1), kept.reshape(-1))
