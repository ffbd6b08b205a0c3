"""ONNX Runtime on a GPU, or an error that says what to install: never the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sparsefx
from sparsefx.passes.errors import TargetError
from sparsefx.runtime.onnxruntime.gpu_session import CUDA, TENSORRT, OnnxRuntimeGpuSession

MODEL = Path("model.onnx")
TARGETS = {"onnxruntime:cuda": CUDA, "onnxruntime:tensorrt": TENSORRT}


class FakeSession:
    """What a session tells about itself."""

    def __init__(self, providers: list[str], nodes: dict[str, int]) -> None:
        self.providers, self.nodes = providers, nodes

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
            for name, count in self.nodes.items()
        ]

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x")]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="y")]

    def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
        assert names is None
        return [feeds["x"] + 1]


class FakeOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value


def install(monkeypatch: pytest.MonkeyPatch, made: FakeSession | Exception, *available: str) -> dict[str, Any]:
    """A package onnxruntime that makes this session, or fails; what it was asked for comes back."""
    asked: dict[str, Any] = {}

    def session(path: str, options: FakeOptions, **given: Any) -> FakeSession:
        asked.update(given, path=path, entries=options.entries)
        if isinstance(made, Exception):
            raise made
        return made

    module = SimpleNamespace(
        __version__="1.31.1",
        SessionOptions=FakeOptions,
        GraphOptimizationLevel=SimpleNamespace(ORT_ENABLE_ALL=99),
        InferenceSession=session,
        get_available_providers=lambda: list(available),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    return asked


@pytest.mark.parametrize("target", TARGETS)
def test_without_the_package(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TargetError, match=rf"target {target} needs ONNX Runtime: pip install onnxruntime-gpu"):
        OnnxRuntimeGpuSession(MODEL, target)


@pytest.mark.parametrize(("target", "provider"), TARGETS.items())
def test_with_the_package_for_the_cpu(target: str, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeSession([], {}), "CPUExecutionProvider")
    with pytest.raises(TargetError, match=rf"needs {provider}, which .* does not have: .*pip install onnxruntime-gpu"):
        OnnxRuntimeGpuSession(MODEL, target)


@pytest.mark.parametrize("target", TARGETS)
def test_a_provider_that_does_not_start(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, RuntimeError("libcublas.so.13 is missing"), CUDA, TENSORRT)
    with pytest.raises(TargetError, match=r"does not start .*Provider .*an NVIDIA GPU, its driver, .*libcublas"):
        OnnxRuntimeGpuSession(MODEL, target)


def test_a_silent_fallback_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeSession(["CPUExecutionProvider"], {"CPUExecutionProvider": 5}), CUDA, TENSORRT)
    with pytest.raises(TargetError, match=r"fell back to \['CPUExecutionProvider'\] where CUDAExecutionProvider"):
        OnnxRuntimeGpuSession(MODEL, "onnxruntime:cuda")


@pytest.mark.parametrize("nodes", [{CUDA: 4, "CPUExecutionProvider": 1}, {}])
def test_a_node_on_the_cpu_is_an_error(nodes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeSession([CUDA, "CPUExecutionProvider"], nodes), CUDA)
    with pytest.raises(TargetError, match=r"not all of model.onnx runs by CUDAExecutionProvider: nodes by provider"):
        OnnxRuntimeGpuSession(MODEL, "onnxruntime:cuda")


def test_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = install(monkeypatch, FakeSession([TENSORRT, CUDA], {TENSORRT: 3, CUDA: 1}), CUDA, TENSORRT)
    session = OnnxRuntimeGpuSession(MODEL, "onnxruntime:tensorrt")
    assert asked["entries"]["session.disable_cpu_ep_fallback"] == "1" and asked["enable_fallback"] == 0
    assert [name for name, _ in asked["providers"]] == [TENSORRT, CUDA]
    assert dict(asked["providers"])[CUDA] == {"use_tf32": "0"}
    assert session.settings()["nodes"] == {TENSORRT: 3, CUDA: 1}
    np.testing.assert_array_equal(session.run([np.ones(2, np.float32)])[0], np.full(2, 2, np.float32))


@pytest.mark.parametrize(("target", "provider"), TARGETS.items())
def test_a_model_is_built_verified_and_loaded_only_where_it_can_be(target: str, provider: str, tmp_path: Path) -> None:
    """With whatever ONNX Runtime is installed: its engine, or why there is none."""
    torch.manual_seed(0)
    compiled = sparsefx.compile(nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval(), (torch.randn(1, 8),), target=target)
    compiled.save(tmp_path / "net.sfx")
    states = {state: found["done"] for state, found in compiled.report.states.items()}
    assert states["parsed"]
    if states["loaded"]:
        assert states["ran"] and states["numerics checked"]
        pytest.skip("there is a GPU: the engine ran, and what is said without one is not")
    assert any("verified is the same file by ONNX Runtime on the CPU" in note for note in compiled.report.notes)
    with pytest.raises(TargetError, match=provider):
        sparsefx.load(tmp_path / "net.sfx")


def test_condensed_layers_are_refused() -> None:
    net = nn.Sequential(nn.Linear(400, 300)).eval()
    with torch.no_grad():
        net[0].weight.mul_(torch.rand(net[0].weight.shape) < 0.1)
    with pytest.raises(TargetError, match=r"has no kernels for condensed layers on a GPU; torch:cuda has"):
        sparsefx.compile(net, (torch.randn(1, 400),), target="onnxruntime:cuda", representation="condensed")
