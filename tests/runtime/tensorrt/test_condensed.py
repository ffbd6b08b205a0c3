"""Bodies of condensed layers that gather compute the same function, in float32 and in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.passes.capture import capture
from sparsefx.passes.condense import Condense
from sparsefx.passes.describe import describe
from sparsefx.passes.errors import TableError
from sparsefx.runtime.latency.node import EngineNode
from sparsefx.runtime.latency.record import Setting
from sparsefx.runtime.latency.table import LatencyTable
from sparsefx.runtime.onnxruntime.lower import lower_to_onnx
from sparsefx.runtime.tensorrt.condensed import complete, to_constant_fan_in
from sparsefx.runtime.tensorrt.precision import convert_precision

from .nets import pruned, sparse_net

pytestmark = pytest.mark.ci

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: it is measured on")


class Convolution(nn.Module):
    """A convolution, with what a condensed one takes along."""

    def __init__(self, residual: bool, activation: bool, **options: Any) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 12, **options)
        self.shortcut = nn.Conv2d(8, 12, **options) if residual else None
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return torch.relu(y) if self.activation else y


CASES = {
    "1x1": Convolution(False, False, kernel_size=1),
    "1x1, stride 2, no bias": Convolution(False, True, kernel_size=1, stride=2, bias=False),
    "3x3, padding": Convolution(True, True, kernel_size=3, padding=1),
    "3x2, all different": Convolution(False, False, kernel_size=(3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    "groups": Convolution(True, False, kernel_size=3, padding=2, dilation=2, groups=4),
    "patches, dilated": Convolution(False, False, kernel_size=2, stride=2, dilation=2),
    "patches that do not fit": Convolution(False, False, kernel_size=3, stride=3),
    "5x5, stride 3": Convolution(False, True, kernel_size=5, stride=3),
}


def lowered(model: nn.Module, x: Tensor, folder: Path) -> Path:
    graph = capture(pruned(model, 0.15), (x,))
    assert Condense()(graph).modified
    return lower_to_onnx(graph, describe(graph), folder, complete)


def run(model: Path, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(y)


@pytest.mark.parametrize("name", list(CASES))
def test_convolutions(name: str, tmp_path: Path) -> None:
    model = CASES[name]
    height, width = (12, 8) if name == "patches, dilated" else (11, 9)
    x = torch.randn(2, 8, height, width, generator=torch.Generator().manual_seed(1))
    file = lowered(model, x, tmp_path)
    want = model.double()(x.double()).float().detach()
    model.float()
    torch.testing.assert_close(run(file, x), want, rtol=1e-5, atol=1e-5)
    convert_precision(file, tmp_path / "half.onnx", "fp16")
    half = run(tmp_path / "half.onnx", x)
    assert half.dtype == torch.float32
    assert 0 < (half - want).abs().max() < 2e-2


@pytest.mark.parametrize("shape", [(1, 24), (3, 5, 24)])
def test_linear_layers_with_gelu(shape: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 7, bias=False))
    x = torch.randn(shape)
    file = lowered(model, x, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(run(file, x), model(x), rtol=1e-5, atol=1e-5)


def test_patches_are_cut_without_slices(tmp_path: Path) -> None:
    model = Convolution(False, True, kernel_size=4, stride=4)
    x = torch.randn(2, 8, 12, 8, generator=torch.Generator().manual_seed(1))
    file = lowered(model, x, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(run(file, x), model(x), rtol=1e-5, atol=1e-5)
    (function,) = onnx.load(str(file)).functions
    assert function.node[0].op_type == "SpaceToDepth"


def test_rows_of_any_length_have_one_fan_in() -> None:
    values, places = to_constant_fan_in(
        np.array([1.0, 2.0, 3.0], np.float32), np.array([4, 1, 7]), np.array([0, 1, 1, 3])
    )
    assert values.tolist() == [[1, 0], [0, 0], [2, 3]]
    assert places.tolist() == [[4, 0], [0, 0], [1, 7]]
    empty, _ = to_constant_fan_in(np.zeros(0, np.float32), np.zeros(0, int), np.array([0, 0]))
    assert empty.shape == (1, 1)


class Foretold(LatencyTable):
    """Dense layers take a millisecond; condensed ones of 16 x 16 a half, others two; some are not in it."""

    def __init__(self, target: str, unknown: str = "") -> None:
        super().__init__(Setting(target, "NVIDIA L4", "TensorRT-RTX 1.7", 0, 1), [])
        self.unknown, self.asked = unknown, list[EngineNode]()

    def channel_range(self, layer: str) -> tuple[tuple[int, int], tuple[int, int]]:
        return (1, 16), (1, 16)

    def cost(self, layer: str, c_in: Any, c_out: Any, *, envelope: bool = False) -> Any:
        return np.float64(1.0)

    def seconds(self, node: EngineNode, *, outside: str = "refuse") -> float:
        self.asked.append(node)
        if self.unknown and self.unknown in node.key:
            raise TableError("not in the table")
        return 0.5e-3 if node.key.endswith("to 1x16x16") else 2e-3


@no_gpu
def test_without_a_gpu_a_latency_table_decides_what_is_condensed() -> None:
    model, x = sparse_net(), torch.randn(1, 3, 16, 16)
    target = "tensorrt-rtx:sm89"
    table = Foretold(target)
    compiled = sparsefx.compile(model, (x,), target=target, latency_table=table, verify=False)
    choice = compiled.report.choice
    assert {layer.layer: layer.representation for layer in choice.layers} == {"stem": "condensed", "down": "dense"}
    assert [(layer.dense_us, layer.condensed_us) for layer in choice.layers] == [(1000.0, 500.0), (1000.0, 2000.0)]
    assert choice.notes == ("not measured: by the latency table 1 of 2 sparse layers are faster condensed",)
    assert choice.processor == "NVIDIA L4"
    assert "widths are exact: latency tables decide them for onnxruntime:cpu only" in compiled.report.notes
    functions = [node.op_type for node in onnx.load(str(compiled.build.model)).graph.node if node.domain == "sparsefx"]
    assert functions == ["GatherConv2d_3x3_1x1_1x1_1x1_Relu"]
    fan_in = int((dict(model.named_modules())["stem"].weight != 0).flatten(1).sum(1).max())
    (stem,) = [node for node in table.asked if node.key.endswith("to 1x16x16")]
    assert stem.key == f"{functions[0]}, 1x16x16 with 3 to 1x16x16" and stem.width == (fan_in, 16)


@no_gpu
def test_layers_that_the_table_does_not_have_stay_dense() -> None:
    target = "tensorrt-rtx:sm89"
    table = Foretold(target, unknown="with 3")
    compiled = sparsefx.compile(
        sparse_net(), (torch.randn(1, 3, 16, 16),), target=target, latency_table=table, verify=False
    )
    assert {layer.representation for layer in compiled.report.choice.layers} == {"dense"}
    (note,) = compiled.report.choice.notes
    assert note.endswith(
        "0 of 2 sparse layers are faster condensed; it does not have both forms of 1, which stay dense"
    )


@no_gpu
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tensorrt-rtx:sm80"}, "measured with target 'tensorrt-rtx:sm89'"),
        ({"precision": "fp16"}, "measured with precision 'fp32'"),
    ],
)
def test_a_table_of_another_setting_is_refused(options: dict[str, str], message: str) -> None:
    arguments = {"target": "tensorrt-rtx:sm89", **options}
    with pytest.raises(TableError, match=message):
        sparsefx.compile(
            sparse_net(), (torch.randn(1, 3, 16, 16),), latency_table=Foretold("tensorrt-rtx:sm89"), **arguments
        )
