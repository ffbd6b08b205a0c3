"""Thinner layers by measurement: tables, movements and whole engines decide what is gathered and what is scattered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sparsefx
from sparsefx.compiler import thin_plans, whole
from sparsefx.compiler.choice import ThinDecision
from sparsefx.passes.errors import TableError
from sparsefx.runtime.latency.context import this_setting
from sparsefx.runtime.latency.table import LatencyTable
from sparsefx.runtime.onnxruntime.movement_models import Movement

from .models import Residual, residual

X = torch.randn(2, 3, 8, 8)
WIDTH = 8


class Work(LatencyTable):
    """Layers take as long as they have weights, in microseconds; widths of `measured` and more were measured."""

    def __init__(self, measured: int = 1, unknown: str = "") -> None:
        super().__init__(this_setting("onnxruntime:cpu", 1, len(X)), [])
        self.measured, self.unknown = measured, unknown

    def cost(self, layer: str, c_in: Any, c_out: Any, *, envelope: bool = False) -> Any:
        assert c_in >= self.measured and c_out >= self.measured
        return np.asarray(c_in) * np.asarray(c_out) * 1e-3

    def channel_range(self, layer: str) -> tuple[tuple[int, int], tuple[int, int]]:
        if layer == self.unknown:
            raise TableError(f"layer {layer!r} is not in the latency table")
        return (self.measured, 16), (self.measured, 16)


def masked() -> tuple[Residual, sparsefx.MaskSet]:
    """conv1 reads half of the residual stream, conv2 writes three quarters of it: all of it stays for the head."""
    model = residual()
    conv1, conv2 = (torch.ones_like(layer.weight, dtype=torch.bool) for layer in (model.conv1, model.conv2))
    conv1[:, ::2] = False
    conv2[[1, 5]] = False
    return model, sparsefx.MaskSet({"conv1.weight": conv1, "conv2.weight": conv2})


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What engines and movements are said to take; engines count in order, the full one first."""

    def say(*engines: float, moving_us: float = 1.0) -> None:
        monkeypatch.setattr(whole, "time_engines", lambda builds, inputs: list(engines[: len(builds)]))
        monkeypatch.setattr(thin_plans, "known_movements", lambda moves, threads: [moving_us * 1e-6] * len(moves))

    return say


def shapes(compiled: Any) -> dict[str, tuple[int, ...]]:
    return {layer.name: layer.shape_after[:2] for layer in compiled.report.layers}


def compiled(table: LatencyTable | None = None, *, verify: bool = False) -> Any:
    model, masks = masked()
    return sparsefx.compile(model, (X,), masks=masks, threads=1, latency_table=table, verify=verify)


@pytest.fixture(scope="module")
def full() -> Any:
    """Compiled without a table."""
    return compiled()


