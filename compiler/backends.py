"""What the compiler does for each kind of target: one row each, by the name in sparsefx.runtime.targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.fx import GraphModule

from ..runtime.build import Build
from ..runtime.onnxruntime.build import OnnxRuntimeBuild
from ..runtime.onnxruntime.gpu_build import OnnxRuntimeGpuBuild
from ..runtime.pytorch.build import TorchCudaBuild
from ..runtime.targets import find_target
from ..runtime.tensorrt.build import TensorRTBuild
from .precision import Rounded, with_rounded_tensors, with_rounded_weights


@dataclass(frozen=True)
class Backend:
    """`build` lowers a graph; `rounded` is the graph as a precision below fp32 rounds it, on the CPU."""

    build: type[Build]
    rounded: Callable[[GraphModule, str], Rounded]


BACKENDS = {
    "onnxruntime:cpu": Backend(OnnxRuntimeBuild, with_rounded_weights),
    "onnxruntime:cuda": Backend(OnnxRuntimeGpuBuild, with_rounded_tensors),
    "onnxruntime:tensorrt": Backend(OnnxRuntimeGpuBuild, with_rounded_tensors),
    "torch:cuda": Backend(TorchCudaBuild, with_rounded_tensors),
    "tensorrt:smXX": Backend(TensorRTBuild, with_rounded_tensors),
    "tensorrt-rtx:smXX": Backend(TensorRTBuild, with_rounded_tensors),
}


def backend_of(target: str, precision: str) -> Backend:
    """The row of a target other than `torch`. Raises TargetError where there is none, or not in this precision."""
    return BACKENDS[find_target(target, precision).kind.name]
