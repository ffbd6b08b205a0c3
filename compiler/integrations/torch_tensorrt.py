"""The passes in Torch-TensorRT's lowering list.

    from torch_tensorrt.dynamo.lowering.passes import _aten_lowering_pass

    _aten_lowering_pass(lowering_pass(), index=0)
    torch_tensorrt.dynamo.compile(torch.export.export(model, inputs), inputs)

A lowering pass takes a GraphModule of ATen operators and the compilation's settings, and returns the GraphModule. The
graph's weights have to be its own, as they are where an exported program is compiled. torch.compile hands weights
over as inputs; there, sparsefx.TorchBackend(inner="torch_tensorrt") slims the graph first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import GraphModule

from ...passes.channels.rules import OperatorRule
from ..pipeline import run_pipeline

LoweringPass = Callable[[GraphModule, Any], GraphModule]


def lowering_pass(rules: Mapping[str, OperatorRule] | None = None) -> LoweringPass:
    """A lowering pass that removes channels; zeros in the weights are the mask. `rules` as in RemoveChannels.

    The pass raises PassError where the graph has no shapes, and warns where it has no weights.
    """

    def remove_channels(graph_module: GraphModule, settings: Any) -> GraphModule:
        weights = any(node.op == "get_attr" for node in graph_module.graph.nodes)
        run_pipeline(graph_module, rules)
        if not weights:
            warnings.warn(
                "sparsefx: the graph to be lowered has no weights of its own, so that no channel can go; compile an "
                "exported program, or use sparsefx.TorchBackend with inner='torch_tensorrt'",
                RuntimeWarning,
                stacklevel=2,
            )
        return graph_module

    return remove_channels
