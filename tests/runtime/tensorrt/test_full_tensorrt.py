"""Full TensorRT as far as it goes without it: what is asked of its builder, by a stand-in that writes everything down.

Nothing here shows that TensorRT takes it: that needs the library and a GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import sparsefx
from sparsefx.compiler.bundle import read_manifest
from sparsefx.passes.errors import TargetError
from sparsefx.runtime.nvidia import Gpu
from sparsefx.runtime.tensorrt import build as build_module
from sparsefx.runtime.tensorrt import child
from sparsefx.runtime.tensorrt import session as session_module
from sparsefx.runtime.tensorrt.drivers import FAMILIES, Driver
from sparsefx.runtime.tensorrt.job import Built, Job, Outcome, Plan

from .nets import sparse_net
from .test_session import fake_tensorrt, fake_torch

pytestmark = pytest.mark.ci

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Engine(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Config:
    """A builder's configuration that remembers."""

    def __init__(self) -> None:
        self.flags = {"TF32"}
        self.profiles: list[Any] = []
        self.cache: bytes | None = None

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return 0

    def create_timing_cache(self, data: bytes) -> bytes:
        return data

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"timings and more")


class FakeTensorRT(ModuleType):
    """The part of the module `tensorrt` that a build goes through."""

    def __init__(self, version: str) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.configs: list[Config] = []
        self.network_flags: list[int] = []
        self.shapes: dict[str, Any] = {}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.BuilderFlag = SimpleNamespace(TF32="TF32", SPARSE_WEIGHTS="SPARSE_WEIGHTS")
        layer = SimpleNamespace(
            name="conv",
            type=SimpleNamespace(name="CONVOLUTION"),
            num_outputs=1,
            get_output=lambda i: SimpleNamespace(dtype=SimpleNamespace(name="HALF")),
        )
        network = SimpleNamespace(num_layers=1, get_layer=lambda i: layer)
        profile = SimpleNamespace(set_shape=lambda name, *shapes: self.shapes.update({name: shapes}))

        class Severity(int):
            ERROR = 1

        class Log:
            Severity: Any

        Log.Severity = Severity

        class Builder:
            def __init__(self, log: Any) -> None:
                self.log = log

            def create_network(self, flags: int) -> Any:
                trt.network_flags.append(flags)
                return network

            def create_builder_config(self) -> Config:
                trt.configs.append(Config())
                return trt.configs[-1]

            def create_optimization_profile(self) -> Any:
                return profile

            def build_serialized_network(self, network: Any, config: Config) -> Engine:
                self.log.log(4, "Total Weights Memory: 1024 bytes")
                return Engine(b"engine")

        trt = self
        self.ILogger, self.Builder = Log, Builder
        self.OnnxParser = lambda network, log: SimpleNamespace(parse_from_file=lambda file: True)


@pytest.mark.parametrize(("version", "flags"), [("10.16.1", 2), ("11.4.0", 0)])
def test_what_the_builder_is_told(version: str, flags: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = FakeTensorRT(version)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    (tmp_path / "timings").write_bytes(b"timings")
    plan = Plan(str(tmp_path / "model.engine"), ("sm90",))
    shapes = {"x": [[1, 4], [2, 4], [8, 4]]}
    job = Job("tensorrt", "model.onnx", (plan,), shapes, sparse=True, timing_cache=str(tmp_path / "timings"))
    job.write(tmp_path / "job.json")
    assert child.main(str(tmp_path / "job.json"), str(tmp_path / "outcome.json")) == 0
    (config,) = trt.configs
    assert trt.network_flags == [flags]  # 10 has to be told to keep the types of the model
    assert config.flags == {"SPARSE_WEIGHTS"}  # and no TF32
    assert config.cache == b"timings" and (tmp_path / "timings").read_bytes() == b"timings and more"
    assert len(config.profiles) == 1 and trt.shapes == {"x": ((1, 4), (2, 4), (8, 4))}
    assert (tmp_path / "model.engine").read_bytes() == b"engine"
    told = Outcome.from_dict(child.json.loads((tmp_path / "outcome.json").read_text()))
    assert told.stage == "done" and told.version == f"TensorRT {version}"
    assert told.layers == (("conv", "CONVOLUTION", "HALF"),)
    assert [engine.memory for engine in told.engines] == [{"weights": 1024}]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Job, onnx.ModelProto]]:
    """Full TensorRT on an H200; jobs are kept with their models, and what comes out is no engine."""
    kept: list[tuple[Job, onnx.ModelProto]] = []

    def run_job(job: Job) -> Outcome:
        kept.append((job, onnx.load(job.model)))
        Path(job.plans[0].file).write_bytes(b"engine")
        built = tuple(Built(plan.processors, 1.0, 6, {}) for plan in job.plans)
        return Outcome("done", version="TensorRT 11.4.0", engines=built)

    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT("11.4.0"))
    monkeypatch.setattr(build_module, "find_gpu", lambda: Gpu("NVIDIA H200", "sm90"))
    monkeypatch.setattr(build_module, "run_job", run_job)
    monkeypatch.setattr(build_module, "plugin_ptx", lambda architecture: "ptx")
    return kept


