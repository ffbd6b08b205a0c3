"""The target torch:cuda: what it says where there is no GPU, and what its bundle holds. With a GPU, that it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import sparsefx
from sparsefx.passes.errors import TargetError, VerificationError
from sparsefx.runtime.pytorch import build as build_module
from tests.runtime.kernels.cuda.needs import needs_gpu, needs_triton

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: what is said without one is not")


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(32 * 36, 24), nn.GELU()
    )
    with torch.no_grad():
        for layer in (net[2], net[4]):
            layer.weight.mul_(torch.rand(layer.weight.shape) < 0.1)
    return net.eval(), torch.randn(2, 3, 8, 8)


@no_gpu
def test_without_a_gpu_the_graph_is_built_and_verified_and_does_not_run(tmp_path: Path) -> None:
    net, x = network()
    compiled = sparsefx.compile(net, (x,), target="torch:cuda", representation="dense")
    states = {state: found["done"] for state, found in compiled.report.states.items()}
    assert states == {"parsed": True, "built": True, "loaded": False, "ran": False, "numerics checked": False}
    assert any("verified is the same graph, from its file, by torch on the CPU" in n for n in compiled.report.notes)
    with pytest.raises(TargetError, match=r"PyTorch .*(built without CUDA|finds no GPU)"):
        compiled.engine()
    compiled.save(tmp_path / "net.sfx")
    assert {file.name for file in (tmp_path / "net.sfx").iterdir()} == {
        "manifest.json",
        "report.json",
        "model.graph.json",
        "model.safetensors",
    }
    with pytest.raises(TargetError, match=r"PyTorch .*(built without CUDA|finds no GPU)"):
        sparsefx.load(tmp_path / "net.sfx")


@no_gpu
@needs_triton
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_condensed_layers_are_kept_in_the_file(precision: str, tmp_path: Path) -> None:
    net, x = network()
    arguments = {"target": "torch:cuda", "precision": precision}
    compiled = sparsefx.compile(net, (x,), representation="condensed", **arguments)
    assert compiled.report.engine["condensed_layers"] == 2
    compiled.save(tmp_path / "net.sfx")
    rows = json.loads((tmp_path / "net.sfx" / "model.graph.json").read_text())["nodes"]
    assert sum(str(row.get("target")).startswith("sparsefx::condensed") for row in rows) == 2
    measured = sparsefx.compile(net, (x,), **arguments)
    assert [(layer.layer, layer.representation) for layer in measured.report.choice.layers] == [("2", "dense")]
    assert "not measured, so 1 sparse layers run as dense ones: PyTorch" in measured.report.choice.notes[0]


@no_gpu
@pytest.mark.parametrize(("precision", "name"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_without_a_gpu_its_own_precision_is_verified(precision: str, name: str) -> None:
    net, x = network()
    compiled = sparsefx.compile(net, (x,), target="torch:cuda", precision=precision, representation="dense")
    note = f"verified is the same graph, from its file, by torch on the CPU in {name}, not the engine"
    assert any(found.startswith(note) for found in compiled.report.notes)
    (output,) = compiled.report.verification["outputs"]
    assert 1e-4 < output["max_error"] < output["bound"]  # it did round


@no_gpu
def test_a_fault_in_its_own_precision_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network()
    read = build_module.read_graph

    def faulty(folder: Path, device: torch.device) -> GraphModule:
        graph_module = read(folder, device)
        bias = min((b for b in graph_module.buffers() if b.ndim == 1), key=torch.Tensor.numel)
        bias += 1.0
        return graph_module

    monkeypatch.setattr(build_module, "read_graph", faulty)
    with pytest.raises(VerificationError, match="deviates from the masked model"):
        sparsefx.compile(net, (x,), target="torch:cuda", precision="bf16", representation="dense")


@no_gpu
def test_where_the_cpu_lacks_an_operator_the_graph_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(session: object, inputs: object) -> None:
        raise RuntimeError("\"gelu\" not implemented for 'Half'")

    monkeypatch.setattr(build_module.TorchSession, "run", run)
    net, x = network()
    compiled = sparsefx.compile(net, (x,), target="torch:cuda", precision="fp16", representation="dense")
    assert "verified is the graph, not the engine, which cannot run here" in compiled.report.notes


def test_without_triton_condensed_layers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    net, x = network()
    with pytest.raises(TargetError, match=r"need Triton: pip install 'sparsefx\[cuda\]'"):
        sparsefx.compile(net, (x,), target="torch:cuda", representation="condensed")


_TIMES = """
import json, torch
from sparsefx.runtime.onnxruntime.layer_models import LayerForm, Window
from sparsefx.runtime.pytorch.layer_times import time_layers
weight = torch.randn(6, 4, 3, 3).mul_(torch.rand(6, 4, 3, 3) < 0.3).numpy()
linear = torch.randn(6, 9).mul_(torch.rand(6, 9) < 0.3).numpy()
forms = [
    LayerForm(weight, (2, 4, 7, 7), Window((2, 2), (1, 1)), True, "relu"),
    LayerForm(linear, (2, 5, 9), None, True, "gelu"),
    LayerForm(linear, (2, 5, 9), None, True, "gelu"),
]
asked = []
def times(runs):
    results = {name: run() for name, run in runs.items()}
    for result in results.values():
        torch.testing.assert_close(result, results["dense"])
    asked.append(sorted(runs))
    return {name: float(len(name)) for name in runs}
found = time_layers(forms, torch.float32, torch.device("cpu"), times)
print(json.dumps([asked, [(time.dense, time.condensed) for time in found]]))
"""


@needs_triton
def test_layers_are_timed_in_every_form() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", _TIMES], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    asked, times = json.loads(done.stdout)
    assert asked == [["columns", "dense"], ["columns", "dense", "rows"]]  # equal layers once
    assert times == [[5, 7], [5, 4], [5, 4]]


@needs_gpu
@needs_triton
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("representation", ["dense", "condensed", "measured"])
def test_it_runs_on_a_gpu(precision: str, representation: str, tmp_path: Path) -> None:
    net, x = network()
    arguments = {"target": "torch:cuda", "precision": precision, "representation": representation}
    compiled = sparsefx.compile(net, (x,), **arguments)
    assert compiled.report.states["numerics checked"]["done"]
    compiled.save(tmp_path / "net.sfx")
    engine = sparsefx.load(tmp_path / "net.sfx")
    for batch in (1, 2, 1, 9):
        images = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(engine(images), compiled.engine()(images))
