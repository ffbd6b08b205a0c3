"""A model as the compiler hands it to an engine, but for masks: captured, constants and BatchNorm folded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ...passes.capture import capture
from ...passes.errors import TableError
from ...passes.fold_batch_norm import FoldBatchNorm
from ...passes.fold_constants import FoldConstants
from ...passes.fold_unreached import FoldUnreached
from ...passes.graph import PATTERN, constant_of, is_constant
from ...passes.share_constants import ShareConstants

InputSpecs = Sequence[tuple[Sequence[int], str]]  # shape and dtype of every example input


def prepared(model: nn.Module | GraphModule, inputs: InputSpecs | None) -> GraphModule:
    """The graph of a model whose example inputs looked so; a captured graph is taken as it is."""
    if isinstance(model, GraphModule):
        return model
    if inputs is None:
        raise TableError("the latency table does not know the model's inputs; hand over a captured graph")
    return prepared_with(model, tuple(_example(shape, dtype) for shape, dtype in inputs))


def prepared_with(model: nn.Module, example_inputs: tuple[Any, ...]) -> GraphModule:
    """The graph of a model. Raises CaptureError."""
    graph_module = capture(model, example_inputs)
    _count_as_live(graph_module)
    for graph_pass in (FoldConstants(), FoldBatchNorm(), FoldUnreached(None), FoldBatchNorm(), ShareConstants()):
        graph_pass(graph_module)
    return graph_module


def _count_as_live(graph_module: GraphModule) -> None:
    """Layers that start as zeros would fold whatever is behind them; here only shapes matter."""
    for node in graph_module.graph.nodes:
        if is_constant(node) and (value := constant_of(node)).ndim > 1 and not value.any():
            node.meta[PATTERN] = torch.ones_like(value, dtype=torch.bool)


def specs(example_inputs: tuple[Any, ...]) -> list[tuple[list[int], str]]:
    """What `prepared` needs to know of example inputs, for a table's header."""
    return [(list(t.shape), str(t.dtype).removeprefix("torch.")) for t in example_inputs if isinstance(t, Tensor)]


def _example(shape: Sequence[int], dtype: str) -> Tensor:
    kind = getattr(torch, dtype)
    return torch.zeros(list(shape), dtype=kind)
