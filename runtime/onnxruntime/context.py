"""Whole networks for latency tables in ONNX Runtime: at any widths, or as a graph that comes along."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from torch.fx import GraphModule

from ...passes.errors import TableError, TargetError
from ...passes.signature import Signature
from ..engine import Array
from ..inputs import dynamic_sizes, random_arrays
from ..latency.node import EngineNode
from ..latency.record import COLD, WARM, Record, Setting
from ..latency.time_cache import processor
from ..latency.widths import WidthSpace
from .calibration import calibration_engine
from .engine_nodes import engine_nodes
from .in_context import InContext, measure_in_context
from .lower import lower_to_onnx
from .session import TARGET, available_threads
from .template import EngineTemplate


def this_setting(target: str, threads: int | None, batch: int, weights: str = WARM) -> Setting:
    """The setting of measurements made here.

    Raises TargetError for a target that cannot be profiled, TableError for weights that are neither warm nor cold.
    """
    if target != TARGET:
        raise TargetError(f"latency tables are made for {TARGET}, found target {target!r}")
    if weights not in (WARM, COLD):
        raise TableError(f"weights must be {WARM!r} or {COLD!r}, found {weights!r}")
    import onnxruntime

    engine, used = f"onnxruntime {onnxruntime.__version__}", available_threads() if threads is None else threads
    return Setting(TARGET, processor(), engine, used, batch, weights=weights)


class WhatIf:
    """A network whose widths can be chosen: its operators and its measurement at any of them."""

    def __init__(self, graph_module: GraphModule, signature: Signature, setting: Setting) -> None:
        self.space = WidthSpace(graph_module)
        self._signature, self._setting = signature, setting
        self._inputs = _inputs(signature, setting)

    @cached_property
    def _template(self) -> EngineTemplate:
        return EngineTemplate(self.space, self._signature)

    def nodes(self, widths: Mapping[str, int], folder: Path) -> list[EngineNode]:
        """The engine's operators at these widths (all of them, by group)."""
        model = self._template.write(widths, folder)
        return engine_nodes(model, self._setting.threads, folder, self._template.layers, self._inputs)

    def measure(self, name: str, widths: Mapping[str, int], calibration: Callable[[], object], tight: float) -> Record:
        """Measure the engine at these widths; `name` is the model's."""
        with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
            model = self._template.write(widths, Path(folder))
            layers = self._template.layers
            found = measure_in_context(model, self._inputs, self._setting, layers, calibration, tight=tight)
        return _record(name, dict(widths), found)


def lowered_nodes(graph_module: GraphModule, signature: Signature, setting: Setting) -> list[EngineNode]:
    """The operators of a graph's engine."""
    with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
        model = lower_to_onnx(graph_module, signature, Path(folder))
        return engine_nodes(model, setting.threads, Path(folder), {}, _inputs(signature, setting))


def measured_graph(graph_module: GraphModule, signature: Signature, setting: Setting) -> Record:
    """Measure a graph's engine as it is."""
    with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
        model = lower_to_onnx(graph_module, signature, Path(folder))
        calibration = calibration_engine(setting.threads, Path(folder))
        found = measure_in_context(model, _inputs(signature, setting), setting, {}, calibration)
    return _record("a graph", None, found)


def _record(name: str, widths: dict[str, int] | None, found: InContext) -> Record:
    return Record(name, widths, found.nodes, found.whole, found.uncertainty, found.runs, found.calibration)


def _inputs(signature: Signature, setting: Setting) -> list[Array]:
    return random_arrays(signature, dict.fromkeys(dynamic_sizes(signature), setting.batch))
