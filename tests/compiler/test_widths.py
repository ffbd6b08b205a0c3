"""Widths by measurement: what a table and whole engines say decides which removable channels stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sparsefx
from sparsefx.compiler import whole
from sparsefx.compiler.bundle import BuildSettings
from sparsefx.compiler.masked_model import keep_graph
from sparsefx.compiler.prepare import capture_masked
from sparsefx.compiler.sampling import Sample
from sparsefx.compiler.slim_engine import EngineMaker
from sparsefx.compiler.stages import Stages
from sparsefx.compiler.widths import WidthPlans
from sparsefx.passes.channels.rules import POINTWISE
from sparsefx.passes.errors import TableError, TargetError
from sparsefx.runtime.latency.context import this_setting
from sparsefx.runtime.latency.record import Setting
from sparsefx.runtime.latency.table import LatencyTable

from .models import Residual, half_of_conv1, residual

X = torch.randn(2, 3, 8, 8)


class Blocks(LatencyTable):
    """Layers whose inputs or outputs do not fill blocks of four take twice as long; measured up to 12 channels."""

    def __init__(self, setting: Setting | None = None, unknown: str = "") -> None:
        super().__init__(this_setting("onnxruntime:cpu", 1, len(X)) if setting is None else setting, [])
        self.unknown = unknown

    def cost(self, layer: str, c_in: Any, c_out: Any, *, envelope: bool = False) -> Any:
        assert 4 <= c_in <= 12 or layer == "stem"
        whole = np.asarray(c_in) % 4 == 0 if layer != "stem" else np.asarray(c_out) % 4 == 0
        return np.where(whole, 1.0, 2.0) * (np.asarray(c_in) + np.asarray(c_out)) * 1e-3

    def channel_range(self, layer: str) -> tuple[tuple[int, int], tuple[int, int]]:
        if layer == self.unknown:
            raise TableError(f"layer {layer!r} is not in the latency table")
        return (3 if layer == "stem" else 4, 12), (4, 12)


def pruned() -> tuple[Residual, sparsefx.MaskSet]:
    """Nine of sixteen filters of conv1 are zero: seven stay, or eight with one to spare."""
    model = residual()
    masks = half_of_conv1(model)
    mask = masks["conv1.weight"].clone()
    mask[1] = False
    return model, sparsefx.MaskSet({"conv1.weight": mask})


@pytest.fixture
def engines_take(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """What the exact engine and all wider ones are said to take."""

    def say(exact: float, wider: float) -> None:
        monkeypatch.setattr(whole, "time_engines", lambda builds, inputs: [exact, *[wider] * (len(builds) - 1)])

    return say


@dataclass
class Told:
    """The shares that were told of every stage."""

    shares: dict[str, list[float]] = field(default_factory=dict)

    def begin(self, stage: str) -> None:
        self.shares[stage] = []

    def share(self, done: float) -> None:
        self.shares[list(self.shares)[-1]].append(done)


def width(compiled: Any) -> int:
    (layer,) = (layer for layer in compiled.report.layers if layer.name == "conv1")
    return int(layer.shape_after[0])


def test_wider_layers_are_kept_and_exact(engines_take: Callable[[float, float], None]) -> None:
    engines_take(1.0, 0.5)
    model, masks = pruned()
    compiled = sparsefx.compile(model, (X,), masks=masks, threads=1, latency_table=Blocks())  # verifies
    exact = sparsefx.compile(model, (X,), masks=masks, threads=1)
    advice = 'fill blocks of 16 channels, which ONNX Runtime is fastest with: 1; widths="measured"'
    assert advice in str(exact.report) and advice not in str(compiled.report)
    assert width(compiled) % 4 == 0 and width(compiled) > width(exact)
    decision = compiled.report.widths
    assert decision is not None and decision.taken and (decision.exact_ms, decision.kept_ms) == (1.0, 0.5)
    (group,) = decision.groups
    assert group.layers == ("conv1",) and (group.exact, group.kept) == (width(exact), width(compiled))
    assert group.kept_ms < group.exact_ms
    stays = next(layer.stays for layer in compiled.report.layers if layer.name == "conv1")
    assert stays["kept because a wider layer is faster"] == width(compiled) - width(exact)
    assert "Wider layers are taken" in str(compiled.report)
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(compiled.engine()(x), exact.engine()(x), rtol=0, atol=1e-5)


def test_without_a_table_blocks_are_filled(engines_take: Callable[[float, float], None]) -> None:
    """Seven of sixteen channels are needed; sixteen fill a block."""
    engines_take(1.0, 0.5)
    model, masks = pruned()
    told = Told()
    compiled = sparsefx.compile(  # verifies
        model, (X,), masks=masks, threads=1, widths="measured", on_stage=told.begin, on_progress=told.share
    )
    assert told.shares["widths"] and told.shares["verification"]
    for shares in told.shares.values():
        assert shares == sorted(shares) and all(0 <= share <= 1 for share in shares)
    assert width(compiled) == 16 and compiled.report.widths is not None
    (group,) = compiled.report.widths.groups
    assert (group.exact, group.kept, group.exact_ms, group.kept_ms) == (7, 16, None, None)
    assert "Wider layers are taken" in str(compiled.report)
    engines_take(1.0, 0.99)
    assert width(sparsefx.compile(model, (X,), masks=masks, threads=1, widths="measured")) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": "wide"}, "unknown widths 'wide'; known are exact, measured"),
        (
            {"widths": "measured", "target": "torch"},
            "widths are measured for onnxruntime:cpu only, found .*'torch'",
        ),
    ],
)
def test_widths_that_cannot_be_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        sparsefx.compile(residual(), (X,), **options)


def test_the_engine_as_a_whole_decides(engines_take: Callable[[float, float], None]) -> None:
    engines_take(1.0, 0.99)
    model, masks = pruned()
    compiled = sparsefx.compile(model, (X,), masks=masks, threads=1, latency_table=Blocks())
    assert width(compiled) == width(sparsefx.compile(model, (X,), masks=masks, threads=1))
    assert compiled.report.widths is not None and not compiled.report.widths.taken
    assert "Wider layers are not taken" in str(compiled.report)


def test_where_nothing_can_be_wider() -> None:
    compiled = sparsefx.compile(residual(), (X,), threads=1, latency_table=Blocks())
    assert compiled.report.widths is not None and compiled.report.widths.groups == ()


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (lambda: Blocks(unknown="conv2"), {}, "layer 'conv2' is not in the latency table"),
        (Blocks, {"threads": 2}, "threads"),
        (lambda: Blocks(Setting("onnxruntime:cpu", "another", "onnxruntime 1.0", 1, 2)), {}, "another"),
        (lambda: Path("nowhere.latency"), {}, "nowhere.latency"),
    ],
    ids=["layer", "threads", "processor", "file"],
)
def test_tables_that_do_not_fit_are_refused(table: Any, options: dict[str, Any], message: str) -> None:
    model, masks = pruned()
    with pytest.raises(TableError, match=message):
        sparsefx.compile(model, (X,), masks=masks, latency_table=table(), **{"threads": 1, **options})


@torch.library.custom_op("sparsefx_tests::softened", mutates_args=())
def softened(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


@softened.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Softened(Residual):
    """The block's middle channels pass an operator that has no rule."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        out: torch.Tensor = self.head(self.conv2(softened(self.conv1(x))).mean((2, 3)))
        return out


