"""Let call sites that read equal constants of one parameter share them again.

Legal where (1) both constants come from the same parameter of the model, and (2) they are equal in type, shape
and value. A reused module or a tied weight is thus stored once as long as its call sites keep the same channels.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch.fx import GraphModule, Node

from .base import GraphPass
from .graph import ORIGIN, constant_of, mutated_constants


class ShareConstants(GraphPass):
    """Stores equal copies of one parameter once."""

    def rewrite(self, graph_module: GraphModule) -> bool:
        written = mutated_constants(graph_module)
        by_origin: dict[str, list[Node]] = defaultdict(list)
        modified = False
        for node in graph_module.graph.nodes:
            if node.op != "get_attr" or ORIGIN not in node.meta or node.target in written:
                continue
            known = by_origin[node.meta[ORIGIN]]
            twin = next((k for k in known if _equal(k, node)), None)
            if twin is None:
                known.append(node)
            elif twin.target != node.target:
                node.target = twin.target
                modified = True
        return modified


def _equal(a: Node, b: Node) -> bool:
    x, y = constant_of(a), constant_of(b)
    return x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)
