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
    for graph_pass in (FoldConstants(), FoldBatchNorm(), FoldUnreached(None), FoldBatchNorm(), ShareConstants()):
        graph_pass(graph_module)
    return graph_module


def specs(example_inputs: tuple[Any, ...]) -> list[tuple[list[int], str]]:
    """What `prepared` needs to know of example inputs, for a table's header."""
    return [(list(t.shape), str(t.dtype).removeprefix("torch.")) for t in example_inputs if isinstance(t, Tensor)]


def _example(shape: Sequence[int], dtype: str) -> Tensor:
    kind = getattr(torch, dtype)
    return torch.zeros(list(shape), dtype=kind)
