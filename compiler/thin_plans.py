"""Which layers would be faster thinner than the tensors around them: gathers in front, partial sums behind.

What a layer takes at any widths is a latency table's to say, what moving the channels takes is measured beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor
from torch.fx import GraphModule

from ..passes.channels.rules import OperatorRule
from ..passes.fold_batch_norm import FoldBatchNorm
from ..passes.gather_inputs import GatherInputs
from ..passes.scatter_outputs import ScatterOutputs
from ..passes.thinning import Thinning, thin_inputs, thin_outputs
from ..runtime.latency.table import LatencyTable
from ..runtime.onnxruntime.movement_models import GATHER, SCATTER, Movement
from ..runtime.onnxruntime.movement_times import known_movements
from .candidates import shape_here, sizes_here
from .choice import ThinChoice
from .masked_model import keep_graph
from .widths import BLOCKS

INPUTS, OUTPUTS = "inputs", "outputs"
# Of the full layer's time: layers that gain by themselves; and with them those that lose little, since neighbours can
# share a change of layout, which every movement was measured with.
_MARGINS = (0.97, 1.25)

Side = tuple[str, str]  # node and side
Plan = Mapping[Side, int]  # channels per group


@dataclass(frozen=True)
class _Candidate:
    """One side of a layer at the width that the table likes best; milliseconds without moving."""

    side: Side
    thinning: Thinning
    width: int
    full_ms: float
    thin_ms: float
    movement: Movement


class ThinPlans:
    """What the layers of a slim graph could do without, and what a latency table and movements say of it.

    Engines have `inputs` and `threads`. Raises TableError where a layer is not in the table.
    """

    def __init__(
        self,
        slim: GraphModule,
        table: LatencyTable,
        inputs: Sequence[Tensor],
        threads: int,
        rules: Mapping[str, OperatorRule] | None = None,
    ) -> None:
        self._slim, self._table, self._rules = slim, table, rules
        self._sizes = sizes_here(slim, inputs)
        self._candidates = list(self._find())
        seconds = known_movements([c.movement for c in self._candidates], threads)
        self._choices = {c.side: _choice(c, s * 1e3) for c, s in zip(self._candidates, seconds, strict=True)}

    def plans(self) -> list[Plan]:
        """What to thin: layers that gain by themselves; if any, also with those that lose little, and inputs only."""
        single, generous = (self._below(margin) for margin in _MARGINS)
        gathers = {side: width for side, width in single.items() if side[1] == INPUTS}
        plans = [plan for plan in (single, generous, gathers) if plan] if single else []
        return [dict(plan) for plan in dict.fromkeys(tuple(plan.items()) for plan in plans)]

    def choices(self, plan: Plan) -> tuple[ThinChoice, ...]:
        """Every layer that was considered, and whether the plan has it."""
        return tuple(replace(choice, taken=side in plan) for side, choice in self._choices.items())

    def graph(self, plan: Plan) -> GraphModule:
        """A copy of the slim graph, thinned."""
        copy = keep_graph(self._slim)
        GatherInputs(lambda t: plan.get((t.node.name, INPUTS), t.full), self._rules)(copy)
        ScatterOutputs(lambda t: plan.get((t.node.name, OUTPUTS), t.full), self._rules)(copy)
        FoldBatchNorm()(copy)
        return copy

    def _below(self, margin: float) -> Plan:
        return {c.side: c.width for c in self._candidates if self._gains(self._choices[c.side], margin)}

    @staticmethod
    def _gains(choice: ThinChoice, margin: float) -> bool:
        return choice.thin_ms < margin * choice.full_ms

    def _find(self) -> Iterator[_Candidate]:
        """Sides of layers that the table finds faster thin, moving aside."""
        thin_in = {t.node.name: t for t in thin_inputs(self._slim, self._rules)}
        thin_out = {t.node.name: t for t in thin_outputs(self._slim, self._rules)}
        for name in dict.fromkeys([*thin_in, *thin_out]):
            for side, thinning in ((INPUTS, thin_in.get(name)), (OUTPUTS, thin_out.get(name))):
                candidate = None if thinning is None else self._candidate(side, thinning)
                if candidate is not None and candidate.thin_ms < candidate.full_ms:
                    yield candidate

    def _candidate(self, side: str, thinning: Thinning) -> _Candidate | None:
        options = sorted({-(-thinning.least // block) * block for block in (1, *BLOCKS)})
        options = [width for width in options if width < thinning.full]
        if not options:
            return None
        times = [self._milliseconds(side, thinning, width) for width in options]
        best = int(np.argmin(times))
        movement = self._movement(side, thinning, options[best])
        if movement is None:
            return None
        full = self._milliseconds(side, thinning, thinning.full)
        return _Candidate((thinning.node.name, side), thinning, options[best], full, times[best], movement)

    def _milliseconds(self, side: str, thinning: Thinning, width: int) -> float:
        """By the table; below the widths that were measured, in proportion to the nearest."""
        kernel = thinning.contraction.kernel
        inputs, outputs = (width, kernel.outputs) if side == INPUTS else (kernel.inputs, width)
        widths = np.array([inputs, outputs]) * kernel.groups
        low, high = np.array(self._table.channel_range(thinning.layer)).T
        near = np.clip(widths, low, high)
        return float(self._table.cost(thinning.layer, *near) * np.minimum(widths / near, 1).prod())

    def _movement(self, side: str, thinning: Thinning, width: int) -> Movement | None:
        """None where a layout is not among those that are measured."""
        c, kept = thinning.contraction, thinning.kept(width)
        shape = shape_here(c.operand if side == INPUTS else c.node, self._sizes)
        if shape is None or c.axis not in (1, len(shape) - 1) or len(shape) < 2:
            return None
        if side == INPUTS:
            return Movement(GATHER, shape, c.axis, int(kept.sum()))
        return Movement(SCATTER, shape, c.axis, int(kept.sum()), bool(c.kernel.bias[~kept].any()))


def _choice(candidate: _Candidate, moving_ms: float) -> ThinChoice:
    groups = candidate.thinning.contraction.kernel.groups
    return ThinChoice(
        candidate.thinning.layer,
        candidate.side[1],
        candidate.thinning.full * groups,
        candidate.width * groups,
        candidate.full_ms,
        candidate.thin_ms + moving_ms,
        moving_ms,
    )
