"""Which layers are condensed: by measurement, never silently, never where the whole engine is slower for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.compiler import choose as choose_module
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.passes.errors import TargetError
from sparsefx.runtime.latency import time_cache
from sparsefx.runtime.onnxruntime import build as build_module
from sparsefx.runtime.onnxruntime import condensed as condensed_module
from sparsefx.runtime.onnxruntime import known_times as known_times_module
from sparsefx.runtime.onnxruntime.layer_times import LayerTime
from tests.runtime.kernels.needs import needs_compiler

pytestmark = needs_compiler

X = torch.randn(1, 256, generator=torch.Generator().manual_seed(1))
IMAGE = torch.randn(1, 16, 20, 20, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def own_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test measures, no other finds."""
    monkeypatch.setattr(time_cache, "cache_folder", lambda: tmp_path)


def pruned(model: nn.Module, density: float = 0.1) -> nn.Module:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.mul_(torch.rand(module.weight.shape) < density)
    return model.eval()


def mlp(density: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    return pruned(nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256), nn.Tanh()), density)


class ResidualConvolutions(nn.Module):
    """Two convolutions that are added to each other, one alone, one with a residual, strides and groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 32, 3, padding=1)
        self.shortcut = nn.Conv2d(16, 32, 1)
        self.grouped = nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=2)
        self.down = nn.Conv2d(32, 48, 5, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x) + self.shortcut(x))
        z: Tensor = self.down(torch.relu(self.grouped(y) + y))
        return z


def with_times(monkeypatch: pytest.MonkeyPatch, *times: tuple[float, float]) -> None:
    monkeypatch.setattr(build_module, "known_times", lambda *_: [LayerTime(*pair) for pair in times])


def with_whole(monkeypatch: pytest.MonkeyPatch, *milliseconds: float) -> None:
    """Of the dense engine, of the one with the layers that gain, and of the one with those that lose little too."""

    def time_engines(builds: Sequence[object], _: object) -> list[float]:
        assert len(builds) == len(milliseconds)
        return list(milliseconds)

    monkeypatch.setattr(choose_module, "time_engines", time_engines)


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")


def executed(compiled: CompiledModel) -> dict[str, str]:
    assert compiled.report.choice is not None
    return {layer.layer: layer.representation for layer in compiled.report.choice.layers}


def test_layers_are_measured_and_the_figures_kept() -> None:
    compiled = sparsefx.compile(mlp(), (X,), threads=1)
    choice = compiled.report.choice
    assert choice is not None and choice.threads == 1 and choice.processor
    for layer in choice.layers:
        assert layer.dense_us is not None and layer.dense_us > 0 and layer.condensed_us is not None
        assert layer.representation == "dense" or layer.condensed_us < 1.25 * layer.dense_us
    assert compiled.report.to_dict()["choice"]["layers"][0]["layer"] == "0"
    assert "condensed us" in str(compiled.report)


def test_a_layer_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = sparsefx.compile(mlp(), (X,), threads=1, verify=False).report.choice

    def never(*arguments: object) -> list[LayerTime]:
        raise AssertionError("measured again")

    monkeypatch.setattr(known_times_module, "time_layers", never)
    again = sparsefx.compile(mlp(), (X,), threads=1, verify=False).report.choice
    assert first is not None and again is not None
    assert [x.condensed_us for x in again.layers] == [x.condensed_us for x in first.layers]
    with pytest.raises(AssertionError, match="measured again"):
        sparsefx.compile(mlp(), (X,), threads=2, verify=False)


def test_the_faster_form_of_each_layer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with_times(monkeypatch, (10e-6, 4e-6), (10e-6, 11e-6))
    with_whole(monkeypatch, 2.0, 1.5, 1.6)
    compiled = sparsefx.compile(mlp(), (X,))
    assert executed(compiled) == {"0": "condensed", "2": "dense"}
    assert compiled.report.engine["custom_operators"] is not None
    assert "1.500 ms, with all layers dense 2.000 ms (1.33x), all threads, " in str(compiled.report)


def test_a_layer_that_loses_little_may_spare_its_neighbours_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with_times(monkeypatch, (10e-6, 4e-6), (10e-6, 11e-6))
    with_whole(monkeypatch, 2.0, 1.5, 1.4)
    compiled = sparsefx.compile(mlp(), (X,))
    assert executed(compiled) == {"0": "condensed", "2": "condensed"}
    assert "1.400 ms, with all layers dense 2.000 ms (1.43x)" in str(compiled.report)


def test_no_engine_is_slower_than_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with_times(monkeypatch, (10e-6, 4e-6), (10e-6, 4e-6))
    with_whole(monkeypatch, 2.0, 2.1)
    compiled = sparsefx.compile(mlp(), (X,))
    assert set(executed(compiled).values()) == {"dense"}
    assert compiled.report.engine["custom_operators"] is None
    assert "2 layers alone are faster condensed, the engine as a whole is not" in str(compiled.report)


def test_dense_layers_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "known_times", None)
    assert executed(sparsefx.compile(mlp(density=0.8), (X,))) == {}
    assert executed(sparsefx.compile(mlp(), (X,), representation="dense")) == {}


@pytest.mark.parametrize("threads", [1, 2])
def test_condensed_convolutions_with_all_that_is_fused_are_exact(threads: int) -> None:
    torch.manual_seed(0)
    model = pruned(ResidualConvolutions(), 0.2)
    compiled = sparsefx.compile(model, (IMAGE,), representation="condensed", threads=threads)
    assert set(executed(compiled).values()) == {"condensed"} and len(executed(compiled)) == 4
    for batch in (1, 3):
        x = torch.randn(batch, 16, 20, 20)
        torch.testing.assert_close(compiled.engine()(x), model(x).detach(), rtol=1e-5, atol=1e-5)


def test_a_wrong_condensed_layer_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = condensed_module.to_gaps

    def wrong(values: object, columns: object, starts: object, shape: list[int]) -> object:
        padded, gaps = honest(values, columns, starts, shape)  # type: ignore[arg-type]
        return (padded * 1.05 if shape[0] == 256 else padded), gaps

    monkeypatch.setattr(condensed_module, "to_gaps", wrong)
    with pytest.raises(sparsefx.VerificationError, match="the engine, at layer 2 "):
        sparsefx.compile(mlp(), (X,), representation="condensed")


def test_without_a_compiler_it_is_said_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch)
    compiled = sparsefx.compile(mlp(), (X,))
    assert set(executed(compiled).values()) == {"dense"}
    assert "2 sparse layers run as dense ones: the sparse kernels need a C++17 compiler" in str(compiled.report)
    with pytest.raises(TargetError, match=r"need a C\+\+17 compiler"):
        sparsefx.compile(mlp(), (X,), representation="condensed")


def test_bfloat16_weights_are_verified_against_their_own_rounding(tmp_path: Path) -> None:
    model = mlp()
    compiled = sparsefx.compile(model, (X,), representation="condensed", precision="bf16", threads=1)
    assert compiled.report.engine["precision"] == "bfloat16"
    assert "the weights of 2 condensed linear layers are bfloat16" in str(compiled.report)
    assert compiled.report.verification is not None
    (check,) = compiled.report.verification["outputs"]
    assert 1e-4 < check["max_error"] < check["bound"] and check["bound"] == 3 * check["eager"]
    compiled.save(tmp_path / "bf16.sfx")
    np.testing.assert_array_equal(sparsefx.load(tmp_path / "bf16.sfx")(X.numpy()), compiled.engine()(X.numpy()))


def test_asking_for_bfloat16_without_condensed_layers_is_answered() -> None:
    compiled = sparsefx.compile(mlp(density=0.9), (X,), precision="bf16")
    assert "the weights of 0 condensed linear layers are bfloat16, all else is float32" in str(compiled.report)


def test_other_types_and_unknown_representations() -> None:
    model = pruned(nn.Linear(256, 512)).double()  # ONNX Runtime has no GELU for doubles
    assert executed(sparsefx.compile(model, (X.double(),), representation="condensed")) == {}
    with pytest.raises(TargetError, match="unknown representation 'sparse'; known are measured, dense, condensed"):
        sparsefx.compile(mlp(), (X,), representation="sparse")


@pytest.mark.ci
def test_damaged_times_are_measured_again(tmp_path: Path) -> None:
    sparsefx.compile(mlp(), (X,), threads=1, verify=False)
    (file,) = tmp_path.glob("times-*.json")
    for damage in ("", "[]", '{"times": {"a": 3}}'):
        file.write_text(damage)
        compiled = sparsefx.compile(mlp(), (X,), threads=1, verify=False)
        assert all(x.dense_us for x in compiled.report.choice.layers)  # type: ignore[union-attr]
        assert len(file.read_text()) > 100
