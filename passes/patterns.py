"""Put sparsity patterns on a captured graph: weights multiplied by their masks, masks noted on their nodes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.fx import GraphModule

from .errors import MaskError
from .graph import ORIGIN, PATTERN, constant_of, set_constant


def apply_patterns(graph_module: GraphModule, patterns: Mapping[str, Tensor]) -> list[str]:
    """Multiply the weights of a captured graph by bool masks (parameter name -> mask of its shape), in place.

    From then on a kept weight counts as live even where its value is zero. Returns the names that no operator of
    the graph reads. Raises MaskError where a mask has another shape than its weight.
    """
    unread = set(patterns)
    for node in list(graph_module.graph.nodes):
        name = str(node.meta.get(ORIGIN))
        if node.op != "get_attr" or not node.users or name not in patterns:
            continue
        weight, pattern = constant_of(node), patterns[name]
        if pattern.shape != weight.shape:
            raise MaskError(
                f"the mask of {name} has shape {tuple(pattern.shape)}, the parameter {tuple(weight.shape)}; "
                "masks and model do not belong together"
            )
        set_constant(node, weight * pattern)
        node.meta[PATTERN] = pattern
        unread.discard(name)
    return sorted(unread)
