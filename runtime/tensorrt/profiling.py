"""Latency tables of TensorRT's engines, layer by layer. Not run anywhere yet: no GPU was at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from ...passes.signature import Signature, TensorSpec, Tree
from ..engine import Array
from ..latency.node import EngineNode
from ..latency.profiling import ProfiledEngine, Run, gpu_setting
from ..latency.record import Setting
from ..onnxruntime.calibration import calibration_model
from ..onnxruntime.lower import lower_to_onnx
from ..onnxruntime.profiling import OnnxProfiling
from .builder import run_job
from .condensed import complete
from .drivers import find_driver, processors_of
from .engine_layers import NodeGraph, fixed_sizes, layer_called, read_layers
from .job import Job, Plan
from .precision import convert_precision
from .session import TensorRTSession, requirements


class TensorRTProfiling(OnnxProfiling):
    """Engines of TensorRT and TensorRT-RTX, built in processes of their own, by TensorRT's own profiler.

    Condensed layers are the bodies of their functions, also where full TensorRT would run plugins.
    """

    @classmethod
    def setting_here(cls, target: str, threads: int | None, batch: int, weights: str, precision: str) -> Setting:
        gpu, driver, _ = requirements(target)
        return gpu_setting(target, gpu.name, driver.version, batch, weights, precision)

    def lower(self, graph_module: GraphModule, signature: Signature, folder: Path) -> Path:
        return lower_to_onnx(graph_module, signature, folder, complete)

    def engine(self, model: Path, signature: Signature, layers: Mapping[str, str], folder: Path) -> ProfiledEngine:
        import onnx

        inputs = self.inputs(signature)
        shapes = {spec.name: array.shape for spec, array in zip(signature.inputs, inputs, strict=True)}
        onnx.save(fixed_sizes(onnx.load(str(model), load_external_data=False), shapes), str(model))
        source = model
        if self.setting.precision != "fp32":
            source = folder / f"{self.setting.precision}.onnx"
            convert_precision(model, source, self.setting.precision)
        plan = self._build(source, folder / "profiled.engine")
        graph = NodeGraph(onnx.load(str(model), load_external_data=False), layers)
        return _TensorRTEngine(plan, signature, self.setting.target, inputs, graph)

    def calibration(self, folder: Path) -> Run:
        model, inputs = calibration_model(folder)
        plan = self._build(model, folder / "calibration.engine")
        return TensorRTSession(plan, _names_of(model), self.setting.target).prepare(inputs)

    def _build(self, model: Path, plan: Path) -> Path:
        backend, _, device = self.setting.target.partition(":")
        plans = (Plan(str(plan), tuple(processors_of(device))),)
        run_job(
            Job(backend, str(model), plans, {}, timing_cache=find_driver(backend).timing_cache(device), detailed=True)
        )
        return plan


class _TensorRTEngine:
    """An engine's file in a session with a profiler, and in one without."""

    def __init__(self, plan: Path, signature: Signature, target: str, inputs: list[Array], graph: NodeGraph) -> None:
        self._open: Callable[[], TensorRTSession] = lambda: TensorRTSession(plan, signature, target)
        self._inputs, self._graph = inputs, graph
        self._session = self._open()
        self._times = self._session.watch()
        self.run = self._session.prepare(inputs)

    def plain(self) -> Run:
        return self._open().prepare(self._inputs)

    def finish(self) -> list[tuple[EngineNode, list[float]]]:
        layers, runs = read_layers(self._session.layers()), self._times.runs
        found: dict[EngineNode, list[float]] = {}
        for name in dict.fromkeys(name for run in runs for name in run):
            node = self._graph.describe(layers.get(name) or layer_called(name))
            known = found.setdefault(node, [0.0] * len(runs))  # several, where a condensed layer is in parts
            found[node] = [before + run.get(name, 0.0) for before, run in zip(known, runs, strict=True)]
        return list(found.items())


def _names_of(model: Path) -> Signature:
    """Inputs and outputs of an ONNX file by name, which is all that a session asks for."""
    import onnx

    graph: Any = onnx.load(str(model), load_external_data=False).graph
    inputs, outputs = (tuple(TensorSpec(v.name, "float32", ()) for v in side) for side in (graph.input, graph.output))
    return Signature(inputs, outputs, (), 0, Tree("literal"))
