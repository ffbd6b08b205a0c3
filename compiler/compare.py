"""The compiled engine beside the dense one: as a whole, and layer by layer, in one interleaved run. No torch."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..passes.errors import TargetError
from ..runtime.engine import Array, Engine
from ..runtime.latency.measure import Measurement, measure
from ..runtime.latency.time_cache import processor
from ..runtime.onnxruntime.layer_clock import REST, Layer, LayerClock
from ..runtime.onnxruntime.session import OnnxRuntimeSession
from .figures import COMPILED, DENSE, Comparison, EngineTime, LayerTimes

_LEAST_RUNS = 20


@dataclass(frozen=True)
class Contender:
    """An engine, its layers with a weight in order, and the size of its files."""

    engine: Engine
    layers: tuple[Layer, ...]
    file_bytes: int


def layers_of(report: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers of a compiled engine, by its report as plain data."""
    shapes = {layer["name"]: layer["shape_after"] for layer in report["layers"]}
    return tuple(Layer(name, math.prod(shapes[name])) for name in report["engine_layers"])


def dense_layers_of(report: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers of the masked model's engine, with nothing removed."""
    return tuple(Layer(x["name"], math.prod(x["shape_before"])) for x in report["layers"] if x["shape_before"])


def compare(
    dense: Contender, compiled: Contender, inputs: Sequence[Array], sizes: Mapping[str, int], *, seconds: float
) -> Comparison:
    """Time both engines in turn on the same inputs, first as a whole, then with a profile.

    Single layers are timed in ONNX Runtime on the CPU only; elsewhere a note says so.
    """
    contenders = {DENSE: dense, COMPILED: compiled}
    runs = {name: c.engine.session.prepare(c.engine.check(inputs)) for name, c in contenders.items()}
    whole = measure(runs, seconds=seconds, least_runs=_LEAST_RUNS)
    engines = tuple(_engine_time(n, whole[n], whole[DENSE], c.file_bytes) for n, c in contenders.items())
    layers, rest, notes = tuple[LayerTimes, ...](), None, tuple[str, ...]()
    try:
        layers, rest, notes = _layer_times(contenders, inputs)
    except (TargetError, ImportError) as error:
        notes = (f"single layers were not timed: {error}",)
    settings = compiled.engine.session.settings()
    device = processor() if compiled.engine.target.endswith(":cpu") else compiled.engine.target
    return Comparison(engines, layers, rest, dict(sizes), settings.get("threads"), device, notes)


def _engine_time(name: str, found: Measurement, dense: Measurement, file_bytes: int) -> EngineTime:
    times = (1e3 * found.median, 1e3 * found.p99, 1e3 * found.spread)
    return EngineTime(name, *times, len(found.seconds), found.ratio_to(dense), file_bytes)


def _layer_times(
    contenders: Mapping[str, Contender], inputs: Sequence[Array]
) -> tuple[tuple[LayerTimes, ...], LayerTimes, tuple[str, ...]]:
    """Medians of all layers in both engines, of what is no layer's, and what has no times of its own."""
    with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
        clocks = {name: _clock(c, Path(folder)) for name, c in contenders.items()}
        flat = {name: c.engine.check(inputs) for name, c in contenders.items()}
        warm_up = 3
        measure(
            {name: _run(clock, flat[name]) for name, clock in clocks.items()},
            seconds=0,
            least_runs=_LEAST_RUNS,
            warm_up=warm_up,
        )
        found = {name: _medians(clock, warm_up) for name, clock in clocks.items()}
    fused = {layer.name for name, c in contenders.items() for layer in c.layers if layer.name not in found[name]}
    names = dict.fromkeys(layer.name for c in contenders.values() for layer in c.layers)
    pairs = [LayerTimes(n, found[DENSE].get(n), found[COMPILED].get(n)) for n in names if n not in fused]
    note = f"without times of their own, since ONNX Runtime runs them within others: {', '.join(sorted(fused))}"
    rest = LayerTimes("everything else", found[DENSE][REST], found[COMPILED][REST])
    return tuple(pairs), rest, (note,) if fused else ()


def _clock(contender: Contender, folder: Path) -> LayerClock:
    session = contender.engine.session
    if not isinstance(session, OnnxRuntimeSession):
        raise TargetError(f"layers are timed in ONNX Runtime on the CPU only, not for {contender.engine.target}")
    return LayerClock(session, contender.layers, folder)


def _run(clock: LayerClock, inputs: Sequence[Array]) -> Any:
    return lambda: clock.session.run(inputs)


def _medians(clock: LayerClock, warm_up: int) -> dict[str, float]:
    return {name: 1e3 * float(np.median(times[warm_up:])) for name, times in clock.seconds().items()}
