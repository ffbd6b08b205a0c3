"""Values inside an ONNX Runtime engine beside the exact ones, to find the operator that deviates."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...passes.reference import Float64Interpreter, flat_inputs
from ...passes.signature import Signature
from .lower import flat_program


def values_inside(
    graph_module: GraphModule,
    signature: Signature,
    model: Path,
    inputs: Sequence[Tensor],
    custom_operators: Path | None = None,
) -> list[tuple[Node, Tensor, Tensor]]:
    """For every operator whose result an ONNX file names like the graph: node, exact value, the file's value."""
    import onnx
    import onnxruntime

    proto = onnx.load(str(model))
    produced = {name for node in proto.graph.node for name in node.output}
    program = flat_program(graph_module).module(check_guards=False)
    assert isinstance(program, GraphModule)
    interpreter = Float64Interpreter(program, garbage_collect_values=False)
    interpreter.run_flat(flat_inputs(program, inputs))
    exact = {n: v for n, v in interpreter.env.items() if n.name in produced and isinstance(v, Tensor)}
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n.name) for n in exact if n.name not in known)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inside.onnx"
        onnx.save(proto, str(path), save_as_external_data=proto.ByteSize() > 2**30)
        options = onnxruntime.SessionOptions()
        if custom_operators is not None:
            options.register_custom_ops_library(str(custom_operators))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feeds: dict[str, Any] = {s.name: t.numpy() for s, t in zip(signature.inputs, inputs, strict=True)}
        names = [n.name for n in exact]
        found = session.run(names, feeds)
    return [(n, exact[n], torch.from_numpy(value)) for n, value in zip(exact, found, strict=True)]
