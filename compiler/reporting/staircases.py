"""Staircases of a latency table for the layers of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...passes.errors import TableError
from ...runtime.latency.table import LatencyTable
from .charts import Chart, Line, Mark

_POINTS = 160


def staircase_charts(table: LatencyTable, report: Mapping[str, Any]) -> tuple[Chart, ...]:
    """Milliseconds over output channels of every layer that the table has, those that take longest first.

    Raises TableError where it has none of the report's layers.
    """
    layers = {layer["name"]: layer for layer in report["layers"] if layer["shape_before"]}
    charts = [_chart(table, name, layers[name]) for name in table.layers if name in layers]
    if not charts:
        raise TableError(
            f"the latency table has no layer of this model: it has {', '.join(table.layers) or 'none at all'}; profile "
            "the model that the report is of"
        )
    return tuple(sorted(charts, key=lambda chart: -max(y or 0.0 for y in chart.lines[0].y)))


def _chart(table: LatencyTable, name: str, layer: Mapping[str, Any]) -> Chart:
    (fewest, most), (low, high) = table.channel_range(name)
    outputs = np.unique(np.linspace(low, high, min(_POINTS, high - low + 1)).round().astype(int))
    left = len(layer["kept_inputs"])
    lines = [_line(table, name, most, outputs)]
    if fewest <= left < most:
        lines.append(_line(table, name, left, outputs))
    marks = [Mark(f"before: {layer['outputs_before']}", layer["outputs_before"])]
    if layer["shape_after"] is not None:
        after = len(layer["kept_outputs"])
        marks.append(Mark(f"after: {after}", after))
    return Chart(name, "output channels", "milliseconds", tuple(lines), tuple(marks), steps=True, zero=True)


def _line(table: LatencyTable, name: str, inputs: int, outputs: Any) -> Line:
    return Line(f"{inputs} inputs", outputs.tolist(), table.cost(name, inputs, outputs).tolist())
