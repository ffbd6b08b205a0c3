"""Lookups: the staircase is found again, what is outside is said, and tables of other settings are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsefx.passes.errors import TableError
from sparsefx.runtime.latency.node import EngineNode
from sparsefx.runtime.latency.surface import Surface
from sparsefx.runtime.latency.table import LatencyTable
from tests.runtime.latency.helpers import ADD, BLOCKED, INPUTS, OUTPUTS, SETTING, convolution_seconds, record, table


def test_costs_follow_the_staircase_between_the_measurements() -> None:
    c_in, c_out = np.array([20, 33, 40, 50, 60]), np.array([17, 33, 40, 60])
    cost = table().cost("conv", c_in[:, None], c_out[None, :])
    expected = [[1e3 * convolution_seconds(int(a), int(b)) for b in c_out] for a in c_in]
    np.testing.assert_allclose(cost[[0, 2, 4]], np.array(expected)[[0, 2, 4]], rtol=0.01)
    np.testing.assert_allclose(cost[1], expected[1], rtol=0.01)
    assert cost[3] == pytest.approx(expected[3], rel=0.01)


def test_one_layer_at_one_width_is_a_number() -> None:
    assert table().cost("conv", 32, 48) == pytest.approx(1e3 * convolution_seconds(32, 48), rel=1e-3)


def test_the_envelope_never_falls_and_never_exceeds() -> None:
    found = table()
    c_in, c_out = np.arange(16, 65)[:, None], np.arange(16, 65)[None, :]
    raw, low = found.cost("conv", c_in, c_out), found.cost("conv", c_in, c_out, envelope=True)
    assert (low <= raw).all() and (low < 0.99 * raw).any(), "widths that are no multiple of four are worth widening"
    assert low[33 - 16, 48 - 16] == pytest.approx(found.cost("conv", 48, 48), rel=0.05)


def test_outside_the_grid_is_an_error_that_names_the_layer() -> None:
    with pytest.raises(TableError, match=r"layer conv was measured from 14 to 64 output channels, asked for 100"):
        table().cost("conv", 32, [32, 100])
    with pytest.raises(TableError, match=r"layer 'other' is not in the latency table; it has conv"):
        table().cost("other", 32, 32)
    assert table().channel_range("conv") == ((16, 64), (14, 64))


def test_an_operator_outside_is_refused_or_extrapolated_with_a_warning() -> None:
    node = EngineNode("c", BLOCKED, (128, 64), "conv", (128, 64))
    with pytest.raises(TableError, match=r"conv has widths \(128, 64\), measured are 16 to 64 and 16 to 64"):
        table().seconds(node)
    with pytest.warns(UserWarning, match="the figure is extrapolated"):
        assert table().seconds(node, outside="warn") == pytest.approx(convolution_seconds(128, 64), rel=0.1)
    with pytest.raises(TableError, match=r"elsewhere is not in the latency table: no measurement of 'Conv, ker"):
        table().seconds(EngineNode("elsewhere", "Conv, kernel 9x9", (16, 16)))


def test_a_network_is_the_sum_of_its_operators_and_their_overhead() -> None:
    unseen = record(40, 40)
    nodes = [timed.node for timed in unseen.nodes]
    assert table().overhead == pytest.approx(1e-6, rel=1e-3)
    assert table().total(nodes) == pytest.approx(1e3 * unseen.whole, rel=0.01)
    np.testing.assert_allclose(table().accuracy(), 1.0, rtol=1e-9)


def test_a_slow_spell_of_the_machine_is_found_and_divided_out() -> None:
    steady = table()
    slow = [replace_pace(r, 1.3 if number in (3, 11) else 1.0) for number, r in enumerate(steady.records)]
    found = LatencyTable(SETTING, slow)
    np.testing.assert_allclose(found.paces[[3, 11]], 1.3, rtol=0.05)
    assert found.cost("conv", 40, 40) == pytest.approx(1e3 * convolution_seconds(40, 40), rel=0.02)


def replace_pace(r: object, pace: float) -> object:
    assert r.widths is not None
    return record(r.widths["before"], r.widths["conv"], pace=pace)


def test_drift_counts_only_beyond_what_the_calibration_engine_can_tell() -> None:
    assert table().drift(1.05e-3) == 1.0
    assert table().drift(1.3e-3) == pytest.approx(1.3)


def test_merging_is_associative_and_keeps_the_tighter_measurement() -> None:
    parts = [
        LatencyTable(SETTING, [record(16, 16, spread=0.05), record(32, 32)]),
        LatencyTable(SETTING, [record(16, 16, spread=0.01), record(48, 48)]),
        LatencyTable(SETTING, [record(16, 16, spread=0.03), record(64, 64)]),
    ]
    left, right = parts[0].merge(parts[1]).merge(parts[2]), parts[0].merge(parts[1].merge(parts[2]))
    assert left.records == right.records == parts[2].merge(parts[0], parts[1]).records
    assert [r.spread for r in left.records if r.widths == {"before": 16, "conv": 16}] == [0.01]
    assert len(left.records) == 4


def test_layers_of_several_models_are_told_apart() -> None:
    other = LatencyTable(SETTING, [record(16, 16, model="other"), record(32, 32, model="other")])
    both = table().merge(other)
    assert both.layers == ("net: conv", "other: conv")
    assert both.channel_range("other: conv") == ((16, 32), (16, 32))


@pytest.mark.parametrize(
    ("name", "value"),
    [("device", "another"), ("engine", "onnxruntime 2.0"), ("threads", 4), ("batch", 8), ("target", "tensorrt:sm90")],
)
def test_another_setting_is_refused_or_used_with_a_warning(name: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "table"
    table().save(path)
    here = replace(SETTING, **{name: value})
    with pytest.raises(TableError, match=rf"measured with {name} {getattr(SETTING, name)!r} \(found {value!r}\)"):
        LatencyTable.load(path, setting=here)
    with pytest.warns(UserWarning, match="its figures may be wrong"):
        assert LatencyTable.load(path, setting=here, mismatch="warn").records == table().records
    with pytest.raises(TableError, match=name):
        table().merge(LatencyTable(here, []))


def test_the_difference_of_two_tables_is_a_ratio_per_operator() -> None:
    slower = LatencyTable(SETTING, [record(a, b, pace=1.5) for a in INPUTS for b in OUTPUTS])
    assert table().diff(slower) == pytest.approx(dict.fromkeys(table().keys, 1.5))
    assert ADD in table().keys and LatencyTable(SETTING, [record(16, 16)]).diff(table()).keys() == {ADD, BLOCKED}


def test_a_surface_finds_a_bend_that_its_formula_has_not() -> None:
    x = np.arange(16, 257, 16, dtype=np.float64)
    seconds = 1e-6 * x + 1e-5 * (x > 128)
    widths = np.stack([x, x], axis=1)
    surface = Surface(widths, seconds, products=False)
    np.testing.assert_allclose(surface(widths), seconds, rtol=0.06)
    assert surface.covers(np.array([[16.0, 256.0], [15.0, 20.0]])).tolist() == [True, False]


def test_a_single_measurement_is_its_own_answer() -> None:
    surface = Surface(np.array([[8.0, 8.0]]), np.array([3e-6]), products=True)
    assert surface(np.array([[8.0, 8.0]]))[0] == pytest.approx(3e-6)
