"""Binding and running as far as it goes without a GPU: TensorRT and CUDA are stand-ins that double their input.

Nothing here shows that an engine runs: that needs a GPU.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sparsefx.passes.errors import TargetError
from sparsefx.passes.signature import Signature, TensorSpec, Tree
from sparsefx.runtime.nvidia import Gpu
from sparsefx.runtime.tensorrt import session as session_module
from sparsefx.runtime.tensorrt.drivers import FAMILIES, Driver, TensorRT10, TensorRTRTX
from sparsefx.runtime.tensorrt.session import TensorRTSession, tensorrt_engine

INFORMATION = {"JSON": '{"Layers": ["gemm + relu", "gemm"], "Bindings": ["x", "y"]}'}
X = np.arange(6, dtype=np.float32).reshape(2, 3)
SPECS = [TensorSpec(name, "float32", ("batch", 3)) for name in ("unused", "x", "y")]
TREES = (("unused", Tree("tensor", 0)), ("x", Tree("tensor", 1)))
SIGNATURE = Signature((SPECS[0], SPECS[1]), (SPECS[2],), TREES, 2, Tree("tensor", 0))


class Tensor:
    """A tensor on a device that is the host."""

    def __init__(self, held: torch.Tensor) -> None:
        self.held, self.shape, self.data_ptr, self.numpy = held, held.shape, held.data_ptr, held.numpy

    def cuda(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self


class Context:
    """Doubles x into y, for at most four rows."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[0] <= 4

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def execute_async_v3(self, stream: int) -> bool:
        count = int(np.prod(self.shape))
        x, y = ((ctypes.c_float * count).from_address(self.addresses[name]) for name in ("x", "y"))
        for i, value in enumerate(x):
            y[i] = 2 * value
        return True


class RuntimeConfig:
    """Of TensorRT-RTX: takes a cache of compiled kernels."""

    caches: tuple[Any, ...] = ()

    def create_runtime_cache(self) -> Any:
        return SimpleNamespace(deserialize=self.keep, serialize=lambda: b"compiled kernels")

    def set_runtime_cache(self, cache: Any) -> bool:
        return True

    def keep(self, blob: bytes) -> bool:
        RuntimeConfig.caches = (*RuntimeConfig.caches, blob)
        return True


def fake_tensorrt(loads: bool = True) -> Any:
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=lambda i: "xy"[i],
        get_tensor_dtype=lambda name: SimpleNamespace(name="FLOAT"),
        get_tensor_profile_shape=lambda name, profile: ((1, 3), (2, 3), (4, 3)),
        create_runtime_config=RuntimeConfig,
        create_execution_context=lambda *config: Context(),
        create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda form: INFORMATION[form]),
    )
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: engine if loads else None)
    log = SimpleNamespace(ERROR=1)
    return SimpleNamespace(
        __version__="11.4.0",
        Runtime=lambda logger: runtime,
        LayerInformationFormat=SimpleNamespace(JSON="JSON"),
        Logger=type("Logger", (), {"ERROR": log.ERROR, "__init__": lambda self, severity: None}),
    )


def fake_torch() -> Any:
    stream = SimpleNamespace(cuda_stream=0, wait_stream=lambda other: None, synchronize=lambda: None)
    return SimpleNamespace(
        from_numpy=lambda array: Tensor(torch.from_numpy(array)),
        empty=lambda shape, dtype, device: Tensor(torch.empty(shape, dtype=dtype)),
        float32=torch.float32,
        cuda=SimpleNamespace(Stream=lambda: stream, current_stream=lambda: stream),
    )


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(session_module, "find_gpu", lambda: Gpu("NVIDIA L4", "sm89"))
    monkeypatch.setattr(session_module, "_torch_with_cuda", lambda target: fake_torch())
    monkeypatch.setattr(session_module, "cache_folder", lambda: tmp_path / "cache")
    RuntimeConfig.caches = ()
    (tmp_path / "model.engine").write_bytes(b"engine")
    return tmp_path / "model.engine"


def use(monkeypatch: pytest.MonkeyPatch, kind: type[Driver], loads: bool = True) -> str:
    backend = "tensorrt-rtx" if kind is TensorRTRTX else "tensorrt"
    driver = kind(FAMILIES[backend], fake_tensorrt(loads))
    monkeypatch.setattr(session_module, "find_driver", lambda name: driver)
    return f"{backend}:sm89"


@pytest.mark.parametrize("kind", [TensorRT10, Driver, TensorRTRTX])
def test_inputs_and_outputs_are_bound_for_every_driver(
    kind: type[Driver], plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tensorrt_engine(plan, SIGNATURE, use(monkeypatch, kind))
    np.testing.assert_array_equal(engine(X, X), 2 * X)
    np.testing.assert_array_equal(engine(X[:1] + 1, X[:1]), 2 * X[:1])
    assert engine.session.settings()["device"] == "NVIDIA L4"
    engine.session.prepare([X, X])()


def test_a_batch_that_the_engine_was_not_built_for(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tensorrt_engine(plan, SIGNATURE, use(monkeypatch, Driver))
    with pytest.raises(TargetError, match=r"x has shape \[5, 3\].* built for \[1, 3\] to \[4, 3\]; .* max_batch"):
        engine(np.zeros((5, 3), np.float32), np.zeros((5, 3), np.float32))


def test_what_rtx_compiles_at_run_time_is_kept(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = use(monkeypatch, TensorRTRTX)
    TensorRTSession(plan, SIGNATURE, target).run([X, X])
    (kept,) = (plan.parent / "cache").iterdir()
    assert kept.read_bytes() == b"compiled kernels"
    assert not RuntimeConfig.caches
    TensorRTSession(plan, SIGNATURE, target)
    assert RuntimeConfig.caches == (b"compiled kernels",)


def test_an_engine_that_does_not_load(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match=r"TensorRT 11\.4\.0 on NVIDIA L4 cannot load model\.engine; .* compile it"):
        TensorRTSession(plan, SIGNATURE, use(monkeypatch, Driver, loads=False))
