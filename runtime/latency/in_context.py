"""What every operator of an engine takes in its place, the engine as a whole, and the machine, measured in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .measure import measure
from .profiling import ProfiledEngine
from .record import COLD, NodeTime, Setting
from .undisturbed import TimedRuns

_WARM_UP, _ROUNDS, _MOST_ROUNDS = 2, 8, 48
_SWEEP = 2**26  # bytes that are read before a cold run: more than any core's own caches


@dataclass(frozen=True)
class InContext:
    """`whole` is the engine without a profiler; seconds, and the uncertainty of their median as a share."""

    nodes: tuple[NodeTime, ...]
    whole: float
    uncertainty: float
    runs: int
    calibration: float


def measure_in_context(
    engine: ProfiledEngine, setting: Setting, calibration: Callable[[], object], *, tight: float = 0.02
) -> InContext:
    """Rounds of all three go on until the whole's median is certain within `tight`, or 48 are through."""
    contenders = {
        "profiled": timed_runs(engine.run, setting),
        "whole": timed_runs(engine.plain(), setting),
        "calibration": TimedRuns(calibration, setting.threads, repeat=2),
    }
    measure(contenders, seconds=0, least_runs=_WARM_UP, warm_up=0)
    for runs in contenders.values():
        runs.forget()
    whole = contenders["whole"]
    while len(whole.seconds) < _MOST_ROUNDS:
        measure(contenders, seconds=0, least_runs=_ROUNDS, warm_up=0)
        if max(whole.uncertainty, contenders["profiled"].uncertainty) <= tight:
            break
    return InContext(
        _node_times(engine, contenders["profiled"]),
        whole.median,
        whole.uncertainty,
        len(whole.seconds),
        contenders["calibration"].median,
    )


def timed_runs(run: Callable[[], object], setting: Setting) -> TimedRuns:
    """Warm: of two runs in a row the second counts. Cold: the only one, after other memory was read."""
    if setting.weights != COLD:
        return TimedRuns(run, setting.threads, repeat=2)
    other = np.ones(_SWEEP // 8)
    return TimedRuns(run, setting.threads, before=lambda: float(other.sum()))


def _node_times(engine: ProfiledEngine, runs: TimedRuns) -> tuple[NodeTime, ...]:
    counted = np.array(runs.made)[runs.undisturbed()]
    found = []
    for node, seconds in engine.finish():
        low, middle, high = np.percentile(np.array(seconds)[counted], [25, 50, 75])
        found.append(NodeTime(node, float(middle), float((high - low) / max(middle, 1e-9))))
    return tuple(found)
