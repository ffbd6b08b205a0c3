"""Run a TensorRT engine: deserialise, bind CUDA tensors, execute. Not run anywhere yet: no GPU was at hand.

Written from the documented API of TensorRT 10, 11 and TensorRT-RTX. Device memory comes from torch, so a torch with
CUDA is needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ...passes.errors import TargetError
from ...passes.signature import Signature
from ..engine import Array, Engine
from ..kernels.build import cache_folder
from ..nvidia import Gpu, find_gpu
from .drivers import Driver, find_driver, processors_of

_TYPES = {  # of bindings: TensorRT's name and torch's
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}


class TensorRTSession:
    """An engine file in memory, with one execution context.

    Raises TargetError, saying what to install or change, without the package, a driver, a GPU, or a torch with CUDA,
    and where the engine is for another processor or version.
    """

    def __init__(self, plan: Path, signature: Signature, target: str) -> None:
        backend = target.partition(":")[0]
        self.target = target
        self._gpu, self.driver, self._torch = requirements(target)
        trt = self.driver.trt
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))  # the engine needs it as long as it lives
        data = plan.read_bytes()
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise TargetError(
                f"{self.driver.version} on {self._gpu.name} cannot load {plan.name}; "
                "an engine runs on the processor and with the version that it was built for: compile it again"
            )
        self._cache_file = cache_folder() / f"{backend}-{hashlib.sha256(data).hexdigest()[:16]}.kernels"
        self._context, self._kernels = self.driver.execution_context(self._engine, _read(self._cache_file))
        if self._context is None:
            raise TargetError(f"{self.driver.version} on {self._gpu.name} has no memory left for {plan.name}")
        self._known = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        self._inputs = [spec.name for spec in signature.inputs]
        self._outputs = [spec.name for spec in signature.outputs]
        self._stream = self._torch.cuda.Stream()
        self._begin_run: Callable[[], None] = _nothing

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        torch = self._torch
        outputs = self._execute([torch.from_numpy(array).cuda() for array in inputs])
        return [output.cpu().numpy() for output in outputs]

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], object]:
        tensors = [self._torch.from_numpy(array).cuda() for array in inputs]
        return lambda: self._execute(tensors)

    def _execute(self, inputs: Sequence[Any]) -> list[Any]:
        """Outputs on the device for inputs on the device; waits for the end."""
        torch, context = self._torch, self._context
        for name, tensor in zip(self._inputs, inputs, strict=True):
            if name not in self._known:
                continue  # no output depends on it
            if not context.set_input_shape(name, tuple(tensor.shape)):
                least, _, most = self._engine.get_tensor_profile_shape(name, 0)
                raise TargetError(
                    f"input {name} has shape {list(tensor.shape)}, and this engine was built for {list(least)} to "
                    f"{list(most)}; compile with a larger max_batch"
                )
            context.set_tensor_address(name, tensor.data_ptr())
        outputs = []
        for name in self._outputs:
            shape = tuple(context.get_tensor_shape(name))
            if min(shape, default=1) < 0:
                raise TargetError(f"the shape of output {name} depends on values, which this version does not run")
            kind = getattr(torch, _TYPES[self._engine.get_tensor_dtype(name).name])
            outputs.append(torch.empty(shape, dtype=kind, device="cuda"))
            context.set_tensor_address(name, outputs[-1].data_ptr())
        self._begin_run()
        self._stream.wait_stream(torch.cuda.current_stream())
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise TargetError(f"{self.driver.version} failed to run the engine; its log on stderr says why")
        self._stream.synchronize()
        self._keep_kernels()
        return outputs

    def _keep_kernels(self) -> None:
        """After the first run, write down what TensorRT-RTX compiled for this GPU."""
        if self._kernels is None:
            return
        data, self._kernels = bytes(self._kernels.serialize()), None
        with suppress(OSError):  # without a cache the next start is slower, no more
            self._cache_file.parent.mkdir(parents=True, exist_ok=True)
            partial = self._cache_file.with_suffix(f".{os.getpid()}")
            partial.write_bytes(data)
            os.replace(partial, self._cache_file)

    def watch(self) -> LayerTimes:
        """Have every run from now on told layer by layer; it is slower then."""
        profiler = _profiler(self.driver.trt)
        self._context.profiler = profiler
        self._begin_run = profiler.begin
        return profiler  # type: ignore[no-any-return]

    def layers(self) -> str:
        """What the engine inspector tells of the engine's layers, as JSON."""
        trt = self.driver.trt
        return str(self._engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))

    def settings(self) -> dict[str, Any]:
        return {"version": self.driver.version, "device": self._gpu.name, "threads": None, "precision": "as built"}


class LayerTimes(Protocol):
    """Seconds of every layer, by its name, one entry for each run."""

    runs: list[dict[str, float]]


def _profiler(trt: Any) -> Any:
    """A profiler that notes what it hears; TensorRT tells it every layer of every run."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.runs: list[dict[str, float]] = []

        def begin(self) -> None:
            self.runs.append({})

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            run = self.runs[-1]
            run[layer_name] = run.get(layer_name, 0.0) + ms * 1e-3

    return Profiler()


def _nothing() -> None:
    pass


def requirements(target: str) -> tuple[Gpu, Driver, Any]:
    """The GPU, the driver and the torch that engines of a target run with.

    Raises TargetError, saying what to install or change, where one is missing, and where the GPU is another one.
    """
    backend, _, device = target.partition(":")
    return _fitting_gpu(target, processors_of(device)), find_driver(backend), _torch_with_cuda(target)


def tensorrt_engine(plan: Path, signature: Signature, target: str) -> Engine:
    """The engine of a file that was built for `target`."""
    return Engine(TensorRTSession(plan, signature, target), signature, target)


def _fitting_gpu(target: str, processors: Sequence[str]) -> Gpu:
    gpu = find_gpu()
    if gpu.processor not in processors:
        backend = target.partition(":")[0]
        raise TargetError(
            f"the engine is for {' and '.join(processors)}, and {gpu.name} is {gpu.processor}; "
            f"compile for {backend}:{gpu.processor}"
        )
    return gpu


def _torch_with_cuda(target: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise TargetError(f"running {target} needs torch with CUDA: install it from pytorch.org") from error
    if not torch.cuda.is_available():
        raise TargetError(
            f"running {target} needs torch with CUDA, and torch {torch.__version__} here has none; "
            "install a CUDA build from pytorch.org"
        )
    return torch


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
