"""HALP's key layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparsefx.passes.errors import TableError
from sparsefx.runtime.latency.halp_keys import HalpKind, HalpTable

PLAIN = {f"1_{a}_{b}_56_3_1_1": 0.1 + 1e-4 * a * b for a in (8, 16, 32, 64) for b in (8, 16, 32, 64)}
DEPTHWISE = {f"1_{c}_{c}_28_3_2_{c}": 0.01 * c for c in (8, 16, 32)}
KIND = HalpKind(batch=1, map_size=56, kernel=3, stride=1, depthwise=False)


def test_figures_come_back_in_milliseconds_and_between_them() -> None:
    table = HalpTable(PLAIN | DEPTHWISE)
    assert table.cost(KIND, 16, 32) == pytest.approx(PLAIN["1_16_32_56_3_1_1"])
    np.testing.assert_allclose(table.cost(KIND, [[24], [48]], [24, 48]), 0.1 + 1e-4 * np.outer([24, 48], [24, 48]))
    assert table.cost(HalpKind(1, 28, 3, 2, True), 16, 16) == pytest.approx(0.16, rel=0.01)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(TableError, match="is not in HALP's table; it has 1 kinds"):
        HalpTable(PLAIN).cost(HalpKind(1, 14, 3, 1, False), 8, 8)
    with pytest.raises(TableError, match=r"measured from \[8, 8\] to \[64, 64\]"):
        HalpTable(PLAIN).cost(KIND, 8, 128)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("1_8_8_56_3_1", 1.0, "batch_cin_cout_map_kernel_stride_groups"),
        ("1_8_x_56_3_1_1", 1.0, "batch_cin_cout_map_kernel_stride_groups"),
        ("1_8_8_56_3_1_4", 1.0, "plain and depthwise"),
        ("1_8_8_56_3_1_1", 0.0, "expected a time above 0"),
    ],
)
def test_bad_entries_are_named(key: str, value: float, message: str) -> None:
    with pytest.raises(TableError, match=message):
        HalpTable({key: value})


def test_files_are_json_and_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lut.json"
    path.write_text(json.dumps(PLAIN))
    assert HalpTable.load(path).surfaces.keys() == {KIND}
    path.write_bytes(b"\x80\x04\x95.")
    with pytest.raises(TableError, match="pickles, which may run any code"):
        HalpTable.load(path)
    path.write_text("[1]")
    with pytest.raises(TableError, match="found a list"):
        HalpTable.load(path)
    with pytest.raises(TableError, match="cannot be read"):
        HalpTable.load(tmp_path / "none")
