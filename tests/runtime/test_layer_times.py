"""Layers as they are timed: both forms compute the same, and every layer's own nodes are found in the profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsefx.runtime import custom_op_library
from sparsefx.runtime.latency import time_cache
from sparsefx.runtime.onnxruntime import known_times as known_times_module
from sparsefx.runtime.onnxruntime.known_times import known_times, signature
from sparsefx.runtime.onnxruntime.layer_models import LayerForm, Window, condensed_model, dense_model
from sparsefx.runtime.onnxruntime.layer_times import LayerTime, random_inputs, time_layers
from sparsefx.runtime.onnxruntime.session import OnnxRuntimeSession
from tests.runtime.kernels.needs import needs_compiler

pytestmark = needs_compiler


def weight(*shape: int, density: float = 0.1, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) * (random.random(shape) < density)).astype(np.float32)


CONVOLUTION = Window((1, 1), (1, 1), (1, 1), 1)
LAYERS = [
    LayerForm(weight(48, 64), (1, 64), None, False, "none"),
    LayerForm(weight(48, 64), (2, 64), None, True, "relu"),
    LayerForm(weight(512, 64), (1, 100, 64), None, False, "relu"),
    LayerForm(weight(48, 64), (1, 20, 64), None, True, "none"),
    LayerForm(weight(32, 16, 3, 3), (1, 16, 20, 20), CONVOLUTION, False, "relu"),
    LayerForm(weight(64, 32, 1, 1), (1, 32, 40, 40), Window(), True, "relu"),
    LayerForm(weight(6, 3, 5, 3), (2, 6, 20, 21), Window((2, 1), (2, 0), (1, 2), 2), False, "none"),
    LayerForm(np.zeros((8, 4, 1, 1), np.float32), (1, 4, 5, 5), Window(), True, "none"),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: str(layer.weight.shape))
def test_both_forms_compute_the_same(layer: LayerForm, tmp_path: Path) -> None:
    if layer.residual and layer.window is not None:
        pytest.skip("the dense form makes its own residual")
    found = []
    for model, library in ((dense_model([layer]), None), (condensed_model([layer]), custom_op_library())):
        (tmp_path / "layer.onnx").write_bytes(model.SerializeToString())
        found.append(OnnxRuntimeSession(tmp_path / "layer.onnx", 1, library).run(random_inputs(model))[0])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_layer_is_found_in_the_profile(threads: int) -> None:
    for time in time_layers(LAYERS * 2, threads, custom_op_library()):
        assert time.dense > 0
        assert time.condensed > 0


def test_layers_that_are_alike_are_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library, measured = custom_op_library(), list[int]()
    monkeypatch.setattr(time_cache, "cache_folder", lambda: tmp_path)

    def count(layers: list[LayerForm], *rest: object) -> list[LayerTime]:
        measured.append(len(layers))
        return time_layers(layers, 1, library)

    monkeypatch.setattr(known_times_module, "time_layers", count)
    alike = [LAYERS[0], LAYERS[0], LAYERS[1]]
    first = known_times(alike, 1, library)
    assert measured == [2]
    assert first[0] == first[1]
    monkeypatch.setattr(known_times_module, "_MOST_BYTES", 1)
    known_times(LAYERS, 1, library)
    assert measured == [2, *([1] * (len(LAYERS) - 2))]  # each in a session of its own, as they do not fit together


def test_a_signature_tells_even_patterns_from_uneven_ones() -> None:
    even, uneven = np.zeros((4, 64), np.float32), np.zeros((4, 64), np.float32)
    even[:, ::16], uneven[:, :4] = 1, 1
    first, second = (signature(LayerForm(w, (1, 64), None, False, "none")) for w in (even, uneven))
    assert first != second
