"""The engine whose layers are as wide as the tensors around them, and thinner ones where those are faster."""

from __future__ import annotations

from collections.abc import Callable

from ..runtime.latency.table import LatencyTable
from .choice import ThinDecision
from .slim_engine import EngineMaker, SlimEngine
from .stages import Stages
from .thin_plans import ThinPlans
from .whole import contest


def thin(
    full: SlimEngine, maker: EngineMaker, table: LatencyTable, on_progress: Callable[[float], None]
) -> tuple[SlimEngine, ThinDecision]:
    """The fastest of this engine and those with gathers and partial sums, measured in turn.

    Raises TableError where a layer is not in the table.
    """
    if full.build is None:
        return full, ThinDecision(taken=False)
    threads = full.build.engine.session.settings()["threads"]
    space = ThinPlans(full.graph, table, maker.inputs, threads, maker.rules)
    plans = space.plans()
    if not plans:
        return full, ThinDecision(False, space.choices({}))
    engines = [full]
    for plan in plans:
        engines.append(maker.finish(space.graph(plan), full.result, Stages()))
        on_progress(len(engines) / (len(plans) + 2))
    found = contest([engine.build for engine in engines if engine.build is not None], maker.inputs)
    decision = ThinDecision(found.taken, space.choices(plans[found.best - 1]), found.first_ms, found.best_ms)
    return engines[found.best if found.taken else 0], decision
