"""How latency tables are measured for each kind of target: one row each, by the name in sparsefx.runtime.targets."""

from __future__ import annotations

from ...passes.errors import TargetError
from ..onnxruntime.gpu_profiling import CudaProviderProfiling, TensorRTProviderProfiling
from ..onnxruntime.profiling import CpuProfiling
from ..pytorch.profiling import TorchProfiling
from ..targets import TORCH, find_target
from ..tensorrt.profiling import TensorRTProfiling
from .profiling import Profiling

PROFILING: dict[str, type[Profiling]] = {
    "onnxruntime:cpu": CpuProfiling,
    "onnxruntime:cuda": CudaProviderProfiling,
    "onnxruntime:tensorrt": TensorRTProviderProfiling,
    "torch:cuda": TorchProfiling,
    "tensorrt:smXX": TensorRTProfiling,
    "tensorrt-rtx:smXX": TensorRTProfiling,
}


def profiling_of(target: str, precision: str) -> type[Profiling]:
    """The row of a target. Raises TargetError where there is none, or not in this precision."""
    kind = find_target(target, precision).kind
    if kind is TORCH:
        raise TargetError(f"target {target} has no engine to make a latency table of; profile onnxruntime:cpu")
    return PROFILING[kind.name]
