"""Engines that TensorRT-RTX builds without a GPU, from sparsefx.compile to the bundle; what has not run says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sparsefx
from sparsefx.__main__ import main
from sparsefx.compiler.bundle import read_manifest
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.passes.errors import TargetError
from sparsefx.runtime import nvidia

from .nets import pruned, sparse_net

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
DRIVER = "no NVIDIA driver on this machine .* install the driver"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in CI, even where there is one."""
    monkeypatch.setattr(nvidia, "_LIBRARY", "no-such-libcuda.so")


def compiled(**options: object) -> CompiledModel:
    model = options.pop("model", None) or sparse_net()
    return sparsefx.compile(model, (X,), **{"target": "tensorrt-rtx:sm89", **options})  # type: ignore[arg-type]


def facts(model: CompiledModel) -> dict[str, Any]:
    return model.build.facts


def test_states_are_kept_apart_in_report_and_manifest(tmp_path: Path) -> None:
    model = compiled()
    model.save(tmp_path / "net.sfx")
    manifest = read_manifest(tmp_path / "net.sfx")
    assert {state: found["done"] for state, found in manifest["states"].items()} == {
        "parsed": True,
        "built": True,
        "loaded": False,
        "ran": False,
        "numerics checked": False,
    }
    assert "no NVIDIA driver" in manifest["states"]["ran"]["detail"]
    assert manifest["states"] == model.report.states
    text = str(model.report)
    assert "Engine: parsed, built\n  not done here: loaded, ran, numerics checked (there is no NVIDIA driver" in text
    assert "verified is the ONNX file by ONNX Runtime on the CPU in float32, not the engine" in text
    assert model.report.verification is not None
    assert sorted(p.name for p in (tmp_path / "net.sfx").iterdir()) == ["manifest.json", "model.engine", "report.json"]
    engine = manifest["engine"]
    assert engine["sizes"] == {"batch": {"least": 1, "typical": 1, "most": 32}}
    assert engine["engine_bytes"] == (tmp_path / "net.sfx" / "model.engine").stat().st_size
    assert engine["memory"].keys() == {"scratch", "activations", "weights"}
    assert engine["layer_kinds"]["CONVOLUTION"] == 3
    assert engine["weights"].startswith("in the engine")
    assert len(engine["layers"]) == sum(engine["layer_kinds"].values())
    assert all(types == "FLOAT" for name, kind, types in engine["layers"] if kind == "CONVOLUTION")


def test_without_a_driver_nothing_runs_and_the_error_says_what_to_install(tmp_path: Path) -> None:
    model = compiled(verify=False)
    with pytest.raises(TargetError, match=DRIVER):
        model.engine()
    model.save(tmp_path / "net.sfx")
    with pytest.raises(TargetError, match=DRIVER):
        sparsefx.load(tmp_path / "net.sfx")
    (tmp_path / "net.sfx" / "model.engine").write_bytes(b"short")
    with pytest.raises(sparsefx.BundleError, match=r"model\.engine is damaged"):
        sparsefx.load(tmp_path / "net.sfx")


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "HALF"), ("bf16", "BF16")])
def test_half_precision_is_what_the_layers_have(precision: str, kind: str) -> None:
    model = compiled(precision=precision, max_batch=4)
    layers = model.build.details["layers"]
    assert {types for _, layer, types in layers if layer in ("CONVOLUTION", "MATRIX_MULTIPLY")} == {kind}
    assert [layer for _, layer, _ in layers].count("CAST") == 2  # of the input and of the output
    assert facts(model)["sizes"]["batch"]["most"] == 4
    assert f"weights and tensors inside are {precision}, inputs and outputs as the model's own" in str(model.report)
    assert f"rounding to {precision} alone moves the outputs by up to " in str(model.report)
    assert [spec.dtype for spec in (*model.signature.inputs, *model.signature.outputs)] == ["float32", "float32"]


