"""Profiling: what is in a table afterwards, and that kills, shards and second runs lose and repeat nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import sparsefx
from sparsefx.passes.describe import describe
from sparsefx.passes.errors import TableError
from sparsefx.runtime.latency.beside import engine_profile
from sparsefx.runtime.latency.context import WhatIf, this_setting
from sparsefx.runtime.latency.prepared import prepared_with, specs
from sparsefx.runtime.latency.profiler import Profiler
from sparsefx.runtime.latency.table import LatencyTable
from tests.runtime.latency.helpers import Residual, image

GRID = (1.0, 0.6, 0.3)
LOOSE = 10.0  # uncertainty at which one round is enough


HERE = this_setting("onnxruntime:cpu", 1, 1)
HEADER = {"setting": dict(HERE.__dict__), "inputs": specs((image(),)), "date": "today"}

Profile = Callable[..., LatencyTable]


@pytest.fixture(scope="module")
def profiled() -> Profile:
    """Profile the small network, which is lowered once for all tests."""
    graph = prepared_with(Residual(), (image(),))
    what_if = WhatIf(graph, describe(graph), HERE)

    def run(path: Path | None = None, grid: Sequence[float] = GRID, **settings: object) -> LatencyTable:
        return Profiler(what_if, "Residual", HERE, HEADER, path, grid, tight=LOOSE, **settings).run()

    return run


@pytest.fixture(scope="module")
def small_table(profiled: Profile) -> LatencyTable:
    return profiled()


def test_a_table_knows_its_setting_and_its_layers(small_table: LatencyTable) -> None:
    setting = small_table.setting
    assert (setting.target, setting.threads, setting.batch) == ("onnxruntime:cpu", 1, 1)
    assert setting.engine.startswith("onnxruntime ") and setting.device
    assert set(small_table.layers) == {"stem", "first", "second", "depthwise", "point", "head"}
    assert len(small_table.records) >= len(GRID) ** 2
    (low_in, high_in), (low_out, high_out) = small_table.channel_range("first")
    assert (high_in, high_out) == (16, 24) and low_in < 8 and low_out < 12
    grid = small_table.cost("first", np.arange(low_in, 17)[:, None], np.arange(low_out, 25)[None, :])
    assert grid.shape == (17 - low_in, 25 - low_out) and (grid > 0).all()


def test_widths_and_graphs_can_be_foretold(small_table: LatencyTable) -> None:
    model = Residual()
    dense = small_table.predict_widths(model, {})
    assert dense > 0
    for record in small_table.records[:3]:
        assert record.widths is not None
        nodes = [timed.node for timed in record.nodes]
        assert small_table.predict_widths(model, record.widths) == pytest.approx(small_table.total(nodes))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    compiled = sparsefx.compile(model, (image(),), target="torch")
    assert small_table.predict(compiled.graph_module) == pytest.approx(dense, rel=1e-6)


@pytest.mark.parametrize(("name", "value"), [("device", "another"), ("engine", "onnxruntime 0.1")])
def test_a_table_of_another_machine_foretells_nothing_unless_asked(
    name: str, value: str, small_table: LatencyTable, tmp_path: Path
) -> None:
    foreign = LatencyTable(replace(small_table.setting, **{name: value}), small_table.records, small_table.header)
    foreign.save(tmp_path / "table")
    graph = prepared_with(Residual(), (image(),))
    with pytest.raises(TableError, match=f"the latency table was measured with {name} {value!r}"):
        LatencyTable.load(tmp_path / "table").predict(graph)
    with pytest.raises(TableError, match=name):
        foreign.predict_widths(Residual(), {})
    with pytest.warns(UserWarning, match="its figures may be wrong"):
        told = LatencyTable.load(tmp_path / "table", mismatch="warn").predict(graph)
    assert told == pytest.approx(small_table.predict(graph))


def test_what_is_missing_is_named_or_measured(small_table: LatencyTable) -> None:
    table = LatencyTable(small_table.setting, small_table.records, small_table.header)
    other = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Tanh(), nn.Conv2d(8, 4, 3))
    graph = sparsefx.compile(other, (image(),), target="torch").graph_module
    with pytest.raises(TableError, match="is not in the latency table: no measurement of"):
        table.predict(graph)
    before = len(table.records)
    assert table.predict(graph, missing="measure") > 0
    assert len(table.records) == before + 1
    assert table.predict(graph) > 0


def test_sizes_outside_are_refused_or_measured() -> None:
    def graph(width: int) -> GraphModule:
        model = nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 8))
        return sparsefx.compile(model, (torch.randn(1, 16),), target="torch").graph_module

    table = LatencyTable(HERE, [])
    table.predict(graph(32), missing="measure")
    with pytest.raises(TableError, match=r"has widths \(.*\), measured are .*; profile with a wider grid, measure it"):
        table.predict(graph(64))
    assert table.predict(graph(64), missing="measure") > 0
    assert len(table.records) == 2
    assert table.predict(graph(48), missing="measure") > 0
    assert len(table.records) == 2, "what lies between is foretold"


def test_an_engine_is_laid_beside_the_table(small_table: LatencyTable) -> None:
    graph = prepared_with(Residual(), (image(),))
    found = engine_profile(graph, small_table)
    assert {row.node.layer for row in found.operators} >= {None} and found.whole > 0
    assert found.predicted is not None and all(row.predicted is not None for row in found.operators)
    assert found.predicted == pytest.approx(small_table.predict(graph))
    assert f"engine {found.whole:.3f} ms, predicted {found.predicted:.3f} ms" in str(found)
    other = prepared_with(nn.Sequential(nn.Conv2d(3, 8, 5), nn.Tanh()), (image(),))
    with pytest.warns(UserWarning, match="the figure is extrapolated"):
        foreign = engine_profile(other, small_table)
    assert foreign.predicted is None and "not in the table" in str(foreign)


def test_a_second_run_measures_nothing_again(tmp_path: Path, profiled: Profile) -> None:
    path = tmp_path / "table"
    first = profiled(path)
    text = path.read_text()
    second = profiled(path)
    assert path.read_text() == text and second.records == first.records == LatencyTable.load(path).records


def test_shards_make_the_whole(tmp_path: Path, small_table: LatencyTable, profiled: Profile) -> None:
    parts = [profiled(tmp_path / f"part{i}", share=(i, 2)) for i in (1, 2)]
    whole = parts[0].merge(parts[1])
    assert [r.name for r in whole.records] == [r.name for r in small_table.records]
    assert not {r.name for r in parts[0].records} & {r.name for r in parts[1].records}


def test_a_table_of_another_setting_is_not_gone_on_with(tmp_path: Path, profiled: Profile) -> None:
    path = tmp_path / "table"
    profiled(path, time_limit=0.0)
    with pytest.raises(TableError, match=r"was measured with batch 1 \(found 2\); give another path"):
        sparsefx.profile(Residual(), (image(2),), threads=1, path=path)


def test_a_time_limit_leaves_what_was_measured(tmp_path: Path, profiled: Profile) -> None:
    path = tmp_path / "table"
    assert len(profiled(path, time_limit=0.0).records) == 1
    assert len(profiled(path, time_limit=0.0).records) == 2


def test_progress_is_told(profiled: Profile) -> None:
    told: list[tuple[float, str]] = []
    profiled(time_limit=0.0, on_progress=lambda share, text: told.append((share, text)))
    assert [share for share, _ in told] == sorted(share for share, _ in told) and told[-1][0] == 1.0
    assert told[-1][1].startswith("1 networks measured")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": (1.5, 1.0)}, "grid must be shares"),
        ({"grid": (1.0,)}, "at least two"),
        ({"grid": (1.0, 0.8, 0.6, 0.4)}, "a prime number of levels .*, found 4"),
        ({"shard": (3, 2)}, r"shard must be \(i, n\)"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(TableError, match=message):
        sparsefx.profile(Residual(), (image(),), **settings)


SCRIPT = """
import sys, torch, sparsefx
from sparsefx.runtime.latency.context import WhatIf, this_setting
from tests.runtime.latency.helpers import Residual, image
torch.set_num_threads(1)
sparsefx.profile(Residual(), (image(),), threads=1, grid=(1.0, 0.8, 0.6, 0.4, 0.2), tight=10.0, path=sys.argv[1])
"""


@pytest.mark.ci
def test_a_kill_loses_one_measurement_at_most(tmp_path: Path) -> None:
    """kill -9 in the middle; the next run keeps all whole lines and measures the rest once."""
    path = tmp_path / "table"
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, str(path)])
    deadline = time.monotonic() + 120
    while not (path.exists() and path.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with path.open("ab") as file:
        file.write(b'{"model": "half a li')  # as a kill while writing leaves it
    kept = path.read_bytes().splitlines()[:-1]
    assert len(kept) >= 4
    with pytest.warns(UserWarning, match="the last measurement is damaged"):
        table = sparsefx.profile(
            Residual(), (image(),), threads=1, grid=(1.0, 0.8, 0.6, 0.4, 0.2), tight=LOOSE, path=path
        )
    lines = path.read_bytes().splitlines()
    assert lines[: len(kept)] == kept
    measured = [json.loads(line)["widths"] for line in lines[1:]]
    assert all(widths in measured for widths in (r.widths for r in table.records))
    assert len({json.dumps(widths) for widths in measured}) == len(table.records)


def test_batches_and_threads_are_part_of_the_setting() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    table = sparsefx.profile(net, (image(2),), threads=2, grid=(1.0, 0.5), tight=LOOSE, time_limit=0.0)
    assert (table.setting.batch, table.setting.threads) == (2, 2)
    assert any("2x16x16" in key for key in table.keys if "kernel_shape 3x3" in key)
