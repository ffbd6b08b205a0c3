"""The quickstart: the whole way on real digits. What it prints are measurements, so no figure is fixed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sparsefx
from sparsefx.__main__ import main
from sparsefx.cli import quickstart
from sparsefx.training.recipes.data.digits import load_digits
from sparsefx.training.recipes.trained import accuracy


@pytest.mark.ci
def test_quickstart_goes_all_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "_BENCH_SECONDS", 0.2)
    assert main(["quickstart", "-o", str(tmp_path / "run"), "--json", "--quiet", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sparsity"] == pytest.approx(0.9, abs=1e-3)
    totals = found["report"]["totals"]
    assert totals["macs_after"] < 0.65 * totals["macs_before"]
    assert found["accuracy"]["compiled"] == found["accuracy"]["masked"] >= 0.97
    assert [row["name"] for row in found["bench"]] == ["dense", "compiled"]
    assert all(row["peak_memory_bytes"] > 0 for row in found["bench"])
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {"srigl.sfx", "dense.sfx", "weights.safetensors", "masks.safetensors", "report.html"}
    assert accuracy(sparsefx.load(tmp_path / "run" / "srigl.sfx"), load_digits()) == found["accuracy"]["compiled"]