def test_values_that_overflow_in_half_precision_are_refused() -> None:
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).eval()
    with torch.no_grad():
        layers[0].weight.mul_(1e5)
        layers[1].weight.mul_(1e-5)
    options = {"target": "tensorrt-rtx:sm89", "representation": "dense"}
    with pytest.raises(sparsefx.VerificationError, match=r"is infinite or not a number in fp16: .* bf16 or fp32"):
        sparsefx.compile(layers, (torch.randn(1, 8),), precision="fp16", **options)  # type: ignore[arg-type]
    sparsefx.compile(layers, (torch.randn(1, 8),), precision="bf16", **options)  # type: ignore[arg-type]


def test_one_engine_for_several_processors_and_a_fixed_batch() -> None:
    model = compiled(target="tensorrt-rtx:sm80+sm89+sm120", dynamic_batch=False, verify=False)
    assert facts(model)["processors"] == ["sm80", "sm89", "sm120"]
    assert facts(model)["sizes"] == {}


def test_nothing_is_condensed_that_was_not_measured() -> None:
    wide = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)).eval()
    model = sparsefx.compile(pruned(wide, 0.1), (torch.randn(1, 256),), target="tensorrt-rtx:sm89", verify=False)
    choice = model.report.choice
    assert choice is not None
    assert {layer.representation for layer in choice.layers} == {"dense"}
    assert "not measured, so 2 sparse layers run as dense ones: there is no NVIDIA driver" in str(model.report)
    assert "MATRIX_MULTIPLY" in facts(model)["layer_kinds"]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.ci)])
def test_condensed_layers_build_from_their_bodies(precision: str) -> None:
    model = compiled(representation="condensed", precision=precision)  # verifies the bodies on the CPU
    choice = model.report.choice
    assert choice is not None
    assert [layer.representation for layer in choice.layers] == ["condensed"] * 5
    kinds = facts(model)["layer_kinds"]
    assert kinds["REDUCE"] == 5
    assert "CONVOLUTION" not in kinds and "MATRIX_MULTIPLY" not in kinds


@pytest.mark.parametrize("batch", [1, 64])
def test_a_condensed_layer_keeps_its_products_to_itself(batch: int) -> None:
    """The gathered inputs, (batch, outputs, fan-in), are never written to memory; the weights stay condensed."""
    torch.manual_seed(0)
    layer = pruned(nn.Sequential(nn.Linear(512, 1024)), 0.1)
    model = sparsefx.compile(
        layer,
        (torch.randn(batch, 512),),
        target="tensorrt-rtx:sm89",
        representation="condensed",
        verify=False,
        max_batch=batch,
    )
    memory = facts(model)["memory"]
    products = batch * 1024 * 51 * 4
    assert memory["scratch"] < products / 4
    assert memory["weights"] < 512 * 1024 * 4 * 0.4


def test_two_four_layers_are_listed_and_not_said_to_be_used() -> None:
    torch.manual_seed(0)
    second = nn.Linear(8, 8)
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), second).eval()
    with torch.no_grad():
        second.weight[::2, ::2] = 0.0  # every input is read by some output, so none of the eight goes
        second.weight[1::2, 1::2] = 0.0
    built = sparsefx.compile(model, (torch.randn(1, 16),), target="tensorrt-rtx:sm89", representation="dense")
    assert facts(built)["two_four"] == {"layers": ["2.weight"], "sparse_tensor_cores": False}
    assert "2:4 sparse weights, not used by TensorRT-RTX" in str(built.report)


def test_the_command_line_compiles_and_inspects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "factory_of_nets.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))\n"
    )
    bundle = str(tmp_path / "net.sfx")
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["--target", "tensorrt-rtx:sm120", "--precision", "bf16", "--max-batch", "6", "-o", bundle, "--quiet"]
    assert main(["compile", "factory_of_nets:net", "--input", "1x8", *arguments]) == 0
    capsys.readouterr()
    assert main(["inspect", bundle]) == 0
    text = capsys.readouterr().out
    assert "bundle for tensorrt-rtx:sm120 (bf16)" in text
    assert "Engine: parsed, built\n  not done here: loaded" in text
    assert "batch 1 to 6 (tuned for 1)" in text
    assert main(["inspect", bundle, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["states"]["built"]["done"]
