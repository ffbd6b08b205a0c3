"""Models of moved channels are valid, differ by the movement, and are timed once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from sparsefx.passes.capture import capture
from sparsefx.passes.describe import describe
from sparsefx.passes.gather_inputs import GatherInputs
from sparsefx.passes.scatter_outputs import ScatterOutputs
from sparsefx.runtime.onnxruntime import movement_times
from sparsefx.runtime.onnxruntime.lower import lower_to_onnx
from sparsefx.runtime.onnxruntime.movement_models import GATHER, SCATTER, Movement, movement_model
from sparsefx.runtime.onnxruntime.movement_times import known_movements

MOVEMENTS = [
    Movement(GATHER, (1, 16, 6, 6), 1, 4),
    Movement(SCATTER, (2, 16, 6, 6), 1, 4),
    Movement(SCATTER, (1, 16, 6, 6), 1, 4, constants=True),
    Movement(GATHER, (1, 8, 9), 1, 4),
    Movement(GATHER, (1, 5, 16), 2, 4),
    Movement(SCATTER, (1, 5, 16), 2, 4),
    Movement(SCATTER, (1, 5, 16), 2, 4, constants=True),
]
_WITHIN = {"Gather", "Pad", "Transpose", "ScatterND", "Add"}


@pytest.mark.parametrize("movement", MOVEMENTS, ids=str)
def test_models_run_and_differ_by_the_movement(movement: Movement) -> None:
    import onnxruntime

    kinds = []
    for moved in (True, False):
        model = movement_model(movement, moved=moved)
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        inputs = {i.name: np.ones(i.shape, np.float32) for i in session.get_inputs()}
        (y,) = session.run(None, inputs)
        assert np.isfinite(y).all() and y.shape[0] == movement.shape[0]
        kinds.append([node.op_type for node in model.graph.node])
    assert set(kinds[0]) - set(kinds[1]) and set(kinds[0]) - set(kinds[1]) <= _WITHIN


class Sum(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layer(x))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Conv2d(16, 16, 1), (2, 16, 6, 6)), (nn.Linear(16, 16), (2, 5, 16))],
    ids=["image", "tokens"],
)
def test_models_have_the_operators_that_the_passes_are_lowered_to(
    layer: Any, shape: tuple[int, ...], tmp_path: Path
) -> None:
    with torch.no_grad():
        layer.weight[4:] = 0
        layer.weight[:, 4:] = 0
    graph = capture(Sum(layer).eval(), (torch.randn(shape),))
    full = operators(onnx.load(str(lower_to_onnx(graph, describe(graph), tmp_path))))
    GatherInputs()(graph)
    ScatterOutputs()(graph)
    thin = operators(onnx.load(str(lower_to_onnx(graph, describe(graph), tmp_path))))
    axis = 1 if len(shape) == 4 else len(shape) - 1
    moves = [Movement(GATHER, shape, axis, 4), Movement(SCATTER, shape, axis, 4, constants=True)]
    added: Counter[str] = Counter()
    for move in moves:
        added.update(operators(movement_model(move, moved=True)))
        added.subtract(operators(movement_model(move, moved=False)))
    thin.subtract(full)
    assert {op: n for op, n in added.items() if n} == {op: n for op, n in thin.items() if n}


def operators(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_times_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEFX_CACHE", str(tmp_path))
    two = MOVEMENTS[:2]
    first = known_movements([*two, two[0]], threads=1)
    assert len(first) == 3 and first[0] == first[2] and all(np.isfinite(first)) and min(first) >= 0

    def refuse(*arguments: Any) -> float:
        raise AssertionError("measured again")

    monkeypatch.setattr(movement_times, "time_movement", refuse)
    assert known_movements(two, threads=1) == first[:2]
    with pytest.raises(AssertionError, match="measured again"):
        known_movements(two, threads=2)
