"""What moving channels takes in ONNX Runtime, with the changes of layout and the fusions that it costs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..latency.time_cache import TimeCache, processor
from .layer_times import random_inputs
from .movement_models import Movement, movement_model
from .session import OnnxRuntimeSession

_TURNS, _RUNS = 4, 6  # the first run of a turn finds the other session's threads still spinning
_LAYERS = ("Conv", "FusedConv", "MatMul", "Gemm")


def known_movements(movements: Sequence[Movement], threads: int) -> list[float]:
    """Seconds that each movement adds to an engine; those that the cache does not have are measured."""
    import onnxruntime

    setting = {"processor": processor(), "onnxruntime": onnxruntime.__version__, "threads": threads}
    cache = TimeCache({**setting, "what": "movements"})
    known = cache.read()
    missing = [m for m in dict.fromkeys(movements) if repr(m) not in known]
    if missing:
        found = {repr(m): [time_movement(m, threads)] for m in missing}
        cache.add(found)
        known |= found
    return [known[repr(m)][0] for m in movements]


def time_movement(movement: Movement, threads: int) -> float:
    """Median seconds of all that is no layer, with the movement less without it, in turn; at least 0."""
    with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
        sessions = [_Session(movement, moved, Path(folder) / str(moved), threads) for moved in (True, False)]
        for _ in range(_TURNS):
            for session in sessions:
                session.turn()
        with_it, without = (session.seconds() for session in sessions)
    return max(0.0, with_it - without)


class _Session:
    """The model with the movement, or without it, profiled."""

    def __init__(self, movement: Movement, moved: bool, file: Path, threads: int) -> None:
        model = movement_model(movement, moved=moved)
        file.write_bytes(model.SerializeToString())
        self._session = OnnxRuntimeSession(file, threads, profile=file)
        self._inputs = random_inputs(model)

    def turn(self) -> None:
        for _ in range(_RUNS):
            self._session.run(self._inputs)

    def seconds(self) -> float:
        times: dict[str, list[float]] = {}
        for event in json.loads(self._session.end_profile().read_text()):
            if event.get("name", "").endswith("_kernel_time") and event["args"]["op_name"] not in _LAYERS:
                times.setdefault(event["name"], []).append(event["dur"] * 1e-6)
        runs = np.array(list(times.values())).reshape(len(times), _TURNS, _RUNS).sum(axis=0)
        return float(np.median(runs[:, 1:]))
