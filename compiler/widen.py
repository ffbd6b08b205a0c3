"""The engine at the widths that exact removal leaves, and at wider ones where those are faster."""

from __future__ import annotations

from torch.fx import GraphModule

from ..runtime.latency.table import LatencyTable
from .choice import WidthDecision
from .masked_model import keep_graph
from .slim_engine import EngineMaker, SlimEngine
from .stages import Stages
from .whole import time_engines
from .widths import WidthPlans

_GAIN = 0.98  # of the exact widths' time: what is within it may be noise


def widen(
    before: GraphModule, exact: SlimEngine, maker: EngineMaker, table: LatencyTable | None
) -> tuple[SlimEngine, WidthDecision]:
    """The fastest of the exact engine and those of wider plans, measured in turn; `before` had all channels.

    Raises TableError where a layer is not in the table.
    """
    space = WidthPlans(before, exact.graph, table, maker.rules)
    plans = space.plans()
    if not plans:
        return exact, WidthDecision(taken=False)
    engines = [exact, *(maker.make(keep_graph(before), Stages(), plan) for plan in plans)]
    times = time_engines([engine.build for engine in engines if engine.build is not None], maker.inputs)
    best = min(range(1, len(engines)), key=lambda i: times[i])
    taken = times[best] < _GAIN * times[0]
    decision = WidthDecision(taken, space.choices(plans[best - 1]), times[0], times[best])
    return engines[best if taken else 0], decision
