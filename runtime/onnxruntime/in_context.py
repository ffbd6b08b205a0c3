"""What every operator of an engine takes in its place, the engine as a whole, and the machine, measured in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine import Array
from ..latency.measure import measure
from ..latency.record import COLD, NodeTime, Setting
from ..latency.undisturbed import TimedRuns
from .engine_nodes import ProfiledEngine
from .session import OnnxRuntimeSession

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
    model: Path,
    inputs: list[Array],
    setting: Setting,
    layers: Mapping[str, str],
    calibration: Callable[[], object],
    *,
    tight: float = 0.02,
) -> InContext:
    """Rounds of all three go on until the whole's median is certain within `tight`, or 48 are through."""
    with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
        profiled = ProfiledEngine(model, setting.threads, Path(folder), layers)
        plain = OnnxRuntimeSession(model, setting.threads)
        contenders = {
            "profiled": timed_runs(lambda: profiled.run(inputs), setting),
            "whole": timed_runs(lambda: plain.run(inputs), setting),
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
            _node_times(profiled, contenders["profiled"]),
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