def test_both_sides_are_taken_and_exact(figures: Callable[..., None], full: Any) -> None:
    figures(1.0, 0.5, 0.5)
    fast = compiled(Work(), verify=True)
    assert shapes(full)["conv1"] == (16, 8) and shapes(full)["conv2"] == (8, 16)
    assert shapes(fast)["conv1"] == (16, 4) and shapes(fast)["conv2"] == (6, 16)
    decision = fast.report.thinner
    assert decision.taken and (decision.full_ms, decision.thin_ms) == (1.0, 0.5)
    gather, scatter = decision.layers
    assert (gather.layer, gather.side, gather.full, gather.kept) == ("conv1", "inputs", 8, 4)
    assert (scatter.layer, scatter.side, scatter.full, scatter.kept) == ("conv2", "outputs", 8, 6)
    assert gather.taken and gather.full_ms == pytest.approx(0.128) and gather.thin_ms == pytest.approx(0.065)
    assert gather.moving_ms == scatter.moving_ms == pytest.approx(0.001)
    layers, before = ({layer.name: layer for layer in x.report.layers} for x in (fast, full))
    assert sum(before["conv2"].stays.values()) == 2 and not layers["conv2"].stays
    assert layers["conv1"].kept_inputs == (1, 3, 5, 7) and layers["conv2"].kept_outputs == (0, 2, 3, 4, 6, 7)
    text = str(fast.report)
    assert "2 of these layers thin are taken: the engine as a whole 0.500 ms with them, 1.000 ms without" in text
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(fast.engine()(x), full.engine()(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(fast.graph_module(x), full.graph_module(x), rtol=0, atol=1e-5)


def test_the_engine_as_a_whole_decides(figures: Callable[..., None], full: Any) -> None:
    figures(1.0, 0.99, 0.99)
    same = compiled(Work())
    assert shapes(same) == shapes(full)
    decision = same.report.thinner
    assert not decision.taken and len(decision.layers) == 2
    assert "2 of these layers thin are not taken" in str(same.report)


def test_the_fastest_plan_wins(figures: Callable[..., None]) -> None:
    """Gathers alone are the last plan."""
    figures(1.0, 0.9, 0.6)
    fast = compiled(Work())
    assert shapes(fast)["conv1"] == (16, 4) and shapes(fast)["conv2"] == (8, 16)
    assert [layer.taken for layer in fast.report.thinner.layers] == [True, False]


def test_moving_costs(figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is built where no layer gains by itself."""
    figures(moving_us=1e3)
    slow = compiled(Work())
    decision = slow.report.thinner
    assert not decision.taken and decision.full_ms is None and len(decision.layers) == 2
    assert "None of these layers is faster thin" in str(slow.report)


def test_below_the_widths_of_the_table(figures: Callable[..., None]) -> None:
    figures(1.0, 0.5, 0.5)
    gather = compiled(Work(measured=WIDTH)).report.thinner.layers[0]
    assert gather.full_ms == pytest.approx(0.128) and gather.thin_ms == pytest.approx(0.065)


def test_nothing_to_thin(figures: Callable[..., None]) -> None:
    figures()
    dense = sparsefx.compile(residual(), (X,), threads=1, latency_table=Work())
    assert dense.report.thinner == ThinDecision(taken=False)
    assert "No layer would be faster with fewer channels" in str(dense.report)


def test_without_a_table_nothing_is_tried(full: Any) -> None:
    assert full.report.thinner is None


def test_a_layer_that_the_table_lacks_is_named() -> None:
    with pytest.raises(TableError, match="layer 'conv1' is not in the latency table"):
        compiled(Work(unknown="conv1"))


def test_movements_are_told_of_constants_and_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Movement] = []

    def known(movements: list[Movement], threads: int) -> list[float]:
        asked.extend(movements)
        return [1.0] * len(movements)

    monkeypatch.setattr(thin_plans, "known_movements", known)
    compiled(Work())
    assert asked == [Movement("gather", (2, 8, 8, 8), 1, 4), Movement("scatter", (2, 8, 8, 8), 1, 6, constants=True)]


@pytest.mark.ci
def test_linear_layers_by_real_figures(tmp_path: Path) -> None:
    """From profile to compile, with what this machine measures, whatever it is."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(64), nn.Linear(64, 256), nn.Linear(256, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(torch.relu(self.up(self.norm(x))))

    torch.manual_seed(0)
    model, x = Mixer().eval(), torch.randn(1, 50, 64)
    with torch.no_grad():
        model.up.weight[:, :48] = 0
        model.down.weight[::2] = 0
    file = tmp_path / "net.latency"
    sparsefx.profile(model, (x,), threads=1, path=file, grid=(1.0, 0.5), tight=0.2)
    decision = sparsefx.compile(model, (x,), threads=1, latency_table=file).report.thinner
    assert decision is not None
    sides = {(layer.layer, layer.side): layer for layer in decision.layers}
    assert sides["up", "inputs"].kept == 16 and sides["down", "outputs"].kept == 32
    assert all(layer.moving_ms > 0 and layer.thin_ms > layer.moving_ms for layer in decision.layers)
