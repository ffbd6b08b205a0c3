"""Latency tables: what every kind of operator takes in an engine, by its widths, and what a network takes."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn
from torch.fx import GraphModule

from ...passes.describe import describe
from ...passes.errors import TableError
from . import table_file
from .grid import LayerCost, layer_costs
from .node import EngineNode
from .pace import paces_of, surfaces_of
from .record import Record, Setting
from .surface import Floats, Surface

REFUSE, WARN = "refuse", "warn"

_UNCERTAIN = 0.08  # of the calibration engine


class LatencyTable:
    """Measured latencies of one setting. Raw measurements are in `records`, in any order."""

    def __init__(
        self,
        setting: Setting,
        records: Iterable[Record],
        header: Mapping[str, Any] | None = None,
        mismatch: str = REFUSE,
    ) -> None:
        self.setting, self.mismatch = setting, mismatch
        self.header = {**(header or {}), "setting": dict(setting.__dict__)}
        unique = {record.name: record for record in records}
        self.records = tuple(unique[name] for name in sorted(unique))

    # Files

    @classmethod
    def load(cls, path: str | Path, *, setting: Setting | None = None, mismatch: str = REFUSE) -> LatencyTable:
        """Read a table's file. With a `setting` the table must be of it: TableError, or a warning for mismatch="warn".

        `mismatch` also says what predictions on another device or engine version than the table's do. Raises TableError
        where the file is damaged before its last line.
        """
        if mismatch not in (REFUSE, WARN):
            raise TableError(f"mismatch must be 'refuse' or 'warn', found {mismatch!r}")
        header, records = table_file.read(Path(path))
        table = cls(Setting.from_json(header.get("setting")), records, header, mismatch)
        if setting is not None:
            table.check(setting, mismatch)
        return table

    def save(self, path: str | Path) -> None:
        table_file.write(Path(path), self.header, self.records)

    def check(self, setting: Setting, mismatch: str = REFUSE) -> None:
        """TableError where the table is not of this setting; mismatch="warn" makes it a warning."""
        found = self.setting.differences(setting)
        if not found:
            return
        text = f"the latency table was measured with {', '.join(found)}"
        if mismatch == REFUSE:
            raise TableError(f'{text}; profile again, or allow it with mismatch="warn"')
        warnings.warn(f"{text}; its figures may be wrong", stacklevel=3)

    def merge(self, *others: LatencyTable) -> LatencyTable:
        """All measurements of tables of one setting; of a configuration measured twice the tighter one.

        Raises TableError where settings differ.
        """
        records: dict[str, Record] = {}
        for table in (self, *others):
            table.check(self.setting)
            for record in table.records:
                known = records.get(record.name, record)
                records[record.name] = min(known, record, key=lambda r: (r.spread, r.whole, r.calibration))
        return LatencyTable(self.setting, records.values(), self.header)

    # Lookup

    @property
    def keys(self) -> tuple[str, ...]:
        """Kinds of operators that were measured."""
        return tuple(self.surfaces)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the profiled model, by name; of several models with the model in front, `ResNet 1a2b3c4d: fc`."""
        return tuple(self._layer_costs)

    def seconds(self, node: EngineNode, *, outside: str = REFUSE) -> float:
        """What an operator of an engine takes. TableError where its kind or, without outside="warn", its widths are
        outside what was measured."""
        surface = self.surfaces.get(node.key)
        if surface is None:
            raise TableError(
                f"{node.layer or node.name} is not in the latency table: no measurement of {node.key!r}; profile the "
                'model it is from, or measure it with missing="measure"'
            )
        points = np.array([node.width], np.float64)
        if not surface.covers(points)[0]:
            low, high = surface.widths.min(0), surface.widths.max(0)
            text = (
                f"{node.layer or node.name} has widths {node.width}, measured are {low[0]:g} to {high[0]:g} and "
                f"{low[1]:g} to {high[1]:g}"
            )
            if outside == REFUSE:
                raise TableError(
                    f'{text}; profile with a wider grid, measure it with missing="measure", or allow it with '
                    'outside="warn"'
                )
            warnings.warn(f"{text}; the figure is extrapolated", stacklevel=3)
        return float(surface(points)[0])

    def cost(self, layer: str, c_in: ArrayLike, c_out: ArrayLike, *, envelope: bool = False) -> Floats:
        """Milliseconds of a layer of a profiled model over input and output channels, which broadcast.

        Adds, pooling and changes of layout around it are not in it. With `envelope` the monotone one: the least that
        a layer at least as wide takes. Raises TableError for an unknown layer or sizes outside what was measured.
        """
        found = self._layer_cost(layer)
        return 1e3 * (found.envelope if envelope else found.seconds)(c_in, c_out)

    def channel_range(self, layer: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Measured (least, most) input channels, and output channels, of a layer; TableError for an unknown one."""
        return self._layer_cost(layer).range

    def _layer_cost(self, layer: str) -> LayerCost:
        found = self._layer_costs.get(layer)
        if found is None:
            raise TableError(f"layer {layer!r} is not in the latency table; it has {', '.join(self.layers)}")
        return found

    # Whole networks

    def total(self, nodes: Sequence[EngineNode], *, outside: str = REFUSE) -> float:
        """Milliseconds of an engine of these operators. Raises TableError as `seconds`."""
        return 1e3 * (sum(self.seconds(node, outside=outside) for node in nodes) + self.overhead * len(nodes))

    def predict(self, graph_module: GraphModule, *, missing: str = REFUSE, outside: str = REFUSE) -> float:
        """Milliseconds of a compiled model's graph at the table's batch.

        The engine is built, and run once to learn its operators; times are the table's. An operator that is not in
        the table, or has sizes outside what was measured, is a TableError; with missing="measure" the engine is then
        measured and joins the table, with outside="warn" sizes are extrapolated.
        """
        from .context import lowered_nodes, measured_graph

        if missing not in (REFUSE, "measure"):
            raise TableError(f"missing must be 'refuse' or 'measure', found {missing!r}")
        self._check_here()
        nodes = lowered_nodes(graph_module, describe(graph_module), self.setting)
        if missing == "measure" and not all(self._has(node, outside) for node in nodes):
            record = measured_graph(graph_module, describe(graph_module), self.setting)
            self._add(record)
        return self.total(nodes, outside=outside)

    def predict_widths(
        self, model: nn.Module | GraphModule, widths: Mapping[str, int], *, outside: str = REFUSE
    ) -> float:
        """Milliseconds of a profiled model at other widths: {layer: output channels}, all others full.

        Layers that share their channels must agree. Raises TableError for layers whose width cannot be chosen.
        """
        self._check_here()
        what_if = self._what_if(model)
        with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
            nodes = what_if.nodes(what_if.space.complete(widths), Path(folder))
        return self.total(nodes, outside=outside)

    @cached_property
    def surfaces(self) -> dict[str, Surface]:
        """Time over widths for every kind of operator, at the speed that the machine had in the median."""
        return surfaces_of(self.records, self.paces)

    @cached_property
    def paces(self) -> Floats:
        """How slow the machine was during every record, 1 in the median: by what its operators took beside the rest."""
        return paces_of(self.records)

    @property
    def speed(self) -> float:
        """Median seconds of the calibration engine."""
        return float(np.median([record.calibration for record in self.records]))

    def drift(self, calibration: float) -> float:
        """How much slower than in the table's median the machine is where the calibration engine takes so long.

        1 within 8%: so far apart are its own figures on a quiet machine.
        """
        ratio = calibration / self.speed
        return ratio if abs(ratio - 1) > _UNCERTAIN else 1.0

    @cached_property
    def overhead(self) -> float:
        """Seconds between two operators: what engines took beyond the sum of their operators, per operator."""
        beyond = [
            (r.whole - sum(t.seconds for t in r.nodes)) / len(r.nodes) / pace
            for r, pace in zip(self.records, self.paces, strict=True)
            if r.nodes
        ]
        return float(np.median(beyond)) if beyond else 0.0

    def accuracy(self) -> Floats:
        """For every measured configuration the sum of its operators and the overhead over what the engine took."""
        return np.array(
            [(sum(t.seconds for t in r.nodes) + self.overhead * len(r.nodes)) / r.whole for r in self.records]
        )

    def diff(self, other: LatencyTable) -> dict[str, float]:
        """For every kind of operator in both tables, the other's time over this one's, in the median of the points
        that both have measured or, without such, of those within the other's range."""
        return {key: ratio for key in self.keys if (ratio := self._ratio(other, key)) is not None}

    def _ratio(self, other: LatencyTable, key: str) -> float | None:
        theirs = other.surfaces.get(key)
        if theirs is None:
            return None
        mine = self.surfaces[key]
        inside = theirs.covers(mine.widths)
        return float(np.median(theirs(mine.widths[inside]) / mine.seconds[inside])) if inside.any() else None

    @cached_property
    def _layer_costs(self) -> dict[str, LayerCost]:
        return layer_costs(self.records, self.surfaces)

    def _has(self, node: EngineNode, outside: str) -> bool:
        """Whether an operator's time can be told without measuring."""
        surface = self.surfaces.get(node.key)
        return surface is not None and (outside != REFUSE or bool(surface.covers(np.array([node.width]))[0]))

    def _check_here(self) -> None:
        """Engines built here must choose the kernels that the table has."""
        from .context import this_setting

        mine = self.setting
        self.check(this_setting(mine.target, mine.threads, mine.batch, mine.weights, mine.precision), self.mismatch)

    def _add(self, record: Record) -> None:
        self.records = (*self.records, record)
        for name in ("surfaces", "paces", "overhead", "_layer_costs"):
            self.__dict__.pop(name, None)

    def _what_if(self, model: nn.Module | GraphModule) -> Any:
        from .context import WhatIf
        from .prepared import prepared

        known = self.__dict__.get("_last_model")
        if known is None or known[0] is not model:
            graph = prepared(model, self.header.get("inputs"))
            known = self.__dict__["_last_model"] = (model, WhatIf(graph, describe(graph), self.setting))
        return known[1]
