"""Whole networks for latency tables, on any target: at any widths, or as a graph that comes along."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from torch.fx import GraphModule

from ...passes.errors import TableError
from ...passes.signature import Signature
from .backends import profiling_of
from .in_context import InContext, measure_in_context
from .node import EngineNode
from .profiling import EnginesByWidth, ProfiledEngine, Profiling
from .record import COLD, WARM, Record, Setting
from .widths import WidthSpace


def this_setting(target: str, threads: int | None, batch: int, weights: str = WARM, precision: str = "fp32") -> Setting:
    """The setting of measurements made here.

    Raises TargetError for a target that cannot be profiled here, TableError for weights that are neither warm nor cold.
    """
    if weights not in (WARM, COLD):
        raise TableError(f"weights must be {WARM!r} or {COLD!r}, found {weights!r}")
    return profiling_of(target, precision).setting_here(target, threads, batch, weights, precision)


def profiling_in(setting: Setting) -> Profiling:
    """What measures in a setting."""
    return profiling_of(setting.target, setting.precision)(setting)


class WhatIf:
    """A network whose widths can be chosen: its operators and its measurement at any of them."""

    def __init__(self, graph_module: GraphModule, signature: Signature, setting: Setting) -> None:
        self.space = WidthSpace(graph_module)
        self._signature, self._setting = signature, setting
        self._profiling = profiling_in(setting)

    @cached_property
    def _engines(self) -> EnginesByWidth:
        return self._profiling.by_width(self.space, self._signature)

    def calibration(self, folder: Path) -> Callable[[], object]:
        """Runs the calibration engine once."""
        return self._profiling.calibration(folder)

    def nodes(self, widths: Mapping[str, int], folder: Path) -> list[EngineNode]:
        """The engine's operators at these widths (all of them, by group)."""
        return _nodes(self._engines(widths, folder))

    def measure(self, name: str, widths: Mapping[str, int], calibration: Callable[[], object], tight: float) -> Record:
        """Measure the engine at these widths; `name` is the model's."""
        with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
            engine = self._engines(widths, Path(folder))
            found = measure_in_context(engine, self._setting, calibration, tight=tight)
        return _record(name, dict(widths), found)


def lowered_nodes(graph_module: GraphModule, signature: Signature, setting: Setting) -> list[EngineNode]:
    """The operators of a graph's engine."""
    with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
        return _nodes(profiling_in(setting).of_graph(graph_module, signature, Path(folder)))


def measured_graph(graph_module: GraphModule, signature: Signature, setting: Setting) -> Record:
    """Measure a graph's engine as it is."""
    profiling = profiling_in(setting)
    with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
        calibration = profiling.calibration(Path(folder))
        engine = profiling.of_graph(graph_module, signature, Path(folder))
        found = measure_in_context(engine, setting, calibration)
    return _record("a graph", None, found)


def _nodes(engine: ProfiledEngine) -> list[EngineNode]:
    """An engine's operators: it runs once, to learn their sizes."""
    engine.run()
    return [node for node, _ in engine.finish()]


def _record(name: str, widths: dict[str, int] | None, found: InContext) -> Record:
    return Record(name, widths, found.nodes, found.whole, found.uncertainty, found.runs, found.calibration)
