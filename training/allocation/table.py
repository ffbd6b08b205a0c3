"""A latency table as the costs of a budget."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...passes.errors import TableError
from ...runtime.latency.table import LatencyTable
from .costs import FLOPs, LayerCosts
from .layer import Layer
from .problem import Counts, Values

Costs = LayerCosts | LatencyTable | str | Path | None


def as_costs(given: Costs) -> LayerCosts:
    """LayerCosts as they are, those of a latency table or of its file, FLOPs for None. TableError for anything else."""
    if given is None:
        return FLOPs()
    table = LatencyTable.load(given) if isinstance(given, str | Path) else given
    if isinstance(table, LatencyTable):
        return TableCosts(table)
    if not (hasattr(table, "cost") and hasattr(table, "unit")):
        raise TableError(f"costs must be a latency table, the path of one, or have cost and unit, found {table!r}")
    return table


@dataclass(frozen=True)
class TableCosts:
    """Milliseconds of a network's engine at the table's batch, layer by layer.

    Counts below the measured ones cost what the least measured does: nothing cheaper has been seen. What is no layer
    (adds, pooling, changes of layout) is not counted by itself: every layer takes `around` times its own time, so that
    all channels together cost what their engine took. Where widths break the engine's blocks, and it changes layouts
    more often than it does for all channels, costs are too low.

    With `envelope` a layer costs the least that one at least as wide does, for those who may keep more channels than
    chosen. Without, it is as measured: engines run what is kept.
    """

    table: LatencyTable
    envelope: bool = False
    unit: ClassVar[str] = "ms"

    @cached_property
    def around(self) -> float:
        """What the engine of the widest profiled network took over the sum of its layers."""
        widest = max(self.table.records, key=lambda record: sum((record.widths or {}).values()))
        return widest.whole / sum(timed.seconds for timed in widest.nodes if timed.node.layer is not None)

    def cost(self, layer: Layer, inputs: Counts, outputs: Counts) -> Values:
        """TableError for a layer that is not in the table, or of other widths there."""
        name = layer.name.removesuffix(".weight")
        (least_in, most_in), (least_out, most_out) = self.table.channel_range(name)
        if (most_in, most_out) != (layer.inputs, layer.outputs):
            raise TableError(
                f"the latency table has {name} with {most_in} inputs and {most_out} outputs, this model with "
                f"{layer.inputs} and {layer.outputs}; profile this model"
            )
        read, written = np.maximum(inputs, least_in), np.maximum(outputs, least_out)
        return self.around * self.table.cost(name, read[:, None], written[None, :], envelope=self.envelope)
