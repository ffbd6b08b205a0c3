"""A graph as TensorRT engine: ONNX file in float32, the same in the precision asked for, engine from that."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from ...passes.errors import TargetError
from ..build import Build, StandIn
from ..engine import Engine
from ..kernels.cuda.compile_nvcc import plugin_ptx
from ..latency.table import LatencyTable
from ..nvidia import find_gpu
from ..onnxruntime.layer_models import LayerForm
from ..onnxruntime.layer_times import LayerTime
from ..onnxruntime.lower import lower_to_onnx
from ..onnxruntime.session import onnxruntime_engine
from ..targets import BuildSettings
from . import plugin_nodes
from .builder import run_job
from .by_table import time_by_table
from .condensed import complete, has_condensed_layers
from .drivers import Driver, TensorRTRTX, find_driver, processors_of
from .job import Job, Plan
from .precision import convert_precision
from .profiles import find_profile
from .session import TensorRTSession, tensorrt_engine
from .two_four import broken_layers, two_four_layers

ENGINE = "model.engine"
_WORK = "work"  # files that only the builder reads


class TensorRTBuild(Build):
    """An engine of one of the three TensorRTs. Its inputs and outputs have the types of the model's own.

    Raises TargetError where the package, for full TensorRT the GPU, or an operator is missing.
    """

    model: Path

    @classmethod
    def builder(cls, settings: BuildSettings) -> str:
        backend, _, device = settings.target.partition(":")
        driver, processors = find_driver(backend), processors_of(device)
        if isinstance(driver, TensorRTRTX):
            driver.check_processors(processors)
            return driver.version
        gpu = _gpu_to_build_on(driver.needs_to_build)
        if processors != [gpu.processor]:
            raise TargetError(
                f"{driver.version} builds for the GPU of this machine, {gpu.name}: target {backend}:{gpu.processor}; "
                f"found {settings.target}"
            )
        return driver.version

    def lower(self) -> None:
        backend, _, device = self.settings.target.partition(":")
        driver = find_driver(backend)
        self.profile = find_profile(self.graph_module, self.signature, self.inputs, self.settings.max_batch)
        self._two_four = two_four_layers(self.graph_module)
        self.model = lower_to_onnx(self.graph_module, self.signature, self.folder, complete)
        plugins, self._condensed = self._plugins(driver, device)
        source, self._conversion = self._source(plugins is not None)
        job = Job(
            backend,
            str(source),
            (Plan(str(self.folder / ENGINE), tuple(processors_of(device))),),
            self.profile.shapes if self.profile.ranges else {},
            sparse=bool(self._two_four) and driver.uses_sparse_weights,
            timing_cache=driver.timing_cache(device),
            plugins=plugins,
        )
        self._sparse = job.sparse
        try:
            self.outcome = run_job(job)
        finally:
            shutil.rmtree(self.folder / _WORK, ignore_errors=True)
        self.states.reach("parsed", f"by {self.outcome.version}, {len(self.outcome.layers)} layers")
        self.states.reach("built", f"by {self.outcome.version} for {device} in {self.settings.precision}")

    def _plugins(self, driver: Driver, device: str) -> tuple[int | None, str | None]:
        """Where condensed layers run as plugins: the architecture to compile them for; and how they run, in words."""
        if not has_condensed_layers(self.model):
            return None, None
        if not driver.has_plugins:
            return None, "the bodies of their functions"
        try:
            architecture = int(device.removeprefix("sm"))
            plugin_ptx(architecture)
        except TargetError as error:
            return None, f"the bodies of their functions, for want of plugins: {error}"
        return architecture, "plugins, compiled ahead of time"

    def _source(self, plugins: bool) -> tuple[Path, dict[str, Any] | None]:
        """The file to build from, and what became of the weights on the way there."""
        precision, source = self.settings.precision, self.model
        if plugins:
            (self.folder / _WORK).mkdir()
            source = lower_to_onnx(self.graph_module, self.signature, self.folder / _WORK, plugin_nodes.complete)
        if precision == "fp32":
            return source, None
        (self.folder / _WORK).mkdir(exist_ok=True)
        target = self.folder / _WORK / f"{precision}.onnx"
        return target, asdict(convert_precision(source, target, precision))

    def load(self) -> Engine:
        return tensorrt_engine(self.folder / ENGINE, self.signature, self.settings.target)

    def stand_in(self) -> StandIn:
        engine = onnxruntime_engine(
            self.model, self.signature, 1 if self.settings.threads is None else self.settings.threads
        )
        return StandIn(engine, "the ONNX file by ONNX Runtime on the CPU")

    @property
    def device(self) -> str:
        try:
            return find_gpu().name
        except TargetError:
            return self.settings.target

    @property
    def files(self) -> list[Path]:
        return [self.folder / ENGINE]

    @property
    def facts(self) -> dict[str, Any]:
        (engine,) = self.outcome.engines
        kinds = Counter(kind for _, kind, _ in self.outcome.layers)
        return {
            "builder": self.outcome.version,
            "processors": list(engine.processors),
            "precision": self.settings.precision,
            "conversion": self._conversion,
            "inputs_and_outputs": "the types of the model's own, cast inside",
            "sizes": {name: asdict(found) for name, found in self.profile.ranges.items()},
            "weights": "in the engine, which can be neither refitted nor stripped of them; sparsity is of weights only",
            "engine_bytes": engine.engine_bytes,
            "memory": dict(engine.memory),
            "build_seconds": engine.seconds,
            "parse_seconds": self.outcome.parse_seconds,
            "condensed_layers": self._condensed,
            "two_four": {"layers": self._two_four, "sparse_tensor_cores": self._sparse},
            "layer_kinds": dict(kinds),
            "layers_in_engine": None if self._engine is None else len(self._engine_layers()),
        }

    @property
    def details(self) -> dict[str, Any]:
        """Every layer of the network: name, kind, types of what it computes; a loaded engine's own layers."""
        details: dict[str, Any] = {"layers": [list(layer) for layer in self.outcome.layers]}
        return details if self._engine is None else details | {"engine_layers": self._engine_layers()}

    def _engine_layers(self) -> list[Any]:
        """What the engine inspector tells of each."""
        session = self.engine.session
        assert isinstance(session, TensorRTSession)
        return list(json.loads(session.layers())["Layers"])

    def foretold_time(self, layer: str, form: LayerForm, table: LatencyTable) -> LayerTime | None:
        return time_by_table(layer, form, table)

    def notes(self, before: GraphModule) -> list[str]:
        if not find_driver(self.settings.target.partition(":")[0]).uses_sparse_weights:
            return []
        return [
            f"{name} was 2:4 sparse and is not any more without the inputs that were removed: it runs as a dense layer"
            for name in broken_layers(before, self.graph_module)
        ]


def _gpu_to_build_on(why: str) -> Any:
    try:
        return find_gpu()
    except TargetError as error:
        raise TargetError(f"{why}: {error}") from error
