"""Lower a captured graph to an ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen

from ...passes.channels.axes import size_of
from ...passes.describe import output_leaves
from ...passes.errors import TargetError
from ...passes.exhaustion import exhausted
from ...passes.graph import copy_graph
from ...passes.reference import example_inputs
from ...passes.signature import Signature
from .attention_axes import give_four_axes
from .condensed import complete, translations
from .empty_rows import zero_empty_rows
from .exporter_functions import functions_listed_once
from .near_identities import keep_near_identities

MODEL_FILE = "model.onnx"
_LARGEST_PROTOBUF = 2**31 - 2**24  # bytes; weights of a larger model go to a file of their own


def lower_to_onnx(
    graph_module: GraphModule,
    signature: Signature,
    folder: Path,
    complete: Callable[[Any], bool] = complete,
) -> Path:
    """Write `model.onnx` (and `model.onnx.data` for a large model) into `folder`.

    `complete` gives the condensed nodes of the exported model their final form, and the functions behind them.
    Inputs and outputs are the signature's tensors, by name. Raises TargetError where an operator has no ONNX form.
    """
    import onnx

    _refuse_complex(graph_module)
    program = flat_program(graph_module)
    try:
        with _silence(), functions_listed_once():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                verbose=False,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                custom_translation_table=translations(),
                optimize=False,
            )
            assert exported is not None
            keep_near_identities(exported.model)
            exported.optimize()
    except Exception as error:
        if exhausted(error) is not None:
            raise
        raise TargetError(
            f"the graph has no ONNX form: {_innermost(error)}; replace it in the model by operators that ONNX has, or "
            "stop "
            'at the graph with target="torch"'
        ) from error
    complete(exported.model)
    _make_names_unique(exported.model.graph)
    path = folder / MODEL_FILE
    exported.save(str(path), external_data=_weight_bytes(graph_module) > _LARGEST_PROTOBUF)
    onnx.checker.check_model(str(path))
    return path


def _refuse_complex(graph_module: GraphModule) -> None:
    for node in graph_module.graph.nodes:
        meta = node.meta.get("val")
        if isinstance(meta, torch.Tensor) and meta.is_complex():
            raise TargetError(
                f"{node.name} is {str(meta.dtype).removeprefix('torch.')}, and ONNX has hardly any operator for "
                "complex "
                'numbers; compute with real and imaginary parts, or stop at the graph with target="torch"'
            )


def _make_names_unique(graph: Any) -> None:
    """Weights and values inside give way to outputs, which are called as the user's keys are."""
    outputs = {value.name: value for value in graph.outputs}
    inside = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for value in inside:
        if outputs.get(value.name, value) is not value:
            value.name = f"{value.name}_inside"


def flat_program(graph_module: GraphModule) -> torch.export.ExportedProgram:
    """The graph exported anew with flat tensors in and out, keeping its dynamic sizes."""
    flat = flatten_signature(graph_module)
    zero_empty_rows(flat)
    give_four_axes(flat)
    placeholders = [n for n in flat.graph.nodes if n.op == "placeholder"]
    inputs = [
        value.to(n.meta["val"].dtype)
        for n, value in zip(placeholders, example_inputs(flat, 3, torch.Generator()), strict=True)
    ]
    dimensions: dict[str, Any] = {}
    shapes = tuple(_dynamic_axes(n, dimensions) for n in placeholders)
    with torch.no_grad(), _silence():
        return torch.export.export(flat, tuple(inputs), dynamic_shapes=shapes or None)


def flatten_signature(graph_module: GraphModule) -> GraphModule:
    """A copy of the graph that takes tensors and returns a tuple of distinct, computed tensors."""
    graph = copy_graph(graph_module.graph)
    graph.set_codegen(CodeGen())
    flat = GraphModule(graph_module, graph)
    for node in [n for n in graph.nodes if n.op == "placeholder" and not isinstance(n.meta.get("val"), torch.Tensor)]:
        graph.erase_node(node)
    output = next(n for n in graph.nodes if n.op == "output")
    tensors = dict.fromkeys(leaf for leaf in output_leaves(flat) if isinstance(leaf, Node))
    output.args = (tuple(_computed(node, output) for node in tensors),)
    flat.recompile()
    return flat


def _computed(node: Node, output: Node) -> Node:
    """An output that is an input or a constant is copied: ONNX wants an operator behind every output."""
    if node.op == "call_function":
        return node
    with output.graph.inserting_before(output):
        return output.graph.call_function(torch.ops.aten.clone.default, (node,))


def _dynamic_axes(placeholder: Node, dimensions: dict[str, Any]) -> dict[int, Any]:
    axes: dict[int, Any] = {}
    for axis, size in enumerate(placeholder.meta["val"].shape):
        expression = size_of(size)
        if isinstance(expression, int):
            continue
        plain = expression.is_Symbol
        axes[axis] = (
            dimensions.setdefault(str(expression), torch.export.Dim(str(expression)))
            if plain
            else torch.export.Dim.AUTO
        )
    return axes


def _weight_bytes(graph_module: GraphModule) -> int:
    tensors = [*graph_module.parameters(), *graph_module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress and deprecation notes off the user's terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0].rstrip('.')}"
