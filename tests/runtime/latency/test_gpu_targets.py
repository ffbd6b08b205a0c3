"""Latency tables of GPUs where there is none: what is refused, and what can be rehearsed on the CPU.

The rehearsals put the CPU in the GPU's place; no time in them says anything about a GPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.passes.errors import TargetError
from sparsefx.runtime.latency import profile as profile_module
from sparsefx.runtime.latency.profiling import gpu_setting
from sparsefx.runtime.nvidia import Gpu
from sparsefx.runtime.onnxruntime import gpu_profiling
from sparsefx.runtime.onnxruntime.session import write_optimized
from sparsefx.runtime.pytorch import profiling as torch_profiling
from sparsefx.runtime.targets import KINDS
from tests.runtime.kernels.cuda.needs import needs_gpu
from tests.runtime.latency.helpers import Perceptron, Residual, image

LOOSE = 10.0
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: what is said without one is not")


@no_gpu
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch", "torch has no engine to make a latency table of"),
        ("torch:cuda", r"PyTorch .*(built without CUDA|finds no GPU)"),
        ("onnxruntime:cuda", "needs CUDAExecutionProvider.* pip install onnxruntime-gpu"),
        ("onnxruntime:tensorrt", "needs TensorrtExecutionProvider.* pip install onnxruntime-gpu"),
        ("tensorrt:sm90", "there is no NVIDIA driver on this machine|the NVIDIA driver finds no GPU"),
        ("tensorrt-rtx:sm89", "there is no NVIDIA driver on this machine|the NVIDIA driver finds no GPU"),
        ("abacus", "unknown target 'abacus'"),
    ],
)
def test_without_a_gpu_a_target_is_refused_before_any_work(
    target: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(profile_module, "prepared_with", lambda *given: pytest.fail("the model was captured"))
    with pytest.raises(TargetError, match=message):
        sparsefx.profile(Residual(), (image(),), target=target, path=tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_every_kind_of_target_has_a_row() -> None:
    from sparsefx.runtime.latency.backends import PROFILING

    assert {kind.name for kind in KINDS} - {"torch"} == set(PROFILING)


def test_a_table_of_the_cpu_is_in_fp32() -> None:
    with pytest.raises(TargetError, match="latency tables of onnxruntime:cpu are in fp32, found precision 'bf16'"):
        sparsefx.profile(Residual(), (image(),), precision="bf16")


@pytest.fixture
def torch_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_profiling, "find_gpu", lambda: torch.device("cpu"))
    described = {"name": "the CPU", "cuda": "none", "cudnn": "none"}
    monkeypatch.setattr(torch_profiling, "gpu_description", lambda: described)


@pytest.mark.usefixtures("torch_on_the_cpu")
def test_a_rehearsal_of_torch() -> None:
    model = Residual().eval()
    table = sparsefx.profile(model, (image(2),), target="torch:cuda", grid=(1.0, 0.6), tight=LOOSE)
    assert table.setting == gpu_setting(
        "torch:cuda", "the CPU", f"torch {torch.__version__}, CUDA none, cuDNN none", 2, "warm", "fp32"
    )
    assert set(table.layers) == {"stem", "first", "second", "depthwise", "point", "head"}
    assert table.channel_range("first")[1][1] == 24
    full = next(r for r in table.records if r.widths == {"stem": 16, "first": 24, "point": 32})
    nodes = {timed.node.layer: timed.node for timed in full.nodes if timed.node.layer is not None}
    assert nodes["second"].width == (24, 16) and nodes["head"].width == (32, 5)
    assert "depthwise" in nodes["depthwise"].key and "2x16x16 to 2x16x16" in nodes["depthwise"].key
    assert any(timed.node.key.startswith("aten::relu, ") for timed in full.nodes)
    assert all(timed.seconds > 0 for timed in full.nodes)
    assert table.predict_widths(model, {}) == pytest.approx(table.total([timed.node for timed in full.nodes]))
    assert len({timed.node.key for record in table.records for timed in record.nodes}) == len(
        {timed.node.key for timed in full.nodes}
    )  # widths are in no key


@pytest.mark.usefixtures("torch_on_the_cpu")
def test_a_rehearsal_of_torch_in_another_precision() -> None:
    table = sparsefx.profile(
        Perceptron().eval(), (image(),), target="torch:cuda", precision="bf16", grid=(1.0, 0.5), tight=LOOSE
    )
    assert table.setting.precision == "bf16"
    assert set(table.layers) == {"patches", "wide", "narrow", "head"}


class Halves(nn.Module):
    """An operator with two results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.conv(x).chunk(2, 1)
        return (left * right).mean((2, 3))


