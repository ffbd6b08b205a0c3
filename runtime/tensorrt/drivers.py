"""TensorRT 10, TensorRT 11 and TensorRT-RTX behind one set of functions: where their APIs differ, and nothing else.

None of this imports torch. TensorRT-RTX builds for processors that it is told, on any machine; full TensorRT builds
for the GPU of the machine.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...passes.errors import TargetError
from ..kernels.build import cache_folder


@dataclass(frozen=True)
class Family:
    """A package of TensorRT: its module and what installs it."""

    backend: str
    name: str
    module: str
    extra: str


FAMILIES = {
    family.backend: family
    for family in (
        Family("tensorrt", "TensorRT", "tensorrt", "sparsefx[tensorrt]"),
        Family("tensorrt-rtx", "TensorRT-RTX", "tensorrt_rtx", "sparsefx[tensorrt-rtx]"),
    )
}


class Driver:
    """What TensorRT 11 needs; the others deviate. `trt` is the module."""

    cross_builds = False  # whether it builds for other processors than the one of this machine
    uses_sparse_weights = True  # whether 2:4 weights run on sparse tensor cores
    has_timing_cache = True
    has_plugins = True
    needs_to_build = "full TensorRT builds for the GPU of the machine, so it needs an NVIDIA driver and a GPU"

    def __init__(self, family: Family, trt: Any) -> None:
        self.family, self.trt = family, trt

    @property
    def version(self) -> str:
        return f"{self.family.name} {self.trt.__version__}"

    def create_network(self, builder: Any) -> Any:
        """A strongly typed network: every tensor has the type that the model gives it."""
        return builder.create_network(0)

    def choose_processors(self, config: Any, processors: Sequence[str]) -> None:
        """Build for these, as sm89. Raises TargetError where that is impossible."""

    def timing_cache(self, device: str) -> str | None:
        """The file in which builds for a device keep their timings, where they take any."""
        return str(cache_folder() / f"{self.family.backend}-{device}.timings") if self.has_timing_cache else None

    def supported(self) -> list[str]:
        """Processors that can be named; none where it is the machine's own."""
        return []

    def register_plugins(self, architecture: int) -> None:
        """Make our plugins known to the parser. Raises TargetError where they cannot be compiled."""
        from .plugin import register_plugins

        register_plugins(self.trt, importlib.import_module(f"{self.family.module}.plugin"), architecture)

    def execution_context(self, engine: Any, cache: bytes | None) -> tuple[Any, Any]:
        """A context to run in, and the cache of kernels compiled at run time, if there is such a thing."""
        return engine.create_execution_context(), None


class TensorRT10(Driver):
    """Typing is weak there by default."""

    def create_network(self, builder: Any) -> Any:
        return builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


class TensorRTRTX(Driver):
    """Builds for processors by name; the last step of compilation is made where the engine runs, and cached there."""

    cross_builds = True
    uses_sparse_weights = False  # the flag is accepted and changes nothing
    has_timing_cache = False
    has_plugins = False
    needs_to_build = ""

    def choose_processors(self, config: Any, processors: Sequence[str]) -> None:
        self.check_processors(processors)
        config.num_compute_capabilities = len(processors)
        for index, processor in enumerate(processors):
            if not config.set_compute_capability(getattr(self.trt.ComputeCapability, processor.upper()), index):
                raise TargetError(f"{self.version} refuses to build for {processor}")

    def check_processors(self, processors: Sequence[str]) -> None:
        missing = [p for p in processors if p not in self.supported()]
        if missing:
            raise TargetError(
                f"{self.version} does not build for {', '.join(missing)}; it builds for {', '.join(self.supported())}"
            )

    def supported(self) -> list[str]:
        names = [name.lower() for name in self.trt.ComputeCapability.__members__ if name.startswith("SM")]
        return sorted(names, key=lambda name: int(name[2:]))

    def execution_context(self, engine: Any, cache: bytes | None) -> tuple[Any, Any]:
        config = engine.create_runtime_config()
        kernels = config.create_runtime_cache()
        if cache:
            kernels.deserialize(cache)  # one of another driver or GPU is refused, and as good as none
        config.set_runtime_cache(kernels)
        return engine.create_execution_context(config), kernels


_FULL = {10: TensorRT10, 11: Driver}  # by major version


def find_driver(backend: str) -> Driver:
    """The driver of a backend. Raises TargetError where its package is missing, or of a version that is unknown."""
    family = FAMILIES[backend]
    try:
        trt = importlib.import_module(family.module)
        version = str(trt.__version__)
    except Exception as error:  # the placeholder package of PyPI fails in ways of its own
        raise TargetError(
            f"target {backend} needs {family.name}: pip install '{family.extra}' ({_one_line(error)})"
        ) from error
    if family.backend == "tensorrt-rtx":
        return TensorRTRTX(family, trt)
    major = int(version.partition(".")[0])
    if major not in _FULL:
        raise TargetError(
            f"target {backend} is known for TensorRT {' and '.join(map(str, _FULL))}, found {version}; "
            f"install one of those"
        )
    return _FULL[major](family, trt)


def processors_of(device: str) -> list[str]:
    """`sm80+sm89` as a list; TargetError where a name is there twice."""
    names = re.findall(r"sm\d+", device)
    if len(set(names)) != len(names):
        raise TargetError(f"{device} names a processor twice")
    return names


def _one_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
