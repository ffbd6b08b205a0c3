"""An ONNX Runtime session on the CPU with every option written down."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...passes.errors import TargetError
from ...passes.signature import Signature
from ..engine import Array, Engine

TARGET = "onnxruntime:cpu"


def available_threads() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OnnxRuntimeSession:
    """Runs an ONNX file; `threads` is the number of threads inside an operator, by default all available.

    All graph optimisations are on; operators run one after the other. `custom_operators` is a library to register,
    such as `sparsefx.runtime.custom_op_library()`: without it condensed layers run as dense ones. `precision`
    is how that library stores the weights of linear layers: float32 or bfloat16. `profile` is how the file begins that
    `end_profile` returns; with `optimized` the graph as it runs is written to that file, its weights beside it.
    """

    def __init__(
        self,
        model: Path,
        threads: int | None = None,
        custom_operators: Path | None = None,
        *,
        precision: str = "float32",
        profile: Path | None = None,
        optimized: Path | None = None,
    ) -> None:
        onnxruntime = _import_onnxruntime()
        self.threads = available_threads() if threads is None else threads
        if self.threads < 1:
            raise TargetError(f"threads must be at least 1, found {threads}")
        if precision != "float32" and custom_operators is None:
            raise TargetError(f"precision {precision!r} needs custom_operators")
        self.precision = precision
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if optimized is not None:
            write_optimized(options, optimized)
        self._model, self._custom_operators = model, custom_operators
        try:
            if custom_operators is not None:
                options.add_session_config_entry("sparsefx.threads", str(self.threads))
                options.add_session_config_entry("sparsefx.precision", precision)
                options.register_custom_ops_library(str(custom_operators))
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise TargetError(f"ONNX Runtime {onnxruntime.__version__} cannot load {model.name}: {error}") from error
        self._inputs = [value.name for value in self._session.get_inputs()]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return list(self._session.run(None, dict(zip(self._inputs, inputs, strict=True))))

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], object]:
        return lambda: self.run(inputs)

    def profiled(self, profile: Path) -> OnnxRuntimeSession:
        """Another session of the same file with the same settings, which keeps a profile."""
        return OnnxRuntimeSession(
            self._model, self.threads, self._custom_operators, precision=self.precision, profile=profile
        )

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self._model

    def end_profile(self) -> Path:
        """The file with the time of every node in every run, in Chrome's trace format."""
        return Path(self._session.end_profiling())

    def settings(self) -> dict[str, Any]:
        return {
            "threads": self.threads,
            "inter_op_threads": 1,
            "graph_optimization": "all",
            "providers": self._session.get_providers(),
            "precision": self.precision,
            "custom_operators": None if self._custom_operators is None else self._custom_operators.name,
        }


def write_optimized(options: Any, file: Path) -> None:
    """Have the session write the graph as it runs, its weights beside it."""
    key = "session.optimized_model_external_initializers_"
    options.optimized_model_filepath = str(file)
    options.add_session_config_entry(f"{key}file_name", f"{file.name}.data")
    options.add_session_config_entry(f"{key}min_size_in_bytes", "0")
    options.log_severity_level = 3  # that the file is for this processor is known


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise TargetError(f"target {TARGET} needs onnxruntime: pip install onnxruntime ({error})") from error
    return onnxruntime


def onnxruntime_engine(
    model: Path,
    signature: Signature,
    threads: int | None = None,
    custom_operators: Path | None = None,
    precision: str = "float32",
) -> Engine:
    """The engine of an ONNX file on the CPU."""
    return Engine(OnnxRuntimeSession(model, threads, custom_operators, precision=precision), signature, TARGET)
