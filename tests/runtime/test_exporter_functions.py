"""The exporter's functions are listed once, and the exporter is as it was afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter import _registration

import sparsefx
from sparsefx.passes.describe import describe
from sparsefx.runtime.onnxruntime.lower import lower_to_onnx

EXPORTER: Any = _registration


class Counting:
    """What the exporter asks of onnxscript, counted."""

    def __init__(self, apis: Any) -> None:
        self.apis, self.lists = apis, 0

    def get_torchlib_ops(self) -> Any:
        self.lists += 1
        return self.apis.get_torchlib_ops()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.apis, name)


def test_exports_share_one_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(EXPORTER.onnxscript_apis)
    monkeypatch.setattr(EXPORTER, "onnxscript_apis", counting)
    graph = sparsefx.compile(nn.Linear(4, 2), (torch.randn(1, 4),), target="torch").graph_module
    for _ in range(2):
        lower_to_onnx(graph, describe(graph), tmp_path)
    assert counting.lists == 1
    assert EXPORTER.onnxscript_apis is counting, "other exports are as they were"
    EXPORTER.ONNXRegistry.from_torchlib()
    assert counting.lists == 2
