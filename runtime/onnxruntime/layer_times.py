"""What sparse layers take in ONNX Runtime, dense and condensed, in an engine's own setting.

The layers of a network stand in one session, one after the other, so that weights are cold and threads are those of
an engine. Times are read from ONNX Runtime's profile: those of a layer's own nodes, without the changes of layout
around it, which most layers of a whole network are spared.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .layer_models import LayerForm, condensed_model, dense_model
from .session import OnnxRuntimeSession

_TURNS, _RUNS = 3, 4  # sessions take turns; a turn's first run finds the other session's threads still spinning
_LAYOUT = ("ReorderInput", "ReorderOutput")


@dataclass(frozen=True)
class LayerTime:
    """Median seconds of one layer's two forms."""

    dense: float
    condensed: float


def time_layers(
    layers: Sequence[LayerForm], threads: int, library: Path, precision: str = "float32"
) -> list[LayerTime]:
    """Time every layer in both forms, in turn; `library` has the condensed operators, `precision` is of their weights.

    Raises TargetError where ONNX Runtime refuses one of them.
    """
    with tempfile.TemporaryDirectory(prefix="sparsefx-") as folder:
        sessions = [
            _Session(dense_model(layers), len(layers), Path(folder) / "dense", threads),
            _Session(condensed_model(layers), len(layers), Path(folder) / "condensed", threads, library, precision),
        ]
        for _ in range(_TURNS):
            for session in sessions:
                session.turn()
        dense, condensed = (session.times() for session in sessions)
    return [LayerTime(*pair) for pair in zip(dense, condensed, strict=True)]


class _Session:
    """All layers in one form, profiled."""

    def __init__(
        self,
        model: Any,
        layers: int,
        file: Path,
        threads: int,
        library: Path | None = None,
        precision: str = "float32",
    ) -> None:
        file.write_bytes(model.SerializeToString())
        self._layers = layers
        self._session = OnnxRuntimeSession(file, threads, library, precision=precision, profile=file)
        self._inputs = random_inputs(model)

    def turn(self) -> None:
        for _ in range(_RUNS):
            self._session.run(self._inputs)

    def times(self) -> list[float]:
        runs = np.zeros((self._layers, _TURNS * _RUNS))
        seen: dict[str, int] = {}
        for event in json.loads(self._session.end_profile().read_text()):
            name = event.get("name", "")
            layer = re.search(r"layer(\d+)_.*_kernel_time$", name)
            if layer and event["args"]["op_name"] not in _LAYOUT:
                run = seen[name] = seen.get(name, -1) + 1
                runs[int(layer[1]), run] += event["dur"] * 1e-6
        return [float(t) for t in np.median(runs.reshape(self._layers, _TURNS, _RUNS)[:, :, 1:], axis=(1, 2))]


def random_inputs(model: Any) -> list[Any]:
    """Normal numbers for every input of a model whose sizes are all fixed."""
    random = np.random.default_rng(0)
    shapes = [tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in model.graph.input]
    return [random.standard_normal(shape, np.float32) for shape in shapes]
