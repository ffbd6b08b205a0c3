"""Latency tables of graphs that torch runs: every operator between two marks of the device's clock.

On a GPU the marks are events, and the processor starts the operators well ahead of them, so that no start is in a time.
Not run on a GPU yet: none was at hand. The same goes on the CPU, by its clock, as a rehearsal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Interpreter, Node

from ...passes.graph import bind, is_constant, operator_name, origin_of
from ...passes.signature import Signature
from ..engine import Array
from ..kernels.cuda.tools import find_gpu, gpu_description
from ..latency.node import EngineNode
from ..latency.profiling import ProfiledEngine, Profiling, Run, gpu_setting
from ..latency.record import Setting
from ..onnxruntime.calibration import calibration_forms
from ..onnxruntime.engine_nodes import places
from ..onnxruntime.layer_models import LayerForm
from ..onnxruntime.lower import flatten_signature
from .build import load_graph
from .graph_file import write_graph
from .precision import in_precision
from .session import TorchSession, float32_is_float32

_LAYERS = ("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution")  # channels on axis 1
_PRODUCTS = ("aten::linear",)  # on the last
_HEAD_START = 50_000_000  # clock cycles, about 30 ms, that a GPU waits: longer than starting a network's operators
_SIZES = ("size", "shape", "normalized_shape", "split_size", "split_sizes", "groups")  # arguments that widths decide


@dataclass(frozen=True)
class Clock:
    """Marks moments; the seconds between two of them are known once the run is over."""

    mark: Callable[[], Any]
    between: Callable[[Any, Any], float]


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


CLOCKS = {
    "cpu": Clock(time.perf_counter, lambda start, end: end - start),
    "cuda": Clock(_event, lambda start, end: float(start.elapsed_time(end)) / 1e3),
}


class TorchProfiling(Profiling):
    """torch on a GPU, operator by operator; the whole is the engine's CUDA graph."""

    @classmethod
    def setting_here(cls, target: str, threads: int | None, batch: int, weights: str, precision: str) -> Setting:
        gpu = gpu_description()
        engine = f"torch {torch.__version__}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}"
        return gpu_setting(target, gpu["name"], engine, batch, weights, precision)

    @property
    def device(self) -> torch.device:
        return torch.device(find_gpu())

    def of_graph(self, graph_module: GraphModule, signature: Signature, folder: Path) -> ProfiledEngine:
        flat = flatten_signature(in_precision(graph_module, self.setting.precision))
        write_graph(flat, folder)
        layers = [_layer_of(node) for node in flat.graph.nodes]
        return _TorchEngine(load_graph(folder, self.device), layers, self.inputs(signature), self.device)

    def calibration(self, folder: Path) -> Run:
        run = _layers(calibration_forms(), self.device)
        if self.device.type == "cpu":
            return run

        def waiting() -> None:
            run()
            torch.cuda.synchronize(self.device)

        return waiting


class _TorchEngine:
    """A graph on a device; `layers` are the layers of the model that its nodes are, in order."""

    def __init__(
        self, graph_module: GraphModule, layers: Sequence[str | None], inputs: list[Array], device: torch.device
    ) -> None:
        self._session = TorchSession(graph_module, device)
        self._inputs, self._on_device = inputs, [torch.from_numpy(array).to(device) for array in inputs]
        names = dict(zip(graph_module.graph.nodes, layers, strict=True))
        self._timed = _Timed(graph_module, names, device)

    def run(self) -> object:
        with torch.no_grad(), float32_is_float32():
            return self._timed.run(*self._on_device)

    def plain(self) -> Run:
        return self._session.prepare(self._inputs)

    def finish(self) -> list[tuple[EngineNode, list[float]]]:
        return [(self._timed.described[node], seconds) for node, seconds in self._timed.seconds.items()]