def compiled(model: nn.Module, example: torch.Tensor = X, **options: Any) -> Any:
    return sparsefx.compile(model, (example,), target="tensorrt:sm90", verify=False, **options)


def test_condensed_layers_are_plugins_in_the_precision_asked_for(jobs: list[tuple[Job, onnx.ModelProto]]) -> None:
    built = compiled(sparse_net(), representation="condensed", precision="fp16").build
    job, model = jobs[-1]
    assert job.plugins == 90 and job.backend == "tensorrt" and job.timing_cache is not None
    names = {node.op_type for node in model.graph.node if node.domain == "sparsefx"}
    assert names == {"CondensedLinear_plugin", "CondensedLinear_plugin_Add", "CondensedConv2d_plugin"} | {
        "CondensedConv2d_plugin_Add"
    }
    values = [tensor for tensor in model.graph.initializer if "values" in tensor.name]
    assert len(values) == 5 and {tensor.data_type for tensor in values} == {onnx.TensorProto.FLOAT16}
    assert built.facts["condensed_layers"] == "plugins, compiled ahead of time"
    assert [file.name for file in built.files] == ["model.engine"]
    assert not (built.folder / "work").exists()
    bodies = onnx.load(str(built.model))  # the file that stands in on the CPU
    assert {n.op_type for n in bodies.graph.node if n.domain == "sparsefx"} == {f.name for f in bodies.functions}


def test_without_nvcc_condensed_layers_have_bodies_and_the_report_says_why(
    jobs: list[tuple[Job, onnx.ModelProto]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(architecture: int) -> str:
        raise TargetError("there is no nvcc")

    monkeypatch.setattr(build_module, "plugin_ptx", missing)
    model_with_bodies = compiled(sparse_net(), representation="condensed")
    built, (job, model) = model_with_bodies.build, jobs[-1]
    assert "run by the bodies of their functions, for want of plugins" in str(model_with_bodies.report)
    assert job.plugins is None and len(model.functions) == 5
    assert built.facts["condensed_layers"] == "the bodies of their functions, for want of plugins: there is no nvcc"


def test_two_four_weights_are_marked_for_full_tensorrt(jobs: list[tuple[Job, onnx.ModelProto]]) -> None:
    layer = nn.Linear(8, 8)
    with torch.no_grad():
        layer.weight[::2, ::2] = 0.0
        layer.weight[1::2, 1::2] = 0.0
    marked = compiled(nn.Sequential(layer).eval(), torch.randn(1, 8), representation="dense")
    assert jobs[-1][0].sparse and jobs[-1][0].plugins is None
    assert marked.build.facts["two_four"] == {"layers": ["0.weight"], "sparse_tensor_cores": True}
    assert "2:4 sparse weights, used: 0.weight" in str(marked.report)
    compiled(nn.Sequential(nn.Linear(8, 8)).eval(), torch.randn(1, 8), representation="dense")
    assert not jobs[-1][0].sparse


def shrinking() -> nn.Module:
    """The second layer is 2:4 sparse along its eight inputs, of which the first one makes seven."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = 0.0, 0.0
        model[2].weight[::2, ::2], model[2].weight[1::2, 1::2] = 0.0, 0.0
    return model.eval()


def test_a_two_four_layer_that_is_none_any_more_is_named(jobs: list[tuple[Job, onnx.ModelProto]]) -> None:
    made = compiled(shrinking(), torch.randn(1, 8), representation="dense")
    note = "2.weight was 2:4 sparse and is not any more without the inputs that were removed: it runs as a dense layer"
    assert note in made.report.notes
    assert made.build.facts["two_four"]["layers"] == []
    whole = nn.Sequential(shrinking()[2]).eval()
    assert not any("2:4" in note for note in compiled(whole, torch.randn(1, 8), representation="dense").report.notes)
    pytest.importorskip("tensorrt_rtx")
    rtx = sparsefx.compile(shrinking(), (torch.randn(1, 8),), target="tensorrt-rtx:sm89", verify=False)
    assert not any("2:4" in note for note in rtx.report.notes)  # which makes no use of it


def test_the_layers_of_a_loaded_engine_are_in_the_manifest(
    jobs: list[tuple[Job, onnx.ModelProto]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = Driver(FAMILIES["tensorrt"], fake_tensorrt())
    monkeypatch.setattr(session_module, "find_driver", lambda backend: driver)
    monkeypatch.setattr(session_module, "find_gpu", lambda: Gpu("NVIDIA H200", "sm90"))
    monkeypatch.setattr(session_module, "_torch_with_cuda", lambda target: fake_torch())
    made = compiled(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), torch.randn(1, 8), representation="dense")
    assert made.build.facts["layers_in_engine"] is None and "engine_layers" not in made.build.details
    made.engine()
    made.save(tmp_path / "net.sfx")
    manifest = read_manifest(tmp_path / "net.sfx")
    assert manifest["engine"]["engine_layers"] == ["gemm + relu", "gemm"] and made.build.facts["layers_in_engine"] == 2
    assert manifest["states"]["loaded"]["done"] and not manifest["states"]["ran"]["done"]
