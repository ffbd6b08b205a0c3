"""Conversion to half precision: what goes in and comes out keeps its type, weights that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.compiler.precision import with_rounded_tensors
from sparsefx.passes.capture import capture
from sparsefx.passes.describe import describe
from sparsefx.runtime.onnxruntime.lower import lower_to_onnx
from sparsefx.runtime.tensorrt.precision import convert_precision

from .nets import sparse_net

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
FLOAT, LOW = onnx.TensorProto.FLOAT, {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}


class Mixed(nn.Module):
    """Integers, a scale that has to stay float32, constants inside, an output that is an integer."""

    def forward(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        y = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear") * 0.5 + torch.ones_like(x).mean()
        return torch.softmax(y, 1) + index[:, None, None, None].float(), y.flatten(1).argmax(1)


def lowered(model: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Path:
    graph = capture(model, inputs)
    return lower_to_onnx(graph, describe(graph), folder)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_everything_inside_is_converted(precision: str, tmp_path: Path) -> None:
    file = lowered(sparse_net(), (X,), tmp_path)
    conversion = convert_precision(file, tmp_path / "low.onnx", precision)
    model = onnx.load(str(tmp_path / "low.onnx"))
    onnx.checker.check_model(model)
    assert {v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]} == {FLOAT}
    kinds = [tensor.data_type for tensor in model.graph.initializer]
    assert FLOAT not in kinds
    assert kinds.count(LOW[precision]) == conversion.tensors == 10
    assert [n.op_type for n in model.graph.node].count("Cast") == 2
    assert 0 < conversion.largest < 1 and conversion.lost == 0


def test_half_precision_rounds_and_no_more(tmp_path: Path) -> None:
    net = sparse_net()
    file = lowered(net, (X,), tmp_path)
    convert_precision(file, tmp_path / "low.onnx", "fp16")
    session = onnxruntime.InferenceSession(str(tmp_path / "low.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": X.numpy()})
    with torch.no_grad():
        want = net(X)
        rounded = with_rounded_tensors(capture(net, (X,)), "fp16").graph(X)
    allowed = (rounded - want).abs().max()
    assert 1e-5 < allowed < 1e-2
    assert 0 < (torch.from_numpy(found) - want).abs().max() < 3 * allowed


def test_scales_and_integers_stay(tmp_path: Path) -> None:
    x, index = torch.randn(2, 3, 4, 4), torch.tensor([1, 2])
    file = lowered(Mixed(), (x, index), tmp_path)
    convert_precision(file, tmp_path / "low.onnx", "fp16")
    session = onnxruntime.InferenceSession(str(tmp_path / "low.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": x.numpy(), "index": index.numpy()})
    want = Mixed()(x, index)
    torch.testing.assert_close(torch.from_numpy(found[0]), want[0], rtol=2e-3, atol=2e-3)
    assert found[1].dtype == "int64"


def test_weights_that_do_not_fit_are_refused_and_lost_ones_counted(tmp_path: Path) -> None:
    model = nn.Linear(2, 2).eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e5, 1.0], [1e-9, 0.0]]))
    file = lowered(model, (torch.randn(1, 2),), tmp_path)
    with pytest.raises(sparsefx.TargetError, match=r"weight holds 1e\+05, and fp16 reaches 6.55e\+04; .* bf16"):
        convert_precision(file, tmp_path / "low.onnx", "fp16")
    assert not (tmp_path / "low.onnx").exists()
    assert convert_precision(file, tmp_path / "low.onnx", "bf16").lost == 0
    with torch.no_grad():
        model.weight[0, 0] = 1.0
    assert convert_precision(lowered(model, (torch.randn(1, 2),), tmp_path), tmp_path / "low.onnx", "fp16").lost == 1
