"""A graph for torch on a GPU, and the engine of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from ...passes.errors import TargetError
from ...passes.signature import Signature
from ..build import Build, StandIn
from ..engine import Engine
from ..kernels.cuda.tools import find_gpu, gpu_description, import_triton
from ..onnxruntime.layer_models import LayerForm
from ..onnxruntime.layer_times import LayerTime
from ..onnxruntime.lower import flatten_signature
from .graph_file import read_graph, write_graph
from .precision import PRECISIONS, in_precision
from .session import TorchSession

TARGET = "torch:cuda"


class TorchCudaBuild(Build):
    """A graph with its constants in the target's precision. Raises TargetError where an operator cannot be saved."""

    @classmethod
    def kernels(cls) -> Path | None:
        import_triton()
        return None

    def lower(self) -> None:
        write_graph(flatten_signature(in_precision(self.graph_module, self.settings.precision)), self.folder)
        self.states.reach("parsed", "graph and constants")
        self.states.reach("built", "kernels are compiled when they are first run")

    def load(self) -> Engine:
        return torch_cuda_engine(self.folder, self.signature)

    @property
    def device(self) -> str:
        try:
            return str(gpu_description()["name"])
        except TargetError:
            return self.settings.target

    @property
    def facts(self) -> dict[str, Any]:
        facts = {"precision": self.settings.precision, "condensed_layers": len(_condensed(self.graph_module))}
        try:
            return {**facts, "gpu": gpu_description()}
        except TargetError:
            return facts

    def layer_times(self, forms: Sequence[LayerForm]) -> list[LayerTime]:
        from .layer_times import time_layers  # which needs Triton

        return time_layers(forms, PRECISIONS[self.settings.precision], find_gpu())

    def stand_in(self) -> StandIn | None:
        """The same graph on the CPU, in the same precision; none where torch lacks an operator in it there."""
        cpu = torch.device("cpu")
        engine = Engine(TorchSession(read_graph(self.folder, cpu), cpu), self.signature, "torch:cpu")
        try:
            engine.run_flat(self.inputs)
        except (RuntimeError, NotImplementedError):  # "not implemented for 'Half'"
            return None
        return StandIn(engine, "the same graph, from its file, by torch on the CPU", self.settings.precision)


def torch_cuda_engine(folder: Path, signature: Signature) -> Engine:
    """The engine of a graph's files. Raises TargetError without a GPU, and without Triton for condensed layers."""
    device = find_gpu()
    return Engine(TorchSession(load_graph(folder, device), device), signature, TARGET)


def load_graph(folder: Path, device: torch.device) -> GraphModule:
    """The graph of a target's files, on a GPU. Raises TargetError without Triton for condensed layers."""
    graph_module = read_graph(folder, device)
    if _condensed(graph_module):
        from ..kernels.cuda.operators import use_cuda_kernels

        use_cuda_kernels()
    return graph_module


def _condensed(graph_module: GraphModule) -> list[Any]:
    operators = (torch.ops.sparsefx.condensed_linear.default, torch.ops.sparsefx.condensed_conv2d.default)
    return [node for node in graph_module.graph.nodes if node.target in operators]
