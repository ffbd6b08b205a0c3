"""An ONNX Runtime session on a GPU, or an error: it never falls back to the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...passes.errors import TargetError
from ...passes.signature import Signature
from ..engine import Array, Engine
from .session import write_optimized

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = {  # target: (providers in order of preference, what the first one needs)
    "onnxruntime:cuda": ((CUDA,), "an NVIDIA GPU, its driver, CUDA and cuDNN"),
    "onnxruntime:tensorrt": ((TENSORRT, CUDA), "an NVIDIA GPU, its driver, CUDA, cuDNN and TensorRT 10's libraries"),
}
_OPTIONS = {CUDA: {"use_tf32": "0"}}  # float32 is float32
_SETTINGS = {"session.disable_cpu_ep_fallback": "1", "session.record_ep_graph_assignment_info": "1"}


class OnnxRuntimeGpuSession:
    """Runs an ONNX file by the first provider of the target; what that one does not take goes to the next.

    `profile` and `optimized` as in OnnxRuntimeSession. Raises TargetError where the package has no such provider, where
    it does not start, or where a node would run on the CPU.
    """

    def __init__(self, model: Path, target: str, *, profile: Path | None = None, optimized: Path | None = None) -> None:
        onnxruntime = package_with_provider(target)
        self._providers, needs = PROVIDERS[target]
        options = onnxruntime.SessionOptions()
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if optimized is not None:
            write_optimized(options, optimized)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4  # what fails is told by the error
        for name, value in _SETTINGS.items():
            options.add_session_config_entry(name, value)
        try:
            providers = [(name, _OPTIONS.get(name, {})) for name in self._providers]
            session = onnxruntime.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
        except Exception as error:
            raise TargetError(
                f"ONNX Runtime {onnxruntime.__version__} does not start {self._providers[0]} for {model.name}; "
                f"it needs {needs}, of the versions that this package was built for: {error}"
            ) from error
        if session.get_providers()[:1] != [self._providers[0]]:
            raise TargetError(
                f"ONNX Runtime fell back to {session.get_providers()} where {self._providers[0]} was asked for; "
                f"it needs {needs}"
            )
        self.nodes = _nodes(session)
        elsewhere = set(self.nodes) - set(self._providers)
        if elsewhere or not self.nodes.get(self._providers[0]):
            raise TargetError(
                f"not all of {model.name} runs by {self._providers[0]}: nodes by provider are {self.nodes}"
            )
        self._session = session
        self._inputs = [value.name for value in session.get_inputs()]
        self._outputs = [value.name for value in session.get_outputs()]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return list(self._session.run(None, dict(zip(self._inputs, inputs, strict=True))))

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], object]:
        """Inputs lie on the GPU, and outputs stay there."""
        binding = self._session.io_binding()
        import onnxruntime

        for name, array in zip(self._inputs, inputs, strict=True):
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
        for name in self._outputs:
            binding.bind_output(name, "cuda")

        def run() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run

    def end_profile(self) -> Path:
        """The file with the time of every node in every run, in Chrome's trace format."""
        return Path(self._session.end_profiling())

    def settings(self) -> dict[str, Any]:
        return {
            "threads": None,
            "providers": self._session.get_providers(),
            "provider_options": _OPTIONS,
            "nodes": self.nodes,
            "graph_optimization": "all",
            **_SETTINGS,
        }


def _nodes(session: Any) -> dict[str, int]:
    """How many nodes each provider has."""
    counted: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counted[part.ep_name] += len(part.get_nodes())
    return dict(counted)


def package_with_provider(target: str) -> Any:
    """The module onnxruntime. Raises TargetError where it is missing, or has not the target's providers."""
    try:
        import onnxruntime
    except ImportError as error:
        raise TargetError(f"target {target} needs ONNX Runtime: pip install onnxruntime-gpu ({error})") from error
    missing = [name for name in PROVIDERS[target][0] if name not in onnxruntime.get_available_providers()]
    if missing:
        raise TargetError(
            f"target {target} needs {missing[0]}, which this ONNX Runtime {onnxruntime.__version__} does not have: "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    return onnxruntime


def onnxruntime_gpu_engine(model: Path, signature: Signature, target: str) -> Engine:
    """The engine of an ONNX file on the GPU. Raises TargetError where it would not run there as a whole."""
    return Engine(OnnxRuntimeGpuSession(model, target), signature, target)
