"""A small engine whose time tells how fast the machine is just now; every measurement of a table has it in turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..engine import Array
from .layer_models import LayerForm, Window, dense_model
from .layer_times import random_inputs
from .session import OnnxRuntimeSession

_LAYERS = (  # weight, input and padding: about three milliseconds in all, bound by arithmetic and by memory
    ((64, 64, 3, 3), (1, 64, 28, 28), 1),
    ((256, 256, 1, 1), (1, 256, 14, 14), 0),
    ((512, 512, 3, 3), (1, 512, 7, 7), 1),
    ((768, 768), (64, 768), 0),
)


def calibration_forms() -> list[LayerForm]:
    """Its layers."""
    random = np.random.default_rng(0)
    return [
        LayerForm(
            random.standard_normal(weight, np.float32),
            given,
            Window(padding=(padding, padding)) if len(weight) == 4 else None,
            residual=False,
            activation="relu",
        )
        for weight, given, padding in _LAYERS
    ]


def calibration_model(folder: Path) -> tuple[Path, list[Array]]:
    """Its ONNX file, and inputs."""
    model = dense_model(calibration_forms())
    path = folder / "calibration.onnx"
    path.write_bytes(model.SerializeToString())
    return path, random_inputs(model)


def calibration_engine(threads: int, folder: Path) -> Callable[[], object]:
    """Runs the calibration engine once, on the CPU."""
    path, inputs = calibration_model(folder)
    session = OnnxRuntimeSession(path, threads)
    return lambda: session.run(inputs)
