"""The engine at the widths that exact removal leaves, and at wider ones where those are faster."""

from __future__ import annotations

from collections.abc import Callable

from torch.fx import GraphModule

from ..runtime.latency.table import LatencyTable
from .choice import WidthDecision
from .masked_model import keep_graph
from .slim_engine import EngineMaker, SlimEngine
from .stages import Stages
from .whole import contest
from .widths import WidthPlans


def widen(
    before: GraphModule,
    exact: SlimEngine,
    maker: EngineMaker,
    table: LatencyTable | None,
    on_progress: Callable[[float], None],
) -> tuple[SlimEngine, WidthDecision]:
    """The fastest of the exact engine and those of wider plans, measured in turn; `before` had all channels.

    Raises TableError where a layer is not in the table.
    """
    space = WidthPlans(before, exact.graph, table, maker.rules)
    plans = space.plans()
    if not plans:
        return exact, WidthDecision(taken=False)
    engines = [exact]
    for plan in plans:
        engines.append(maker.make(keep_graph(before), Stages(), plan))
        on_progress(len(engines) / (len(plans) + 2))
    found = contest([engine.build for engine in engines if engine.build is not None], maker.inputs)
    decision = WidthDecision(found.taken, space.choices(plans[found.best - 1]), found.first_ms, found.best_ms)
    return engines[found.best if found.taken else 0], decision
