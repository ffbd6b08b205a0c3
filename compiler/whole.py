"""Whole engines against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..runtime.build import Build
from ..runtime.latency.measure import measure

_TURNS, _RUNS = 7, 4
_GAIN = 0.98  # of the first engine's time: what is within it may be noise


@dataclass(frozen=True)
class Contest:
    """The fastest of the engines after the first, and whether it is faster than that by more than noise; in ms."""

    best: int
    taken: bool
    first_ms: float
    best_ms: float


def contest(builds: Sequence[Build], inputs: Sequence[Tensor]) -> Contest:
    """Time whole engines in turn, the first against the others."""
    times = time_engines(builds, inputs)
    best = min(range(1, len(builds)), key=lambda i: times[i])
    return Contest(best, times[best] < _GAIN * times[0], times[0], times[best])


def time_engines(builds: Sequence[Build], inputs: Sequence[Tensor]) -> list[float]:
    """Milliseconds of each engine on these inputs, medians of one interleaved run."""
    contenders = {}
    for number, build in enumerate(builds):
        contenders[str(number)] = build.engine.session.prepare(build.engine.check(inputs))
    once = measure(contenders, seconds=0, least_runs=1, warm_up=1)["0"].median
    results = measure(contenders, seconds=0, least_runs=_TURNS, warm_up=1, burst=_RUNS * once)
    return [results[str(number)].median * 1e3 for number in range(len(builds))]
