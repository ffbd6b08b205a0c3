"""`sparsefx profile` and `sparsefx table`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsefx.__main__ import main
from tests.runtime.latency.helpers import table

FACTORY = "from tests.runtime.latency.helpers import Residual"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiled.py").write_text(FACTORY)
    yield tmp_path
    sys.modules.pop("profiled", None)


def test_a_model_is_profiled_and_shown(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--threads", "1", "--grid", "1,0.5", "--spread", "10"]
    assert main(["profile", "profiled:Residual", "--input", "1x3x16x16", "-o", "net.latency", *settings]) == 0
    out, err = capsys.readouterr()
    assert "latency table of" in out and "threads 1" in out and "6 layers" in out
    assert "0 networks measured" in err.splitlines()[0]
    assert main(["table", "net.latency", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data["layers"]) == {"stem", "first", "second", "depthwise", "point", "head"}
    assert data["setting"]["target"] == "onnxruntime:cpu" and data["networks"] >= 4


def test_tables_are_merged_compared_and_drawn(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    table((16, 32), (16, 32, 64)).save("a.latency")
    table((48, 64), (16, 32, 64)).save("b.latency")
    table(pace=2.0).save("slow.latency")
    assert main(["table", "a.latency", "b.latency", "--merge", "all.latency"]) == 0
    out = capsys.readouterr().out
    assert "12 networks" in out and out.endswith("Wrote all.latency\n")
    assert main(["table", "all.latency", "--plot", "conv", "-o", "conv.png"]) == 0
    assert (workplace / "conv.png").stat().st_size > 1000
    assert capsys.readouterr().out.endswith("Wrote conv.png\n")
    assert main(["table", "all.latency", "slow.latency", "--diff"]) == 0
    assert "2.00x  blocked.Conv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table", "nothing.latency"], "TableError: nothing.latency cannot be read"),
        (["table", "a.latency", "--diff"], "--diff compares two tables, found 1"),
        (["profile", "profiled:Residual", "--input", "1x3x16x16", "-o", "x", "--shard", "2"], "--shard must look like"),
        (["profile", "profiled:Residual", "--input", "1x3x16x16", "-o", "x", "--grid", "a"], "--grid must look like"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], message: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table((16, 32), (16, 32)).save("a.latency")
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
