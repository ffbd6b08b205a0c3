"""The compiled engine beside the dense one: which layers the times belong to, and what is said where there are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.compiler.compare import layers_of
from sparsefx.compiler.compare_bundles import compare_bundles
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.compiler.figures import Comparison
from sparsefx.compiler.reporting.read import engine_bytes
from sparsefx.runtime.onnxruntime.layer_clock import Layer, LayerClock
from sparsefx.runtime.onnxruntime.session import OnnxRuntimeSession
from tests.compiler.models import half_of_conv1, residual
from tests.runtime.kernels.needs import needs_compiler

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LAYERS = ["stem", "conv1", "conv2", "head"]


@pytest.fixture(scope="module", autouse=True)
def _few_runs() -> Iterator[None]:
    """The fewest runs that count: figures are not judged here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparsefx.compiler.compare_build._SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    model = residual()
    return sparsefx.compile(model, (X,), masks=half_of_conv1(model), threads=1, compare=True)


@pytest.fixture(scope="module")
def bundles(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    sparsefx.compile(residual(), (X,), threads=1).save(folder / "dense.sfx")
    compiled.save(folder / "slim.sfx")
    return folder / "dense.sfx", folder / "slim.sfx"


def check_times(found: Comparison) -> None:
    """Both engines with what measured times must be, and every layer by its name."""
    dense, slim = found.engines
    assert (dense.name, slim.name) == ("dense", "compiled") and dense.ratio == 1.0
    for engine in found.engines:
        assert 0 < engine.median_ms <= engine.p99_ms and engine.spread_ms >= 0 and engine.runs >= 20
    assert [layer.name for layer in found.layers] == LAYERS
    assert found.rest is not None and found.rest.name == "everything else"
    for layer in found.layers:
        assert layer.dense_ms is not None and layer.compiled_ms is not None
        assert layer.dense_ms > 0 and layer.compiled_ms > 0
    assert found.notes == () and found.threads == 1 and found.device


def test_a_compilation_compares_with_the_masked_model_as_it_is(compiled: CompiledModel) -> None:
    found = compiled.report.latency
    assert found is not None
    check_times(found)
    assert found.sizes == {"batch": 2}
    dense, slim = found.engines
    assert slim.file_bytes == sum(file.stat().st_size for file in compiled.build.files) < dense.file_bytes
    assert json.loads(compiled.report.to_json())["latency"]["engines"][1]["median_ms"] == slim.median_ms
    assert f"Latency of the compiled engine: median {slim.median_ms:.3f} ms" in str(compiled.report)


def test_bundles_are_compared_without_the_models(bundles: tuple[Path, Path]) -> None:
    found = compare_bundles(*bundles, threads=1, seconds=0, sizes={"batch": 3})
    check_times(found)
    assert found.sizes == {"batch": 3}
    assert [engine.file_bytes for engine in found.engines] == [engine_bytes(path) for path in bundles]


def test_a_layer_that_runs_within_another_is_named(bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = LayerClock.seconds

    def without_conv1(clock: LayerClock) -> dict[str, Any]:
        return {name: times for name, times in seconds(clock).items() if name != "conv1"}

    monkeypatch.setattr(LayerClock, "seconds", without_conv1)
    found = compare_bundles(*bundles, threads=1, seconds=0)
    assert [layer.name for layer in found.layers] == ["stem", "conv2", "head"]
    assert found.notes == ("without times of their own, since ONNX Runtime runs them within others: conv1",)


def test_layers_that_are_gone_have_no_time(tmp_path: Path) -> None:
    model = residual()
    masks = sparsefx.MaskSet({"conv2.weight": torch.zeros_like(model.conv2.weight, dtype=torch.bool)})
    found = sparsefx.compile(model, (X,), masks=masks, threads=1, compare=True, verify=False).report
    gone = {layer.name for layer in found.layers if layer.shape_after is None}
    assert "conv2" in gone and found.latency is not None
    assert {layer.name for layer in found.latency.layers if layer.compiled_ms is None} == gone


def test_bundles_of_other_models_are_refused(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.sfx"
    sparsefx.compile(nn.Linear(4, 2).eval(), (torch.randn(1, 4),), threads=1).save(other)
    with pytest.raises(sparsefx.BundleError, match=r"only bundles of the same model can be compared"):
        compare_bundles(other, bundles[1], seconds=0)


def test_where_there_is_no_engine_a_note_says_so() -> None:
    model = residual()
    report = sparsefx.compile(model, (X,), masks=half_of_conv1(model), target="torch", compare=True).report
    assert report.latency is not None and report.latency.engines == () and report.latency.layers == ()
    assert "not timed beside the dense engine: target torch stops at the graph" in report.latency.notes[0]
    assert "Note: not timed" in str(report)


class Tokens(nn.Module):
    """Linear layers on tokens, whose biases ONNX adds by themselves, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(torch.relu(self.again(torch.tanh(self.first(x)))))
        out: Tensor = self.head(x.softmax(-1))
        return out


def test_biases_and_activations_count_to_their_layers() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 5, 8)
    report = sparsefx.compile(Tokens().eval(), (x,), threads=1, compare=True, verify=False).report
    assert report.latency is not None and report.latency.rest is not None
    assert [layer.name for layer in report.latency.layers] == ["first", "again#1", "again#2", "head"]
    assert all(layer.dense_ms and layer.compiled_ms for layer in report.latency.layers)
    assert report.latency.rest.dense_ms, "softmax is no layer's"


class Downsampled(nn.Module):
    """A residual block: conv2, once it adds the other branch to its result, runs after that branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.down = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.down(x))


@pytest.mark.ci
@needs_compiler
def test_times_belong_to_their_layers_where_the_engine_has_another_order() -> None:
    torch.manual_seed(0)
    model = Downsampled().eval()
    masks = {f"{name}.weight": torch.rand(layer.weight.shape) < 0.1 for name, layer in model.named_children()}
    for mask in masks.values():
        mask[:, 0] = True  # no channel goes
    compiled = sparsefx.compile(
        model, (torch.randn(1, 32, 8, 8),), masks=sparsefx.MaskSet(masks), threads=1, representation="condensed",
        compare=True, verify=False,
    )  # fmt: skip
    report = compiled.report
    assert [layer.name for layer in report.layers] == ["conv1", "conv2", "down"]
    assert report.engine_layers == ("conv1", "down", "conv2")
    assert report.choice is not None and {x.representation for x in report.choice.layers} == {"condensed"}
    assert report.latency is not None and report.latency.notes == ()
    assert all(layer.compiled_ms for layer in report.latency.layers)


def test_a_file_with_other_layers_than_its_report_gets_no_names(compiled: CompiledModel, tmp_path: Path) -> None:
    session = compiled.engine().session
    assert isinstance(session, OnnxRuntimeSession)
    layers = list(layers_of(compiled.report.to_dict()))
    assert LayerClock(session, layers, tmp_path)
    for wrong in (layers[:-1], layers[::-1], [Layer("stem", 1), *layers[1:]]):
        with pytest.raises(sparsefx.TargetError, match=r"the layers in model.onnx are not those of its report"):
            LayerClock(session, wrong, tmp_path)
