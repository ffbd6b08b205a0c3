"""Lowering: names, dynamic sizes, large weights, and graphs that have no ONNX form."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.passes.capture import capture
from sparsefx.passes.describe import describe
from sparsefx.runtime.onnxruntime import lower
from sparsefx.runtime.onnxruntime.session import onnxruntime_engine


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        both = self.a(left) + right
        return {"sum": both, "same": left, "again": both}


def test_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    graph = capture(Two(), (torch.randn(2, 4), torch.randn(2, 4)))
    model = onnx.load(str(lower.lower_to_onnx(graph, describe(graph), tmp_path)))
    assert [i.name for i in model.graph.input] == ["left", "right"]
    assert [o.name for o in model.graph.output] == ["sum", "same"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_large_weights_go_to_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "_LARGEST_PROTOBUF", 10)
    model = Two().eval()
    x = torch.randn(2, 4)
    graph = capture(model, (x, x))
    path = lower.lower_to_onnx(graph, describe(graph), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    torch.testing.assert_close(onnxruntime_engine(path, describe(graph))(x, x)["sum"], model(x, x)["sum"].detach())


@torch.library.custom_op("sparsefx_tests::swish", mutates_args=())
def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@swish.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class WithCustomOperator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(swish(self.a(x)))
        return out


def test_an_operator_without_onnx_form_is_named() -> None:
    with pytest.raises(sparsefx.TargetError, match=r"no ONNX form: .*sparsefx_tests\.swish"):
        sparsefx.compile(WithCustomOperator().eval(), (torch.randn(2, 4),))


def test_an_operator_without_a_rule_keeps_its_channels_and_is_named() -> None:
    model = WithCustomOperator().eval()
    with torch.no_grad():
        model.a.weight[:3] = 0
    compiled = sparsefx.compile(model, (torch.randn(2, 4),), target="torch")
    assert list(compiled.report.unknown_operators) == ["sparsefx_tests::swish"]
    layer = compiled.report.layers[0]
    assert layer.shape_after == (6, 4)
    assert layer.stays == {"no rule for operator sparsefx_tests::swish": 3}
    assert "No rule for sparsefx_tests::swish (1 calls)" in str(compiled.report)


def test_a_rule_for_it_lets_them_go() -> None:
    from sparsefx.passes.channels.rules import POINTWISE

    model = WithCustomOperator().eval()
    with torch.no_grad():
        model.a.weight[:3] = 0
    compiled = sparsefx.compile(model, (torch.randn(2, 4),), target="torch", rules={"sparsefx_tests::swish": POINTWISE})
    assert compiled.report.layers[0].shape_after == (3, 4)
    x = torch.randn(5, 4)
    torch.testing.assert_close(compiled.graph_module(x), model(x))
