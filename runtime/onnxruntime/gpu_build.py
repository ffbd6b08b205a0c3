"""An ONNX file for ONNX Runtime on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...passes.errors import TargetError
from ..build import Build, StandIn
from ..engine import Engine
from .gpu_session import onnxruntime_gpu_engine
from .lower import lower_to_onnx
from .session import onnxruntime_engine


class OnnxRuntimeGpuBuild(Build):
    """A graph lowered to ONNX; a session of CUDA or TensorRT loads it where there is a GPU.

    Layers are dense: ONNX Runtime's GPU providers have no kernels of ours.
    """

    model: Path

    @classmethod
    def kernels(cls) -> Path | None:
        raise TargetError("ONNX Runtime has no kernels for condensed layers on a GPU; torch:cuda has, by Triton")

    def lower(self) -> None:
        self.model = lower_to_onnx(self.graph_module, self.signature, self.folder)
        self.states.reach("parsed", "ONNX file")
        self.states.reach("built", "by the session, when it is loaded")

    def load(self) -> Engine:
        return onnxruntime_gpu_engine(self.model, self.signature, self.settings.target)

    @property
    def facts(self) -> dict[str, Any]:
        return self._engine.session.settings() if self._engine is not None else {}

    def stand_in(self) -> StandIn:
        engine = onnxruntime_engine(self.model, self.signature, self.settings.threads)
        return StandIn(engine, "the same file by ONNX Runtime on the CPU")
