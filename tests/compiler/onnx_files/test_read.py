"""ONNX files as models: as exact and as small as the model they were exported from; what is refused, and how."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import sparsefx
from sparsefx.compiler.onnx_files import operator, read
from sparsefx.compiler.onnx_files.read import read_onnx
from sparsefx.passes.errors import CaptureError
from sparsefx.training.recipes.nets import SmallResNet
from tests.helpers import randomise
from tests.zoo.structured import shapes_of


class Encoder(nn.Module):
    """A transformer's layer with everything that computes sizes: heads, a class token, positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Linear(6, 16), nn.Parameter(torch.randn(1, 1, 16))
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu", norm_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1)
        found = self.layer(tokens)
        return {"logits": self.head(found[:, 0]), "tokens": found}


def resnet() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x = SmallResNet(), torch.randn(4, 1, 16, 16)
    randomise(model, lambda: model(x), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.Conv2d):
                m.weight[: len(m.weight) // 3] = 0
    return model.eval(), x


def encoder() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = Encoder()
    with torch.no_grad():
        model.layer.linear1.weight[:12] = 0
        model.layer.self_attn.out_proj.weight[:, 4:8] = 0
    return model.eval(), torch.randn(4, 7, 6)


def export(model: nn.Module, x: Tensor, path: Path, *, dynamic: bool = True, **options: Any) -> Path:
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamic else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), str(path), dynamo=True, verbose=False, **shapes, **options)
    return path


@pytest.mark.parametrize(
    ("make", "outputs"), [(resnet, ["logits"]), pytest.param(encoder, ["logits", "tokens"], marks=pytest.mark.ci)]
)
def test_a_file_is_compiled_as_the_model_is(
    make: Callable[[], tuple[nn.Module, Tensor]], outputs: list[str], tmp_path: Path
) -> None:
    model, x = make()
    path = export(model, x, tmp_path / "model.onnx", external_data=make is encoder, output_names=outputs)
    compiled = sparsefx.compile(path, (x[:1],), representation="dense", threads=1)
    direct = sparsefx.compile(model, (x[:1],), target="torch", verify=False)
    assert compiled.report.totals.macs_after <= direct.report.totals.macs_after
    assert compiled.report.totals.channels_before > compiled.report.totals.channels_after
    assert "of ONNX Runtime's own run of it" in compiled.report.notes[0]
    assert not compiled.report.unknown_operators
    with torch.no_grad():
        want, found = model(x), compiled.engine()(x)
    for name in want if isinstance(want, dict) else []:
        torch.testing.assert_close(found[name], want[name], rtol=1e-3, atol=1e-3)
    if isinstance(want, Tensor):
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3)


@pytest.mark.ci
def test_weights_keep_their_names_and_products_are_layers(tmp_path: Path) -> None:
    model, x = encoder()
    compiled = sparsefx.compile(str(export(model, x, tmp_path / "e.onnx")), (x,), target="torch")
    shapes = shapes_of(compiled.report.layers)
    assert (20, 16) in shapes.values() and (16, 20) in shapes.values()  # 32 neurons, 12 of them ablated
    assert "head" in shapes


@pytest.mark.ci
def test_a_file_for_one_batch_size_keeps_it(tmp_path: Path) -> None:
    model, x = resnet()
    path = export(model, x, tmp_path / "fixed.onnx", dynamic=False)
    compiled = sparsefx.compile(path, (x,), representation="dense", threads=1)
    assert compiled.signature.inputs[0].shape[0] == 4


@pytest.mark.ci
def test_the_command_line_takes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sparsefx.__main__ import main

    model, x = resnet()
    path = export(model, x, tmp_path / "model.onnx")
    size = ["--input", "1x1x16x16"]
    assert (
        main(["compile", str(path), *size, "-o", str(tmp_path / "m.sfx"), "--representation", "dense", "--quiet"]) == 0
    )
    assert main(["verify", str(tmp_path / "m.sfx"), str(path), *size]) == 0
    capsys.readouterr()


def file_of(
    nodes: list[Any], path: Path, *, opset: int = 18, domain: str = "", weights: list[Any] | None = None
) -> Path:
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], weights or [])
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_operators_that_are_not_read_are_all_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Hardmax", ["x"], ["a"]),
        helper.make_node("Hardmax", ["a"], ["b"]),
        helper.make_node("FancyAttention", ["b"], ["y"], domain="com.example"),
    ]
    with pytest.raises(CaptureError, match=r"Hardmax \(2\), com\.example::FancyAttention \(1\).*\.pt2"):
        read_onnx(file_of(nodes, tmp_path / "m.onnx", domain="com.example"))


def test_what_an_operator_does_not_cover_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["a"], select_last_index=1),
        helper.make_node("CastLike", ["a", "x"], ["y"]),
    ]
    with pytest.raises(CaptureError, match="ArgMax with select_last_index is not read"):
        sparsefx.compile(file_of(nodes, tmp_path / "m.onnx"), (torch.randn(2, 4),), target="torch")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"there is no file .*missing\.onnx"):
        sparsefx.compile(tmp_path / "missing.onnx", (torch.randn(1, 4),))
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(CaptureError, match="cannot be read as an ONNX file"):
        read_onnx(tmp_path / "text.onnx")
    with pytest.raises(CaptureError, match=r"expected a model, an \.onnx file or a \.pt2 file .*model\.tflite"):
        sparsefx.compile("model.tflite", (torch.randn(1, 4),))
    old = file_of([helper.make_node("Relu", ["x"], ["y"])], tmp_path / "old.onnx", opset=6)
    with pytest.raises(CaptureError, match=r"uses version 6 of ONNX's operators; versions 7 to \d+ are read"):
        read_onnx(old)


def misread(x: Tensor) -> Tensor:
    return torch.tanh(x)


def test_a_misread_operator_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is compared with ONNX Runtime's run of the file, so that a wrong row of the table cannot pass."""
    monkeypatch.setitem(read.OPERATORS, "Softsign", operator.Operator(misread))
    path = file_of([helper.make_node("Softsign", ["x"], ["y"])], tmp_path / "m.onnx")
    with pytest.raises(CaptureError, match=r"in ONNX Runtime is not what was read from it: output .* differs by"):
        sparsefx.compile(path, (torch.randn(2, 4),), target="torch")


def test_a_matrix_that_is_used_in_two_ways_is_not_transposed(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.arange(16, dtype=np.float32).reshape(4, 4), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("ReduceMean", ["w"], ["m"]),
        helper.make_node("Add", ["b", "m"], ["y"]),
    ]
    module = read_onnx(file_of(nodes, tmp_path / "m.onnx", weights=[weight]))
    w = torch.arange(16.0).reshape(4, 4)
    x = torch.randn(3, 4)
    torch.testing.assert_close(module(x), x @ w @ w + w.mean())
