"""Latency tables of ONNX Runtime on a GPU. Not run anywhere yet: no GPU was at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...passes.errors import TargetError
from ...passes.signature import Signature
from ..engine import Array
from ..latency.node import EngineNode
from ..latency.profiling import ProfiledEngine, Run, gpu_setting
from ..latency.record import Setting
from ..nvidia import find_gpu
from .calibration import calibration_model
from .engine_nodes import kernel_times
from .gpu_session import OnnxRuntimeGpuSession, package_with_provider
from .profiling import OnnxProfiling


class CudaProviderProfiling(OnnxProfiling):
    """ONNX Runtime's CUDA provider, by the kernels in its profile."""

    @classmethod
    def setting_here(cls, target: str, threads: int | None, batch: int, weights: str, precision: str) -> Setting:
        version = package_with_provider(target).__version__
        return gpu_setting(target, find_gpu().name, f"onnxruntime {version}", batch, weights, precision)

    def engine(self, model: Path, signature: Signature, layers: Mapping[str, str], folder: Path) -> ProfiledEngine:
        return _CudaEngine(model, self.inputs(signature), self.setting.target, layers, folder)

    def calibration(self, folder: Path) -> Run:
        model, inputs = calibration_model(folder)
        return OnnxRuntimeGpuSession(model, self.setting.target).prepare(inputs)


class TensorRTProviderProfiling(CudaProviderProfiling):
    """ONNX Runtime's TensorRT provider runs all that it takes as one operator: there is nothing to make a table of."""

    @classmethod
    def setting_here(cls, target: str, threads: int | None, batch: int, weights: str, precision: str) -> Setting:
        package_with_provider(target)
        gpu = find_gpu()
        raise TargetError(
            f"ONNX Runtime tells one time for all that its TensorRT provider runs, so {target} has no latency tables; "
            f"profile tensorrt:{gpu.processor}, the same engine by itself"
        )


class _CudaEngine:
    """An ONNX file in a session that keeps the times of kernels, and in one without."""

    def __init__(self, model: Path, inputs: list[Array], target: str, layers: Mapping[str, str], folder: Path) -> None:
        self._model, self._inputs, self._target, self._layers = model, inputs, target, layers
        self._optimized = folder / "optimized.onnx"
        self._session = OnnxRuntimeGpuSession(model, target, profile=folder / "profile", optimized=self._optimized)
        self.run = self._session.prepare(inputs)

    def plain(self) -> Run:
        return OnnxRuntimeGpuSession(self._model, self._target).prepare(self._inputs)

    def finish(self) -> list[tuple[EngineNode, list[float]]]:
        return kernel_times(self._session.end_profile(), self._optimized, self._model, self._layers)
