"""What cannot be built says what to install or change: packages, processors, drivers, operators, processes that die."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import sparsefx
from sparsefx.passes.errors import TargetError
from sparsefx.passes.signature import Signature, Tree
from sparsefx.runtime import nvidia
from sparsefx.runtime.nvidia import Gpu, find_gpu
from sparsefx.runtime.tensorrt import build as build_module
from sparsefx.runtime.tensorrt import builder as builder_module
from sparsefx.runtime.tensorrt import session as session_module
from sparsefx.runtime.tensorrt.builder import run_job
from sparsefx.runtime.tensorrt.drivers import Driver, TensorRT10, TensorRTRTX, find_driver
from sparsefx.runtime.tensorrt.job import Job, Plan
from sparsefx.runtime.tensorrt.session import TensorRTSession

X = torch.randn(1, 4)
SIGNATURE = Signature((), (), (), 0, Tree("tuple"))


def compiled(target: str, **options: object) -> object:
    model = nn.Sequential(nn.Linear(4, 3)).eval()
    return sparsefx.compile(model, (X,), target=target, **options)  # type: ignore[arg-type]


def pretend(monkeypatch: pytest.MonkeyPatch, version: str) -> ModuleType:
    """A full TensorRT of this version is installed."""
    module = ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def job(folder: Path, model: Path, processor: str = "sm89", shapes: dict[str, list[list[int]]] | None = None) -> Job:
    return Job("tensorrt-rtx", str(model), (Plan(str(folder / "made.engine"), (processor,)),), shapes or {})


def save(folder: Path, node: onnx.NodeProto) -> Path:
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("strange", 1)], ir_version=10
    )
    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [
        ("tensorrt:sm90", "tensorrt", r"needs TensorRT: pip install 'sparsefx\[tensorrt\]'"),
        ("tensorrt-rtx:sm89", "tensorrt_rtx", r"needs TensorRT-RTX: pip install 'sparsefx\[tensorrt-rtx\]'"),
    ],
)
def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, target: str, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TargetError, match=extra):
        compiled(target)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("tensorrt-rtx:sm90", {}, r"does not build for sm90; it builds for sm75, sm80, sm86, sm89, sm120"),
        ("tensorrt-rtx:sm80+sm80", {}, "names a processor twice"),
        ("tensorrt-rtx:sm89", {"precision": "int8"}, "is built in fp32, fp16, bf16 only, found precision 'int8'"),
        ("tensorrt-rtx:sm89", {"max_batch": 0}, "max_batch must be at least 1, found 0"),
        ("tensorrt-rtx", {}, r"unknown target 'tensorrt-rtx' .* tensorrt-rtx:smXX, tensorrt:smXX"),
        ("tensorrt:sm80+sm90", {}, "unknown target"),
    ],
)
def test_what_a_target_cannot_be(target: str, options: dict[str, object], message: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    with pytest.raises(TargetError, match=message):
        compiled(target, **options)


def test_drivers_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "10.16.1")
    assert type(find_driver("tensorrt")) is TensorRT10
    pretend(monkeypatch, "11.4.0")
    assert type(find_driver("tensorrt")) is Driver
    pretend(monkeypatch, "9.3.0")
    with pytest.raises(TargetError, match=r"known for TensorRT 10 and 11, found 9\.3\.0; install one of those"):
        find_driver("tensorrt")
    del sys.modules["tensorrt"].__version__
    with pytest.raises(TargetError, match=r"pip install 'sparsefx\[tensorrt\]'"):
        find_driver("tensorrt")


def test_only_tensorrt_10_has_to_be_told_to_keep_types(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = SimpleNamespace(create_network=lambda flags: flags)
    for version, flags in (("10.16.1", 2), ("11.4.0", 0)):
        module = pretend(monkeypatch, version)
        module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)  # type: ignore[attr-defined]
        assert find_driver("tensorrt").create_network(builder) == flags


def test_full_tensorrt_builds_for_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "11.4.0")
    monkeypatch.setattr(nvidia, "_LIBRARY", "no-such-libcuda.so")
    with pytest.raises(TargetError, match=r"needs an NVIDIA driver and a GPU: there is no NVIDIA driver .* install"):
        compiled("tensorrt:sm90")
    monkeypatch.setattr(build_module, "find_gpu", lambda: Gpu("NVIDIA L4", "sm89"))
    with pytest.raises(TargetError, match=r"this machine, NVIDIA L4: target tensorrt:sm89; found tensorrt:sm90"):
        compiled("tensorrt:sm90")


def test_the_driver_is_asked_for_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def attribute(number: object, which: int, device: int) -> None:
        number._obj.value = {75: 12, 76: 0}[which]  # type: ignore[attr-defined]

    def count(number: object) -> int:
        number._obj.value = found  # type: ignore[attr-defined]
        return 0

    def name(buffer: object, size: int, device: int) -> None:
        buffer.value = b"NVIDIA RTX"  # type: ignore[attr-defined]

    cuda = SimpleNamespace(
        cuInit=lambda flags: 0, cuDeviceGetCount=count, cuDeviceGetName=name, cuDeviceGetAttribute=attribute
    )
    monkeypatch.setattr(nvidia.ctypes, "CDLL", lambda library: cuda)
    found = 1
    assert find_gpu() == Gpu("NVIDIA RTX", "sm120")
    found = 0
    with pytest.raises(TargetError, match=r"finds no GPU \(code 0\); check nvidia-smi"):
        find_gpu()


def test_an_engine_for_another_gpu_and_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setattr(session_module, "find_gpu", lambda: Gpu("NVIDIA L4", "sm89"))
    with pytest.raises(TargetError, match=r"is for sm120, and NVIDIA L4 is sm89; compile for tensorrt-rtx:sm89"):
        TensorRTSession(tmp_path / "no.engine", SIGNATURE, "tensorrt-rtx:sm120")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TargetError, match=r"needs torch with CUDA, and torch .* has none; install a CUDA build"):
        TensorRTSession(tmp_path / "no.engine", SIGNATURE, "tensorrt-rtx:sm80+sm89")


def test_an_operator_that_the_parser_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    model = save(tmp_path, helper.make_node("Frobnicate", ["x"], ["y"], name="odd", domain="strange"))
    with pytest.raises(TargetError, match=r"TensorRT-RTX 1.* cannot take this model: .*Frobnicate"):
        run_job(job(tmp_path, model))
    assert not (tmp_path / "made.engine").exists()


def test_a_processor_is_refused_in_the_child_too(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    model = save(tmp_path, helper.make_node("Relu", ["x"], ["y"]))
    with pytest.raises(TargetError, match="does not build for sm90; it builds for sm75"):
        run_job(job(tmp_path, model, "sm90"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]
    outcome = run_job(job(tmp_path, model))
    assert outcome.stage == "done" and len(outcome.layers) == 1
    assert (tmp_path / "made.engine").stat().st_size == outcome.engines[0].engine_bytes


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(TargetError, match="cannot take this model"):
        run_job(job(tmp_path, tmp_path / "model.onnx"))


def _python_that(folder: Path, does: str) -> str:
    """A program in the place of Python that tells of parsing, logs, and then does something."""
    outcome = '{"stage": "parse", "problem": "", "version": "", "parse_seconds": 0, "layers": [], "engines": []}'
    program = folder / "python"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{outcome}' > \"$4\"\necho first\necho last words >&2\n{does}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("kill -SEGV $$", r"died while it was to parse \(SIGSEGV\)\. Its log ends: first \| last words"),
        ("exit 7", r"died while it was to parse \(exit status 7\)\. Its log ends: first \| last words"),
        ("exit 0", r"died while it was to parse \(exit status 0\)"),
        ("exec sleep 20", r"did not finish to parse in 1 seconds\. Its log ends: first \| last words"),
    ],
)
def test_a_process_that_dies_or_hangs(does: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_module.sys, "executable", _python_that(tmp_path, does))
    with pytest.raises(TargetError, match=message):
        run_job(job(tmp_path, tmp_path / "model.onnx"), seconds=1.0 if "sleep" in does else 60.0)


def test_a_crash_of_the_real_parser_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder's process is killed while it works; the engine's file is not there, nor a part of it."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if '-m' in sys.orig_argv and 'sparsefx.runtime.tensorrt.child' in sys.orig_argv:\n"
        "    import tensorrt_rtx\n"
        "    def crash(self, file):\n"
        "        os.kill(os.getpid(), 11)\n"
        "    tensorrt_rtx.OnnxParser.parse_from_file = crash\n"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    model = save(tmp_path, helper.make_node("Relu", ["x"], ["y"]))
    with pytest.raises(TargetError, match=r"the process of TensorRT-RTX died while it was to parse \(SIGSEGV\)"):
        run_job(job(tmp_path, model))
    assert not list(tmp_path.glob("*made*"))


def test_rtx_names_what_it_supports() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    driver = find_driver("tensorrt-rtx")
    assert isinstance(driver, TensorRTRTX)
    check: Callable[[list[str]], None] = driver.check_processors
    check(driver.supported())
    with pytest.raises(TargetError, match="does not build for sm60, sm90"):
        check(["sm60", "sm89", "sm90"])
