"""Whole engines against each other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..runtime.build import Build
from ..runtime.latency.measure import measure

_TURNS, _RUNS = 7, 4


def time_engines(builds: Sequence[Build], inputs: Sequence[Tensor]) -> list[float]:
    """Milliseconds of each engine on these inputs, medians of one interleaved run."""
    contenders = {}
    for number, build in enumerate(builds):
        contenders[str(number)] = build.engine.session.prepare(build.engine.check(inputs))
    once = measure(contenders, seconds=0, least_runs=1, warm_up=1)["0"].median
    results = measure(contenders, seconds=0, least_runs=_TURNS, warm_up=1, burst=_RUNS * once)
    return [results[str(number)].median * 1e3 for number in range(len(builds))]
