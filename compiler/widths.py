"""Widths by measurement: which removable channels stay, because wider layers are faster.

An engine works in blocks of channels; a layer of 117 can take longer than one of 120. A latency table foretells what
layers take at the widths that exact removal leaves and at wider ones, block by block; then whole engines are measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.fx import GraphModule

from ..passes.channels.rules import OperatorRule
from ..passes.channels.trace import GraphTrace
from ..passes.errors import TargetError
from ..runtime.latency.context import this_setting
from ..runtime.latency.grid import LARGEST_BLOCK
from ..runtime.latency.table import LatencyTable
from ..runtime.latency.widths import WidthSpace
from ..runtime.onnxruntime.session import TARGET as CPU
from ..runtime.targets import BuildSettings
from .choice import WidthChoice
from .report import LayerReport

BLOCKS = (4, 8, 16, 32)  # channels that engines work on at once
_MOST_SWEEPS = 10

Widths = dict[str, int]  # output channels by layer


@dataclass(frozen=True)
class _Layer:
    """A layer of the slim graph, and the groups of channels that it reads and writes."""

    name: str
    inputs: int
    outputs: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]


class WidthPlans:
    """What could be kept of a slim graph's removable channels, and what a latency table says of it.

    `before` is the graph before channels were removed. Without a table there are whole blocks only. Outside the widths
    that were measured the nearest measured one stands in. Raises TableError where a layer is not in the table.
    """

    def __init__(
        self,
        before: GraphModule,
        slim: GraphModule,
        table: LatencyTable | None,
        rules: Mapping[str, OperatorRule] | None = None,
    ) -> None:
        space = WidthSpace(slim, rules)
        full = {c.layer: c.outputs.size for c in GraphTrace(before, rules).contractions}
        self._table = table
        self._groups = {g.name: g for g in space.groups}
        self._layers = _layers(space)
        self._slim = {layer.name: layer.outputs for layer in self._layers}
        self._room = {
            g.name: min(full.get(p, self._slim[p]) - self._slim[p] for p in g.producers) for g in space.groups
        }

    def plans(self) -> list[Widths]:
        """Least output channels by layer: those that the table likes best, and whole blocks everywhere."""
        blocks = {name: self._to_block(name, LARGEST_BLOCK) for name in self._groups}
        plans = [self._widths(added) for added in ([blocks] if self._table is None else [self._best(), blocks])]
        return [dict(plan) for plan in dict.fromkeys(tuple(sorted(p.items())) for p in plans) if plan]

    def choices(self, widths: Widths) -> tuple[WidthChoice, ...]:
        """Every group of channels of a plan: its layers, and milliseconds by the table of all that read or write it."""
        added = {
            name: widths[group.producers[0]] - self._slim[group.producers[0]]
            for name, group in self._groups.items()
            if group.producers[0] in widths
        }
        return tuple(
            WidthChoice(
                self._groups[name].producers,
                self._slim[self._groups[name].producers[0]],
                widths[self._groups[name].producers[0]],
                *((None, None) if self._table is None else (self._cost(without, name), self._cost(added, name))),
            )
            for name in added
            for without in [{k: v for k, v in added.items() if k != name}]
        )

    def _best(self) -> dict[str, int]:
        """Group by group the block that is fastest with the others as they are, until nothing changes."""
        added = dict.fromkeys(self._groups, 0)
        for _ in range(_MOST_SWEEPS):
            before = dict(added)
            for name in self._groups:
                options = sorted({0, *(self._to_block(name, block) for block in BLOCKS)})
                added[name] = min(options, key=lambda more: self._cost({**added, name: more}, name))
            if added == before:
                break
        return added

    def _to_block(self, name: str, block: int) -> int:
        """How many channels fill the last block; none where there are not as many."""
        missing = -self._slim[self._groups[name].producers[0]] % block
        return missing if missing <= self._room[name] else 0

    def _cost(self, added: Mapping[str, int], group: str) -> float:
        """Milliseconds of all layers that read or write a group."""
        return sum(self._milliseconds(x, added) for x in self._layers if group in x.reads or group in x.writes)

    def _milliseconds(self, layer: _Layer, added: Mapping[str, int]) -> float:
        inputs = layer.inputs + sum(added.get(g, 0) for g in layer.reads)
        outputs = layer.outputs + sum(added.get(g, 0) for g in layer.writes)
        assert self._table is not None
        ranges = self._table.channel_range(layer.name)
        near = [int(np.clip(c, low, high)) for c, (low, high) in zip((inputs, outputs), ranges, strict=True)]
        return float(self._table.cost(layer.name, *near))

    def _widths(self, added: Mapping[str, int]) -> Widths:
        producers = {p: more for name, more in added.items() if more for p in self._groups[name].producers}
        return {layer: self._slim[layer] + more for layer, more in producers.items()}


def block_note(layers: Sequence[LayerReport]) -> list[str]:
    """What to try where exact widths, alone, may make an engine slower than the dense one."""
    partial = sum(
        layer.operator.startswith("conv")
        and layer.shape_after is not None
        and layer.shape_before[0] % LARGEST_BLOCK == 0
        and layer.shape_after[0] % LARGEST_BLOCK != 0
        for layer in layers
    )
    if not partial:
        return []
    return [
        f"convolutions that no longer fill blocks of {LARGEST_BLOCK} channels, which ONNX Runtime is fastest with: "
        f'{partial}; widths="measured" lets channels stay where the engine gains'
    ]


def table_for(table: LatencyTable | str | Path, settings: BuildSettings, inputs: Sequence[Tensor]) -> LatencyTable:
    """The table, which must be of this setting: TableError, or a warning where it was loaded with mismatch="warn".

    Where a GPU's engine is built without one, the table says on which GPU, and of which version, it will run.
    """
    found = table if isinstance(table, LatencyTable) else LatencyTable.load(table)
    batch = int(inputs[0].shape[0]) if inputs and inputs[0].ndim else 1
    precision = "fp32" if settings.target == CPU else settings.precision
    try:
        here = this_setting(settings.target, settings.threads, batch, found.setting.weights, precision)
    except TargetError:
        here = replace(found.setting, target=settings.target, batch=batch, precision=precision)
    found.check(here, found.mismatch)
    return found


def _layers(space: WidthSpace) -> list[_Layer]:
    return [
        _Layer(
            c.layer,
            c.inputs.size,
            c.outputs.size,
            tuple(g.name for g in space.groups if c.layer in g.consumers),
            tuple(g.name for g in space.groups if c.layer in g.producers),
        )
        for c in space.contractions
    ]
