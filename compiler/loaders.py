"""How bundles become engines: one row for each kind of target, by the name in sparsefx.runtime.targets. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..passes.signature import Signature
from ..runtime.engine import Engine
from ..runtime.onnxruntime.gpu_session import onnxruntime_gpu_engine
from ..runtime.onnxruntime.session import onnxruntime_engine
from ..runtime.targets import WEIGHTS, BuildSettings
from ..runtime.tensorrt.session import tensorrt_engine
from .bundle_kernels import find_kernels, warn_of_threads


@dataclass(frozen=True)
class Stored:
    """A bundle whose files are verified, and how it is to be loaded; `threads` are those to run with, if given."""

    folder: Path
    manifest: Mapping[str, Any]
    settings: BuildSettings
    threads: int | None
    trust_kernels: bool

    @property
    def signature(self) -> Signature:
        return Signature.from_json(self.manifest["signature"])


def _load_onnxruntime(stored: Stored) -> Engine:
    kernels = stored.manifest.get("kernels")
    library = find_kernels(stored.folder, kernels, stored.trust_kernels)
    precision = WEIGHTS[stored.settings.precision if library is not None else "fp32"]
    threads = stored.settings.threads if stored.threads is None else stored.threads
    engine = onnxruntime_engine(stored.folder / "model.onnx", stored.signature, threads, library, precision)
    warn_of_threads(stored.folder, kernels, engine.session.settings()["threads"])
    return engine


def _load_onnxruntime_gpu(stored: Stored) -> Engine:
    return onnxruntime_gpu_engine(stored.folder / "model.onnx", stored.signature, stored.settings.target)


def _load_torch_cuda(stored: Stored) -> Engine:
    from ..runtime.pytorch.build import torch_cuda_engine  # which needs torch

    return torch_cuda_engine(stored.folder, stored.signature)


def _load_tensorrt(stored: Stored) -> Engine:
    return tensorrt_engine(stored.folder / "model.engine", stored.signature, stored.settings.target)


LOADERS: dict[str, Callable[[Stored], Engine]] = {
    "onnxruntime:cpu": _load_onnxruntime,
    "onnxruntime:cuda": _load_onnxruntime_gpu,
    "onnxruntime:tensorrt": _load_onnxruntime_gpu,
    "torch:cuda": _load_torch_cuda,
    "tensorrt:smXX": _load_tensorrt,
    "tensorrt-rtx:smXX": _load_tensorrt,
}
