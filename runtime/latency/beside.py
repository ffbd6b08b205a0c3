"""A whole engine, operator by operator: what each takes in its place, beside what a table says."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule

from ...passes.describe import describe
from ...passes.errors import TableError
from .node import EngineNode
from .table import WARN, LatencyTable


@dataclass(frozen=True)
class Beside:
    """Milliseconds of one operator; `predicted` is None where the table does not have its kind."""

    node: EngineNode
    measured: float
    predicted: float | None


@dataclass(frozen=True)
class EngineProfile:
    """`whole` is the engine without a profiler, `predicted` the table's sum; None where an operator is missing."""

    operators: tuple[Beside, ...]
    whole: float
    predicted: float | None

    def __str__(self) -> str:
        rows = sorted(self.operators, key=lambda row: -row.measured)
        predicted = "" if self.predicted is None else f", predicted {self.predicted:.3f} ms"
        lines = [f"engine {self.whole:.3f} ms{predicted}"]
        for row in rows:
            said = "not in the table" if row.predicted is None else f"{row.predicted:8.3f} ms"
            lines.append(f"{row.measured:8.3f} ms  {said}  {row.node.layer or row.node.name}: {row.node.key}")
        return "\n".join(lines)


def engine_profile(graph_module: GraphModule, table: LatencyTable) -> EngineProfile:
    """Measure a compiled model's graph in the table's setting, in place, beside the table's figures.

    What lies outside the measured widths is extrapolated with a warning. Raises TargetError where there is no engine.
    """
    from .context import measured_graph

    record = measured_graph(graph_module, describe(graph_module), table.setting)
    rows = tuple(Beside(t.node, 1e3 * t.seconds, _predicted(table, t.node)) for t in record.nodes)
    known = all(row.predicted is not None for row in rows)
    total = table.total([row.node for row in rows], outside=WARN) if known else None
    return EngineProfile(rows, 1e3 * record.whole, total)


def _predicted(table: LatencyTable, node: EngineNode) -> float | None:
    try:
        return 1e3 * table.seconds(node, outside=WARN)
    except TableError:
        return None