def test_plans_heed_the_callers_rules() -> None:
    """Without the rule the operator keeps its channels, so that there is no width to choose."""
    torch.manual_seed(0)
    model, (_, masks) = Softened().eval(), pruned()
    captured = capture_masked(model, Sample((X,), {}), masks, True, None)
    rules = {"sparsefx_tests::softened": POINTWISE}
    settings = BuildSettings("torch", "fp32", 1)
    maker = EngineMaker(captured.signature, settings, [X], "dense", rules)
    exact = maker.make(keep_graph(captured.graph), Stages())
    plans = WidthPlans(captured.graph, exact.graph, Blocks(), rules).plans()
    assert {"conv1": 8} in plans
    assert WidthPlans(captured.graph, exact.graph, Blocks()).plans() == []
    wider = maker.make(keep_graph(captured.graph), Stages(), {"conv1": 8})
    shapes = [dict(engine.graph.named_parameters())["conv1.weight"].shape[0] for engine in (exact, wider)]
    assert shapes == [7, 8]
    torch.testing.assert_close(wider.graph(X), exact.graph(X), rtol=0, atol=1e-5)


def test_a_table_that_was_measured_decides(tmp_path: Path) -> None:
    """From profile to compile, with real figures, whatever they are."""
    model, masks = pruned()
    file = tmp_path / "net.latency"
    sparsefx.profile(model, (X,), threads=1, path=file, grid=(1.0, 0.5), tight=0.2)
    compiled = sparsefx.compile(model, (X,), masks=masks, threads=1, latency_table=file)
    decision = compiled.report.widths
    assert decision is not None and decision.exact_ms is not None and decision.groups
    assert all(group.kept > group.exact and group.exact_ms > 0 for group in decision.groups)