@pytest.mark.usefixtures("torch_on_the_cpu")
def test_an_operator_with_several_results_is_one() -> None:
    model = Halves().eval()
    table = sparsefx.profile(model, (image(),), target="torch:cuda", time_limit=0.0, tight=LOOSE)
    keys = [timed.node.key for timed in table.records[0].nodes]
    assert [key.partition(",")[0] for key in keys] == ["aten::conv2d", "aten::split", "aten::mul", "aten::mean"]
    assert keys[1].endswith("ranks 4 to 4 4")
    assert [timed.node.width for timed in table.records[0].nodes][1:3] == [(2048, 2048), (2048, 1024)]


class CpuSession:
    """In place of a session of the CUDA provider: on the CPU, its profile completed by kernels' times.

    An operator takes as many microseconds as its first result has channels, in two kernels.
    """

    kernels = True

    def __init__(self, model: Path, target: str, *, profile: Path | None = None, optimized: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if optimized is not None:
            write_optimized(options, optimized)
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._names = [value.name for value in self._session.get_inputs()]

    def prepare(self, inputs: list[Any]) -> Any:
        return lambda: self._session.run(None, dict(zip(self._names, inputs, strict=True)))

    def end_profile(self) -> Path:
        path = Path(self._session.end_profiling())
        events: list[Any] = [{"cat": "Kernel", "name": "Memcpy HtoD", "dur": 9, "args": {}}]
        for event in json.loads(path.read_text()):
            events.append(event)
            if self.kernels and event["name"].endswith("_kernel_time"):
                (shape,) = event["args"]["output_type_shape"][0].values()
                half = {"cat": "Kernel", "name": "k", "dur": shape[1] / 2, "args": {"parent_name": event["name"]}}
                events += [half, half]
        path.write_text(json.dumps(events))
        return path


@pytest.fixture
def cuda_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_profiling, "package_with_provider", lambda target: SimpleNamespace(__version__="1.31.1"))
    monkeypatch.setattr(gpu_profiling, "find_gpu", lambda: Gpu("NVIDIA L4", "sm89"))
    monkeypatch.setattr(gpu_profiling, "OnnxRuntimeGpuSession", CpuSession)


@pytest.mark.usefixtures("cuda_provider")
def test_the_cuda_provider_goes_by_the_times_of_kernels() -> None:
    table = sparsefx.profile(Residual().eval(), (image(),), target="onnxruntime:cuda", tight=LOOSE, time_limit=0.0)
    setting = table.setting
    assert (setting.device, setting.engine, setting.threads) == ("NVIDIA L4", "onnxruntime 1.31.1", 0)
    assert set(table.layers) == {"stem", "first", "second", "depthwise", "point", "head"}
    for timed in (timed for record in table.records for timed in record.nodes if timed.node.layer is not None):
        assert timed.seconds == pytest.approx(timed.node.width[1] * 1e-6) and timed.spread == 0.0


@pytest.mark.usefixtures("cuda_provider")
def test_a_profile_without_times_of_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuSession, "kernels", False)
    with pytest.raises(TargetError, match="no times of the GPU's kernels: it takes a build with --enable_cuda_prof"):
        sparsefx.profile(Residual().eval(), (image(),), target="onnxruntime:cuda", grid=(1.0, 0.5), tight=LOOSE)


@pytest.mark.usefixtures("cuda_provider")
def test_the_tensorrt_provider_tells_one_time_for_all() -> None:
    with pytest.raises(TargetError, match=r"tells one time for all .* profile tensorrt:sm89, the same engine"):
        sparsefx.profile(Residual(), (image(),), target="onnxruntime:tensorrt")


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_table_of_torch_on_a_gpu(precision: str) -> None:
    model = Residual().eval()
    table = sparsefx.profile(model, (image(),), target="torch:cuda", precision=precision, grid=(1.0, 0.5))
    assert table.setting.device == torch.cuda.get_device_name() and table.setting.precision == precision
    assert table.predict_widths(model, {"first": 12}) > 0
