"""Latency tables of targets that are reached through an ONNX file; and of ONNX Runtime on the CPU."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

from torch.fx import GraphModule

from ...passes.errors import TargetError
from ...passes.signature import Signature
from ..engine import Array
from ..latency.node import EngineNode
from ..latency.profiling import EnginesByWidth, ProfiledEngine, Profiling, Run
from ..latency.record import Setting
from ..latency.time_cache import processor
from ..latency.widths import WidthSpace
from .calibration import calibration_engine
from .engine_nodes import node_times
from .lower import lower_to_onnx
from .session import TARGET, OnnxRuntimeSession, available_threads
from .template import EngineTemplate


class OnnxProfiling(Profiling):
    """Engines of ONNX files; a template stands for all widths of a network."""

    @abstractmethod
    def engine(self, model: Path, signature: Signature, layers: Mapping[str, str], folder: Path) -> ProfiledEngine:
        """The engine of a file. `layers` as EngineTemplate has them."""

    def of_graph(self, graph_module: GraphModule, signature: Signature, folder: Path) -> ProfiledEngine:
        return self.engine(self.lower(graph_module, signature, folder), signature, {}, folder)

    def by_width(self, space: WidthSpace, signature: Signature) -> EnginesByWidth:
        template = EngineTemplate(space, signature)
        return lambda widths, folder: self.engine(template.write(widths, folder), signature, template.layers, folder)

    def lower(self, graph_module: GraphModule, signature: Signature, folder: Path) -> Path:
        """The ONNX file of a graph."""
        return lower_to_onnx(graph_module, signature, folder)


class CpuProfiling(OnnxProfiling):
    """ONNX Runtime on the CPU, by its own profile."""

    @classmethod
    def setting_here(cls, target: str, threads: int | None, batch: int, weights: str, precision: str) -> Setting:
        if precision != "fp32":
            raise TargetError(
                f"latency tables of {target} are in fp32, found precision {precision!r}: "
                "it changes the weights of condensed layers only"
            )
        import onnxruntime

        engine, used = f"onnxruntime {onnxruntime.__version__}", available_threads() if threads is None else threads
        return Setting(TARGET, processor(), engine, used, batch, weights=weights)

    def engine(self, model: Path, signature: Signature, layers: Mapping[str, str], folder: Path) -> ProfiledEngine:
        return _CpuEngine(model, self.inputs(signature), self.setting.threads, layers, folder)

    def calibration(self, folder: Path) -> Run:
        return calibration_engine(self.setting.threads, folder)


class _CpuEngine:
    """An ONNX file in a session that keeps the time of every operator in every run, and in one without."""

    def __init__(self, model: Path, inputs: list[Array], threads: int, layers: Mapping[str, str], folder: Path) -> None:
        self._model, self._inputs, self._threads, self._layers = model, inputs, threads, layers
        self._optimized = folder / "optimized.onnx"
        self._session = OnnxRuntimeSession(model, threads, profile=folder / "profile", optimized=self._optimized)

    def run(self) -> object:
        return self._session.run(self._inputs)

    def plain(self) -> Run:
        return OnnxRuntimeSession(self._model, self._threads).prepare(self._inputs)

    def finish(self) -> list[tuple[EngineNode, list[float]]]:
        return node_times(self._session.end_profile(), self._optimized, self._model, self._layers)