class _Timed(Interpreter):
    """Runs a graph, and notes what every operator takes and what it is; arithmetic on sizes is none."""

    def __init__(self, graph_module: GraphModule, layers: dict[Node, str | None], device: torch.device) -> None:
        super().__init__(graph_module)
        self._layers, self._device, self._clock = layers, device, CLOCKS[device.type]
        self._marks: list[tuple[Node, Any, Any]] = []
        self.seconds: dict[Node, list[float]] = {}
        self.described: dict[Node, EngineNode] = {}

    def run(self, *args: Any, **kwargs: Any) -> Any:
        if self._device.type == "cuda":
            torch.cuda._sleep(_HEAD_START)  # type: ignore[no-untyped-call]
        outputs = super().run(*args, **kwargs)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        for node, start, end in self._marks:
            self.seconds.setdefault(node, []).append(self._clock.between(start, end))
        self._marks.clear()
        return outputs

    def run_node(self, n: Node) -> Any:
        if not isinstance(n.target, OpOverload):
            return super().run_node(n)
        start = self._clock.mark()
        result = super().run_node(n)
        end = self._clock.mark()
        made = _shapes(result)
        if made:
            self._marks.append((n, start, end))
            if n not in self.described:
                self.described[n] = self._describe(n, made)
        return result

    def _describe(self, node: Node, results: list[tuple[int, ...]]) -> EngineNode:
        read = _shapes([self.env[operand] for operand in node.all_input_nodes])
        layer, kind = self._layers[node], ", ".join(filter(None, (operator_name(node), _settings(node))))
        if layer is not None:
            (made,) = results
            axis = 1 if operator_name(node) in _LAYERS else -1
            given = tuple(self.env[bind(node)["input"]].shape)
            width = (given[axis], made[axis])
            parts = (kind, _groups(node, width), f"{places(given, axis)} to {places(made, axis)}")
            return EngineNode(node.name, ", ".join(filter(None, parts)), width, layer, width)
        ranks = [" ".join(str(len(shape)) for shape in side) for side in (read, results)]
        width = (sum(map(math.prod, read)), sum(map(math.prod, results)))
        return EngineNode(node.name, f"{kind}, ranks {' to '.join(ranks)}", width)


def _shapes(value: Any) -> list[tuple[int, ...]]:
    """Of a tensor, or of all in a list."""
    values = value if isinstance(value, list | tuple) else [value]
    return [tuple(tensor.shape) for tensor in values if isinstance(tensor, Tensor)]


def _settings(node: Node) -> str:
    """Arguments that are neither tensors nor sizes that follow from the widths."""
    bound = {name: value for name, value in bind(node).items() if name not in _SIZES}
    plain = {name: value for name, value in bound.items() if value is not None and not _holds_nodes(value)}
    return " ".join(f"{name} {_text(value)}" for name, value in plain.items())


def _holds_nodes(value: Any) -> bool:
    return isinstance(value, Node) or (isinstance(value, list | tuple) and any(map(_holds_nodes, value)))


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _layer_of(node: Node) -> str | None:
    """The model's layer that a node of the graph is."""
    if operator_name(node) not in (*_LAYERS, *_PRODUCTS) or not is_constant(bind(node)["weight"]):
        return None
    return origin_of(bind(node)["weight"]).removesuffix(".weight")


def _groups(node: Node, width: tuple[int, int]) -> str:
    groups = bind(node).get("groups", 1)
    return "" if groups == 1 else "depthwise" if groups == width[0] == width[1] else f"groups {groups}"


def _layers(forms: Sequence[LayerForm], device: torch.device) -> Run:
    """A call that runs these layers one after the other."""
    random = torch.Generator().manual_seed(0)
    given = [
        (
            torch.from_numpy(form.weight).to(device),
            torch.randn(form.input_shape, generator=random).to(device),
            form.window,
        )
        for form in forms
    ]

    def run() -> None:
        with torch.no_grad(), float32_is_float32():
            for weight, x, window in given:
                if window is None:
                    torch.nn.functional.linear(x, weight).relu_()
                else:
                    torch.nn.functional.conv2d(x, weight, padding=window.padding).relu_()

    return run
